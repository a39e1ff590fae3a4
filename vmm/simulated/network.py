"""The loopback of a simulated guest: programs and the agent listen there, and connect."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

import attrs
import trio

from vmm.words.commands import WINDOW
from vmm.words.ports import GuestAddress, TcpAddress

_PIECE: Final = 64 * 1024
_PIECES: Final = WINDOW // _PIECE
_BACKLOG: Final = 128
_FIRST_FREE_PORT: Final = 32768


@attrs.define(eq=False)
class Peer:
    """One end of a connection. The methods raise OSError as the system calls do."""

    _incoming: trio.MemoryReceiveChannel[bytes]
    _outgoing: trio.MemorySendChannel[bytes]
    _other: Peer | None = None
    was_reset: bool = False
    """By the other end."""
    closed: bool = False

    @classmethod
    def pair(cls) -> tuple[Peer, Peer]:
        there = trio.open_memory_channel[bytes](_PIECES)
        back = trio.open_memory_channel[bytes](_PIECES)
        one, other = cls(there[1], back[0]), cls(back[1], there[0])
        one._other, other._other = other, one
        return one, other

    async def receive(self) -> bytes:
        """The next piece; empty at the end, and after `close`."""
        try:
            return await self._incoming.receive()
        except trio.ClosedResourceError:
            return b""
        except trio.EndOfChannel:
            if self.was_reset:
                raise _error(errno.ECONNRESET) from None
            return b""

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        for start in range(0, len(data), _PIECE):
            try:
                await self._outgoing.send(data[start : start + _PIECE])
            except trio.BrokenResourceError:
                raise _error(errno.ECONNRESET if self.was_reset else errno.EPIPE) from None

    def send_eof(self) -> None:
        self._outgoing.close()

    def close(self, *, reset: bool = False) -> None:
        """Idempotent."""
        if reset and self._other is not None:
            self._other.was_reset = True
        self.closed = True
        self._incoming.close()
        self._outgoing.close()


@attrs.define(eq=False)
class Network:
    """Listeners by address, and the ends of connections."""

    _listeners: dict[GuestAddress, trio.MemorySendChannel[Peer]] = attrs.field(factory=dict)
    _peers: list[Peer] = attrs.field(factory=list)
    _next_port: int = _FIRST_FREE_PORT
    _listening: trio.Event = attrs.field(factory=trio.Event)
    """Set when somebody begins to listen."""

    @contextlib.contextmanager
    def listen(self, address: GuestAddress) -> Iterator[tuple[GuestAddress, trio.MemoryReceiveChannel[Peer]]]:
        """While the block runs, connections to the address come out of the channel. Raises OSError."""
        if isinstance(address, TcpAddress) and address.port == 0:
            address = attrs.evolve(address, port=self._next_port)
            self._next_port += 1
        if address in self._listeners:
            raise _error(errno.EADDRINUSE)
        arriving, incoming = trio.open_memory_channel[Peer](_BACKLOG)
        self._listeners[address] = arriving
        self._listening.set()
        self._listening = trio.Event()
        try:
            yield address, incoming
        finally:
            if self._listeners.get(address) is arriving:
                del self._listeners[address]
            arriving.close()
            _close_all(incoming)

    async def connect(self, address: GuestAddress) -> Peer:
        """Raises OSError."""
        await trio.lowlevel.checkpoint()
        arriving = self._listeners.get(address)
        if arriving is None:
            raise _error(errno.ECONNREFUSED if isinstance(address, TcpAddress) else errno.ENOENT)
        one, other = Peer.pair()
        self._peers = [peer for peer in self._peers if not peer.closed]
        self._peers += (one, other)
        try:
            await arriving.send(other)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise _error(errno.ECONNREFUSED) from None
        return one

    async def wait_listening(self, address: GuestAddress) -> None:
        """Returns once somebody listens there."""
        await trio.lowlevel.checkpoint()
        while address not in self._listeners:
            await self._listening.wait()

    def sever(self) -> None:
        """Ends everything, as the end of the guest does."""
        for arriving in self._listeners.values():
            arriving.close()
        self._listeners.clear()
        for peer in self._peers:
            peer.close()
        self._peers.clear()


def _close_all(incoming: trio.MemoryReceiveChannel[Peer]) -> None:
    """Of connections that nobody has taken."""
    with contextlib.suppress(trio.EndOfChannel, trio.ClosedResourceError):
        while True:
            incoming.receive_nowait().close()
    incoming.close()


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
