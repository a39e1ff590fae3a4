"""Processes in the guest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from vmm.words.commands import WHOLE, CommandExit, CommandSpec, Output, Room, TerminalSize
from vmm.words.guest_processes import KEPT_BYTES, Positions, ProcessInfo, ProcessOutput, ProcessRef


class Command(Protocol):
    """A running command. Output is back-pressured: unread output keeps the guest process waiting."""

    @property
    def process_id(self) -> int:
        """Of the VM, as `ProcessInfo.process_id`; 0 if the agent does not tell."""

    @property
    def pid(self) -> int:
        """In the guest; 0 if the agent does not tell."""

    async def send_stdin(self, data: bytes) -> None:
        """Waits while the guest process does not read. Ignored, as by a closed pipe, once its stdin is closed."""

    async def close_stdin(self) -> None: ...

    async def send_signal(self, number: int) -> None:
        """Signals the command's process group. No-op once it has ended."""

    async def resize(self, size: TerminalSize) -> None:
        """Sets the size of its terminal. Raises AgentRequestError if it has none; no-op once it has ended."""

    def events(self) -> AsyncIterator[Output | CommandExit]:
        """Output in order per stream; the last event is the CommandExit, after all output. Raises AgentError."""

    async def aclose(self) -> None:
        """Closes the command, and kills its process group if it still runs. Never raises for a VM that is gone; under
        cancellation the kill is still sent."""


class AttachedProcess(Protocol):
    """A look at a process that does not depend on it. Its owner must `aclose` it, which leaves the process alone."""

    @property
    def info(self) -> ProcessInfo:
        """When it was attached to."""

    async def send_stdin(self, data: bytes) -> None:
        """As `Command.send_stdin`."""

    async def close_stdin(self) -> None: ...

    async def send_signal(self, number: int) -> None: ...

    async def resize(self, size: TerminalSize) -> None: ...

    def events(self) -> AsyncIterator[ProcessOutput | CommandExit]:
        """Output in order per stream, with positions that tell gaps; the last event is the CommandExit. Unread output
        does not keep the process waiting. Raises AgentError.
        """

    async def aclose(self) -> None: ...


class GuestProcesses(Protocol):
    """Processes that outlive their caller, and the host's connection. Safe for concurrent use.

    Everything raises AgentRequestError: code "ESRCH" for an unknown process, or for one that has ended where one that
    runs is needed; "EBUSY" to forget one that runs; "EEXIST" for a tag in use; "EPIPE" for input to a closed stdin;
    "ENOTTY" for a size without a terminal.
    """

    async def start(self, spec: CommandSpec, *, tag: str = "", keep: int = KEPT_BYTES) -> ProcessInfo:
        """Raises as `Agent.start_command`."""

    async def list(self) -> tuple[ProcessInfo, ...]:
        """Also the commands of `Agent.start_command`."""

    async def attach(
        self, process: ProcessRef, *, positions: Positions | None = None, room: Room = WHOLE
    ) -> AttachedProcess:
        """Follows the output from these positions on; None: from now on."""

    async def wait(self, process: ProcessRef) -> CommandExit:
        """No time limit of its own. If cancelled, the process goes on."""

    async def send_input(self, process: ProcessRef, data: bytes, *, close: bool = False) -> None:
        """Returns when everything is written; when cancelled, a part may be."""

    async def send_signal(self, process: ProcessRef, number: int, *, everything: bool = False) -> None:
        """To its process group; to all that it has started with `everything`."""

    async def resize(self, process: ProcessRef, size: TerminalSize) -> None: ...

    async def forget(self, process: ProcessRef) -> None: ...
