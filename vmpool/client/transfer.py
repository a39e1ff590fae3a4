"""Blocking work on a stream of bytes, in a thread beside the loop."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import IO, Any, Final

from vmpool.client.endings import finish

_READ_BYTES: Final = 64 * 1024


async def produced(work: Callable[[IO[bytes]], None]) -> AsyncIterator[bytes]:
    """What `work` writes to its file. It is held up while nobody takes it; if the iteration ends early, its next write
    fails. Raises what `work` raises.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(asyncio.to_thread(_write, work, theirs))
    try:
        while data := await loop.sock_recv(ours, _READ_BYTES):
            yield data
        await asyncio.shield(working)
    finally:
        ours.close()
        await finish(_end(working))


async def consume(work: Callable[[IO[bytes]], None], data: AsyncIterator[bytes]) -> None:
    """Gives `work` a file from which it reads `data`; if that ends early, a read fails. Raises what `work` raises, or
    else what `data` raises.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    source = _Source(theirs)
    working = asyncio.ensure_future(asyncio.to_thread(_read, work, source))
    try:
        async for piece in data:
            try:
                await loop.sock_sendall(ours, piece)
            except (BrokenPipeError, ConnectionResetError):
                break  # it reads no more: it has failed, or has all that it needs
        source.is_whole = True
        ours.shutdown(socket.SHUT_WR)
        await asyncio.shield(working)
    finally:
        ours.close()
        await finish(_end(working))


class _Source(io.RawIOBase):
    """What comes through a socket. A closed socket is the end only when `is_whole`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.is_whole = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._sock.recv_into(buffer)
        if count == 0 and not self.is_whole:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return count

    def close(self) -> None:
        self._sock.close()
        super().close()


def _write(work: Callable[[IO[bytes]], None], sock: socket.socket) -> None:
    with sock, sock.makefile("wb") as file:
        work(file)


def _read(work: Callable[[IO[bytes]], None], source: _Source) -> None:
    with io.BufferedReader(source, _READ_BYTES) as file:
        work(file)


async def _end(working: asyncio.Future[None]) -> None:
    await asyncio.wait([working])
    if not working.cancelled():
        working.exception()  # seen; it was raised, unless something else was before
