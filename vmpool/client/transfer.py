"""Blocking work on a stream of bytes, in a thread beside the loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import IO, Final

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
    """Gives `work` a file from which it reads `data`. Raises what `work` raises, or else what `data` raises."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(asyncio.to_thread(_read, work, theirs))
    try:
        try:
            async for piece in data:
                await loop.sock_sendall(ours, piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it reads no more: it has failed, or has all that it needs
        ours.shutdown(socket.SHUT_WR)
        await asyncio.shield(working)
    finally:
        ours.close()
        await finish(_end(working))


def _write(work: Callable[[IO[bytes]], None], sock: socket.socket) -> None:
    with sock, sock.makefile("wb") as file:
        work(file)


def _read(work: Callable[[IO[bytes]], None], sock: socket.socket) -> None:
    with sock, sock.makefile("rb") as file:
        work(file)


async def _end(working: asyncio.Future[None]) -> None:
    await asyncio.wait([working])
    if not working.cancelled():
        working.exception()  # seen; it was raised, unless something else was before
