"""Connections to and from programs in the guest, seen from the host."""

from __future__ import annotations

from typing import Any, Final

import attrs

from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.guest.connection import Connection
from vmm.guest.requests import Request
from vmm.guest.streams import RemoteRecords, RemoteStream
from vmm.untrusted import is_number
from vmm.words.commands import WHOLE, Room
from vmm.words.ports import GuestAddress, UnixAddress

_MAX_CONNECTIONS: Final = 2**62
"""That one listener announces: a number for each, in order."""


class _OfNumbers:
    """Room for the numbers of connections: more than a guest announces before they are taken."""

    window: Final = 4096

    def take(self, size: int) -> None:
        """Never asked: each agent that knows how to listen has windows of any size."""


class RemotePorts:
    """Implements `vmm.contract.GuestPorts`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def connect(self, address: GuestAddress, *, room: Room = WHOLE) -> RemoteStream:
        """See the contract. If cancelled, the guest gives up."""
        return await RemoteStream.open(self._connection, "connect", _fields(address), takes_input=True, room=room)

    async def listen(self, address: GuestAddress) -> RemoteListener:
        """See the contract. If cancelled, the guest does not listen."""
        stream = await RemoteStream.open(self._connection, "listen", _fields(address), room=_OfNumbers())
        try:
            with self._connection.judging():
                listening = _listening(stream.answer, address)
        except BaseException:
            await stream.aclose()
            raise
        return RemoteListener(self._connection, stream, listening)

    async def wait(self, address: GuestAddress) -> None:
        """See the contract."""
        with Request(self._connection, "wait_port", _fields(address)) as request:
            await request.reply()


class RemoteListener:
    """Implements `vmm.contract.PortListener`."""

    def __init__(self, connection: Connection, stream: RemoteStream, address: GuestAddress) -> None:
        """Takes over the stream."""
        self._connection = connection
        self._number = stream.number
        self._address = address
        self._announced = 0
        self._untaken: list[int] = []
        self._records = RemoteRecords(connection, stream, self._read)

    @property
    def address(self) -> GuestAddress:
        return self._address

    async def accept(self) -> int:
        """See the contract. One task at a time."""
        while not self._untaken:
            records = await self._records.receive()
            if not records:
                raise AgentRequestError(request="listen", code="EBADF", message="the listener is closed")
            self._untaken.extend(records)
        return self._untaken.pop(0)

    async def take(self, connection: int, *, room: Room = WHOLE) -> RemoteStream:
        """See the contract. A connection is taken even if this is cancelled; it is then closed."""
        fields = {"listener": self._number, "connection": connection}
        return await RemoteStream.open(self._connection, "accept", fields, takes_input=True, room=room)

    async def aclose(self) -> None:
        """See the contract."""
        await self._records.aclose()

    def _read(self, record: dict[str, Any]) -> int:
        number = record.get("connection")
        if not is_number(number, most=_MAX_CONNECTIONS) or number != self._announced + 1:
            raise AgentProtocolError("the guest agent announced a connection out of order")
        self._announced = number
        return number


def _fields(address: GuestAddress) -> dict[str, Any]:
    if isinstance(address, UnixAddress):
        return {"path": address.path}
    return {"host": address.host, "port": address.port}


def _listening(answer: dict[str, Any], address: GuestAddress) -> GuestAddress:
    """Where the guest listens: as asked, or on a port that it chose."""
    if isinstance(address, UnixAddress):
        return address
    port = answer.get("port")
    if not is_number(port, most=65535) or port == 0 or address.port not in (0, port):
        raise AgentProtocolError("the guest agent listens on another port than it was asked to")
    return attrs.evolve(address, port=port)
