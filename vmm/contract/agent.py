"""The guest agent, seen from the host."""

from __future__ import annotations

from typing import Protocol

from vmm.contract.files import GuestFiles
from vmm.contract.ports import GuestPorts
from vmm.contract.processes import Command, GuestProcesses
from vmm.errors import AgentProtocolError
from vmm.words.commands import MAX_GOT_FILE, CommandSpec
from vmm.words.preparation import GuestInfo, Preparation, PreparationReport
from vmm.words.usage import Usage


class Agent(Protocol):
    """The guest agent. Safe for concurrent use. Every method raises AgentError when the guest fails it.

    An agent without a feature raises AgentRequestError with code "UNSUPPORTED": see docs/guide.md.
    """

    @property
    def processes(self) -> GuestProcesses: ...

    @property
    def files(self) -> GuestFiles: ...

    @property
    def ports(self) -> GuestPorts: ...

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

    async def usage(self) -> Usage:
        """What the VM uses, as its kernel tells."""

    async def set_clock(self, wall_clock_ns: int) -> None:
        """Sets the guest's clock, ns since 1970."""
