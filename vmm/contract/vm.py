"""A VM, seen from the layers above."""

from __future__ import annotations

from typing import Protocol

import trio

from vmm.contract.agent import Agent
from vmm.errors import QmpError
from vmm.words.preparation import Growth
from vmm.words.processes import ExitReport, ProcessIdentity


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
