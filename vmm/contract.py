"""What a VM is to the layers above. Fulfilled by `vmm.qemu` and `vmm.simulated`; tests/contract runs over both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import trio

from vmm.errors import AgentProtocolError, QmpError
from vmm.words.commands import MAX_GOT_FILE, CommandExit, CommandSpec, Output
from vmm.words.preparation import Growth, GuestInfo, Preparation, PreparationReport
from vmm.words.processes import ExitReport, ProcessIdentity


class Command(Protocol):
    """A running command. Output is back-pressured: what is not received keeps the guest process waiting."""

    async def send_stdin(self, data: bytes) -> None:
        """Waits while the guest process does not read. Ignored, as by a closed pipe, once its stdin is closed."""

    async def close_stdin(self) -> None: ...

    async def send_signal(self, number: int) -> None:
        """Signals the command's process group. No-op once it has ended."""

    def events(self) -> AsyncIterator[Output | CommandExit]:
        """Output in order per stream; the last event is the CommandExit, after all output. Raises AgentError."""

    async def aclose(self) -> None:
        """Ends the command's interest in its process: kills the process group if it still runs. Never raises for a
        VM that is gone; under cancellation the kill is still sent."""


class Agent(Protocol):
    """The guest agent. Safe for concurrent use. Every method raises AgentError when the guest does not do it.

    An agent that cannot do a thing at all raises AgentRequestError with code "UNSUPPORTED": see docs/guide.md.
    """

    async def ping(self) -> GuestInfo:
        """Returns once the guest has shown that it is there."""

    async def prepare(self, preparation: Preparation) -> PreparationReport: ...

    async def start_command(self, spec: CommandSpec) -> Command:
        """The caller must `aclose` it.

        Raises AgentRequestError if it cannot be started: with the errno as its code, and with part "program" or
        "working_directory" if it was one of these. Raises NoRoomError, now or from the command's events, where the
        guest's agent takes more room than the spec has.
        """

    async def put_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Creates or replaces a file, atomically for readers in the guest."""

    async def wait_broken(self) -> AgentProtocolError:
        """Returns once the guest has said what is not in the protocol: nothing can be asked of it any more."""

    async def get_file(self, path: str, *, limit: int = MAX_GOT_FILE) -> bytes:
        """What a file has. Raises AgentRequestError with code "EFBIG" if that is more than `limit` bytes."""


class VmTemplate(Protocol):
    """What clones are made of. Each maker of clones knows its own kind and takes no other."""

    @property
    def fingerprint(self) -> str: ...

    def check(self) -> None:
        """Raises TemplateError if it is not what it was when it was made or opened. Blocks for a few stat calls."""


class Shell(Protocol):
    """A process that holds a template's guest and has not run it yet. Whoever got it must end it."""

    @property
    def id(self) -> str: ...

    @property
    def pid(self) -> int: ...

    @property
    def generation(self) -> str:
        """What it was started for: it can take the guest of a template of this generation."""

    async def wait_exited(self) -> ExitReport:
        """Returns once the process is dead, at once if it is already."""

    async def stop(self) -> ExitReport:
        """Ends it and removes what it had on disk. Idempotent, shielded."""


class Survivor(Protocol):
    """The process of a VM whose service is gone; nothing is connected to it. Whoever got it must end it with `stop` or
    `detach`, or the VM that became of it.
    """

    @property
    def id(self) -> str: ...

    @property
    def pid(self) -> int: ...

    async def connect(self, *, nursery: trio.Nursery) -> Vm:
        """Runs the guest if it is paused, and returns its VM once the agent has answered. No time limit of its own.

        Whatever the earlier service's commands left running in the guest is ended. The connections' background tasks
        live in `nursery`. Raises VmExitedError, QmpError, AgentError; then, and under cancellation, nothing stays
        connected, and it may be tried again.
        """

    async def hold(self, *, nursery: trio.Nursery) -> Vm:
        """Pauses the guest if it runs, and returns its VM. Its agent is connected to when it is first asked.

        It wakes nobody, so that many can be held at little cost. No time limit of its own; otherwise as `connect`.
        """

    async def console(self, *, limit: int) -> str:
        """As `Vm.console`."""

    async def wait_exited(self) -> ExitReport:
        """Returns once the process is dead, at once if it is already. Any number of tasks may wait."""

    async def stop(self) -> ExitReport:
        """As `Vm.stop`."""

    async def detach(self) -> None:
        """As `Vm.detach`."""


class Vm(Protocol):
    """One VM process and its guest. Whoever got it must call `stop` or `detach` in the end, whatever happens."""

    @property
    def id(self) -> str: ...

    @property
    def uuid(self) -> str:
        """Its own, made from its id. A booted machine's firmware says it; a clone has to be told, by `prepare`."""

    @property
    def pid(self) -> int:
        """The process, or 0 where there is none (simulated)."""

    @property
    def identity(self) -> ProcessIdentity:
        """By which a later run of the service finds the process again."""

    @property
    def agent(self) -> Agent: ...

    @property
    def is_clone(self) -> bool:
        """Whether its guest was not booted but loaded: until it is reseeded, it draws the random numbers of others."""

    async def pause(self) -> None:
        """Stops the vCPUs (QMP `stop`). Idempotent."""

    async def resume(self) -> None:
        """Runs the vCPUs (QMP `cont`). Idempotent."""

    async def run_state(self) -> str:
        """What QEMU says of its guest, in QAPI's words for RunState ("running", "paused", ...), whatever the guest
        does. No time limit. Raises VmExitedError, QmpError.
        """

    async def grow(self, *, vcpus: int, memory_mib: int) -> Growth:
        """Hot-adds what is missing to `vcpus` and `memory_mib` in all, and says what that was; more is left as it is.

        Counts what was added before, whoever did. Memory is rounded up to blocks of 128 MiB. The guest has to bring it
        all online: see `Preparation.vcpus`. Raises HotplugError, with nothing added if it is more than the machine's
        maximum; if QEMU refuses a part, what was added by then stays. VmExitedError.
        """

    async def console(self, *, limit: int) -> str:
        """The end of what the guest has written to its console, at most `limit` bytes; empty if it is gone.

        Bytes that are not UTF-8 are written out as in Python; control characters are as the guest wrote them. Whatever
        the guest or its QEMU does, it is told.
        """

    async def wait_exited(self) -> ExitReport:
        """Returns once the process is dead, at once if it is already. Any number of tasks may wait."""

    async def wait_broken(self) -> QmpError:
        """Returns once QEMU has said on its monitor what is not in the protocol, or more than any QEMU does: its guest
        has it, or has found how to make it, and nothing can be asked of the VM any more.
        """

    async def stop(self) -> ExitReport:
        """Ends the VM: QMP `quit`, bounded wait, SIGKILL, verify dead, then remove what it had on disk, never before.

        Idempotent. Runs to the end under cancellation (shielded, bounded by the escalation's own time limits).
        """

    async def disconnect(self) -> None:
        """Closes what is connected to the VM, so that somebody else can connect. Shielded.

        Of this object only `pid`, `identity`, `wait_exited`, `stop` and `detach` are used afterwards.
        """

    async def detach(self) -> None:
        """Lets go of the VM: it goes on as it is, for a later run of the service to adopt. Shielded.

        Nobody may be waiting in `wait_exited`, and nothing of this object is used afterwards.
        """
