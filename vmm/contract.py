"""The interface of a VM. Implemented by `vmm.qemu` and `vmm.simulated`; tests/contract runs over both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import trio

from vmm.errors import AgentProtocolError, QmpError
from vmm.words.commands import MAX_GOT_FILE, CommandExit, CommandSpec, Output
from vmm.words.preparation import Growth, GuestInfo, Preparation, PreparationReport
from vmm.words.processes import ExitReport, ProcessIdentity


class Command(Protocol):
    """A running command. Output is back-pressured: unread output keeps the guest process waiting."""

    async def send_stdin(self, data: bytes) -> None:
        """Waits while the guest process does not read. Ignored, as by a closed pipe, once its stdin is closed."""

    async def close_stdin(self) -> None: ...

    async def send_signal(self, number: int) -> None:
        """Signals the command's process group. No-op once it has ended."""

    def events(self) -> AsyncIterator[Output | CommandExit]:
        """Output in order per stream; the last event is the CommandExit, after all output. Raises AgentError."""

    async def aclose(self) -> None:
        """Closes the command, and kills its process group if it still runs. Never raises for a VM that is gone; under
        cancellation the kill is still sent."""


class Agent(Protocol):
    """The guest agent. Safe for concurrent use. Every method raises AgentError when the guest fails it.

    An agent without a feature raises AgentRequestError with code "UNSUPPORTED": see docs/guide.md.
    """

    async def ping(self) -> GuestInfo:
        """Returns once the guest has answered."""

    async def prepare(self, preparation: Preparation) -> PreparationReport: ...

    async def start_command(self, spec: CommandSpec) -> Command:
        """The caller must `aclose` it.

        Raises AgentRequestError if the command cannot be started: with the errno as its code, and with part "program"
        or "working_directory" if one of these is the cause. Raises NoRoomError, now or from the command's events, if
        the agent needs more room than the spec has.
        """

    async def put_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Creates or replaces a file, atomically for readers in the guest."""

    async def wait_broken(self) -> AgentProtocolError:
        """Returns once the guest has broken the protocol; it takes no more requests."""

    async def get_file(self, path: str, *, limit: int = MAX_GOT_FILE) -> bytes:
        """A file's content. Raises AgentRequestError with code "EFBIG" if it is longer than `limit` bytes."""


class VmTemplate(Protocol):
    """A template of clones. Each backend takes its own kind only."""

    @property
    def fingerprint(self) -> str: ...

    def check(self) -> None:
        """Raises TemplateError if its files changed since it was made or opened. Blocks for a few stat calls."""


class Shell(Protocol):
    """A process that waits to run a template's guest. Its owner must end it."""

    @property
    def id(self) -> str: ...

    @property
    def pid(self) -> int: ...

    @property
    def generation(self) -> str:
        """The generation of templates whose guest it can run."""

    async def wait_exited(self) -> ExitReport:
        """Returns once the process is dead, at once if it is already."""

    async def stop(self) -> ExitReport:
        """Ends the process and removes its files. Idempotent, shielded."""


class Survivor(Protocol):
    """The process of a VM of an earlier run of the service; nothing is connected to it. Its owner must call `stop` or
    `detach` on it or on the VM that it becomes.
    """

    @property
    def id(self) -> str: ...

    @property
    def pid(self) -> int: ...

    async def connect(self, *, nursery: trio.Nursery) -> Vm:
        """Runs the guest if it is paused, and returns its VM once the agent has answered. No time limit of its own.

        Processes that the earlier service's commands left running in the guest are ended. The connections' background
        tasks live in `nursery`. Raises VmExitedError, QmpError, AgentError; then, and under cancellation, nothing stays
        connected, and the caller may try again.
        """

    async def hold(self, *, nursery: trio.Nursery) -> Vm:
        """Pauses the guest if it runs, and returns its VM, which connects to its agent at the first request.

        It wakes no guest, so that many VMs can be held at little cost. No time limit of its own; otherwise as
        `connect`.
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
    """One VM process and its guest. Its owner must call `stop` or `detach` in the end, also after errors."""

    @property
    def id(self) -> str: ...

    @property
    def uuid(self) -> str:
        """Derived from the VM's id. A booted machine's firmware shows it; a clone gets it with `prepare`."""

    @property
    def pid(self) -> int:
        """The process's id; 0 for a simulated VM."""

    @property
    def identity(self) -> ProcessIdentity:
        """The identity by which a later run of the service finds the process."""

    @property
    def agent(self) -> Agent: ...

    @property
    def is_clone(self) -> bool:
        """Whether its guest was loaded, not booted: until a reseed it draws the same random numbers as others."""

    async def pause(self) -> None:
        """Stops the vCPUs (QMP `stop`). Idempotent."""

    async def resume(self) -> None:
        """Runs the vCPUs (QMP `cont`). Idempotent."""

    async def run_state(self) -> str:
        """QEMU's state of its guest, in QAPI's words for RunState ("running", "paused", ...), whatever the guest does.
        No time limit. Raises VmExitedError, QmpError.
        """

    async def grow(self, *, vcpus: int, memory_mib: int) -> Growth:
        """Hot-adds up to totals of `vcpus` and `memory_mib`, and returns the additions; never removes anything.

        Earlier additions count, whatever made them. Memory is rounded up to blocks of 128 MiB. The guest has to bring
        the additions online: see `Preparation.vcpus`. Raises HotplugError, with nothing added if a total exceeds the
        machine's maximum; if QEMU refuses a part, earlier parts stay. Raises VmExitedError.
        """

    async def console(self, *, limit: int) -> str:
        """The last `limit` bytes of the guest's console; empty if the log is gone.

        Bytes that are not UTF-8 are escaped as in Python; control characters stay. Works whatever state the guest and
        its QEMU are in.
        """

    async def wait_exited(self) -> ExitReport:
        """Returns once the process is dead, at once if it is already. Any number of tasks may wait."""

    async def wait_broken(self) -> QmpError:
        """Returns once QEMU has broken the protocol of its monitor, or sent more than any QEMU does: the guest has
        taken it over, or can make it send, and the VM takes no more requests.
        """

    async def stop(self) -> ExitReport:
        """Ends the VM: QMP `quit`, bounded wait, SIGKILL, verify dead, and only then remove its files.

        Idempotent. Runs to the end under cancellation (shielded, bounded by the escalation's own time limits).
        """

    async def disconnect(self) -> None:
        """Closes the connections to the VM, so that its taker can connect. Shielded.

        Afterwards only `pid`, `identity`, `wait_exited`, `stop` and `detach` may be used.
        """

    async def detach(self) -> None:
        """Detaches the VM: it goes on as it is, for a later run of the service to adopt. Shielded.

        No task may be waiting in `wait_exited`, and the object must not be used afterwards.
        """
