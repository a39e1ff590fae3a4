"""Accepts connections from a listening socket, and checks each caller's uid before spending anything on it.

asyncio's own server first makes a task and a transport for each connection, and stops listening for a second when
descriptors run out: a client that opens many connections could keep all others out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Final

import structlog
import trio

from pool.rpc.peer import caller_of
from pool.rpc.repeats import Repeats
from pool.settings.permissions import Caller
from vmpool.wire.crossing import GuestLoop

_log = structlog.get_logger("vmpool.rpc")

ACCEPTS_PER_TURN: Final = 16
"""Connections that are accepted before calls get their turn."""

RETRY_S: Final = 0.1
"""Until the next attempt when no descriptor is free; no event reports a free one."""

_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Admit = Callable[[Caller], Callable[[], asyncio.Protocol] | None]
"""Returns what makes the protocol of a connection; None: close it at once. Must not wait."""


class Door:
    """One listening socket. `close` closes it."""

    def __init__(
        self, sock: socket.socket, *, loop: GuestLoop, admit: Admit, privileged: frozenset[int], repeats: Repeats
    ) -> None:
        """`privileged`: uids that may use the last descriptor. Raises ValueError for a socket that does not listen."""
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError("the socket does not listen")
        self._sock = sock
        self._loop = loop
        self._admit = admit
        self._privileged = privileged
        self._repeats = repeats
        self._spare: int | None = _open_spare()
        self._beginning: set[asyncio.Task[Any]] = set()
        self._retry: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._listen()

    async def close(self) -> None:
        """Idempotent. Accepted connections stay open; those being accepted have a protocol when it returns."""
        if self._retry is not None:
            self._retry.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        if self._beginning:
            await asyncio.wait(self._beginning)

    def _listen(self) -> None:
        self._retry = None
        self._loop.add_reader(self._sock.fileno(), self._take)

    def _take(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._not_taken(error)
                return
            self._let_in(connection, caller_of(connection))

    def _let_in(self, connection: socket.socket, caller: Caller) -> None:
        make_protocol = self._admit(caller)
        if make_protocol is None:
            connection.close()
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._begin(connection, make_protocol))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        await self._loop.connect_accepted_socket(make_protocol, connection)

    def _not_taken(self, error: OSError) -> None:
        if error.errno not in _NONE_LEFT:
            _log.error("a listening socket is broken; no client can connect to it", error=str(error))
            self._loop.remove_reader(self._sock.fileno())
            return
        self._repeats.warn(
            "no descriptor free: new connections are closed, except those of root and the service's user",
            uid=os.geteuid(),
            now=trio.current_time(),
            error=error.strerror,
        )
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
            with contextlib.suppress(OSError):
                connection, _address = self._sock.accept()
                caller = caller_of(connection)
                if caller.uid in self._privileged:
                    self._let_in(connection, caller)
                else:
                    connection.close()
        self._spare = _open_spare()
        if self._spare is None:
            self._loop.remove_reader(self._sock.fileno())
            self._retry = self._loop.call_later(RETRY_S, self._listen_again)

    def _listen_again(self) -> None:
        self._spare = self._spare if self._spare is not None else _open_spare()
        self._listen()


def _open_spare() -> int | None:
    """A descriptor that can be given up to accept a connection when no other is free."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
