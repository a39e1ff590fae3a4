"""Connections to and from programs in the guest."""

from __future__ import annotations

from typing import Protocol

from vmm.contract.streams import ByteStream
from vmm.words.commands import WHOLE, Room
from vmm.words.ports import GuestAddress


class PortListener(Protocol):
    """A socket that listens in the guest. Its owner must `aclose` it."""

    @property
    def address(self) -> GuestAddress:
        """With the port that was chosen."""

    async def accept(self) -> int:
        """Waits for the next connection; its number, for `take`. Raises AgentError."""

    async def take(self, connection: int, *, room: Room = WHOLE) -> ByteStream:
        """A connection that `accept` told of. Raises AgentRequestError, code "ENOENT" if it is taken or gone."""

    async def aclose(self) -> None:
        """Closes the socket and the connections not taken; others go on. As `ByteSource.aclose`."""


class GuestPorts(Protocol):
    """Safe for concurrent use. Raises AgentRequestError with the errno as its code, such as ECONNREFUSED."""

    async def connect(self, address: GuestAddress, *, room: Room = WHOLE) -> ByteStream:
        """Returns when the guest has connected."""

    async def listen(self, address: GuestAddress) -> PortListener: ...

    async def wait(self, address: GuestAddress) -> None:
        """Returns once a server there accepts a connection. No time limit of its own; when cancelled, it ends in the
        guest too."""
