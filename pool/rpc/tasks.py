"""The tasks of one connection's calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import trio
from grpclib.metadata import decode_timeout
from grpclib.protocol import Stream
from grpclib.server import Handler, request_handler
from h2.errors import ErrorCodes

from pool.rpc.framing import Codec
from pool.rpc.peer import current_caller
from pool.rpc.stream import GuardedStream, Headers
from pool.settings.permissions import Caller
from vmpool.wire.details import DetailsCodec

TRACEPARENT: Final = "traceparent"

_READ: Final = frozenset({":method", ":path", "content-type", "te", "grpc-timeout", TRACEPARENT})
"""Headers that grpclib or a method reads. All but the last must be valid, or the call ends at once."""

MAX_TRACEPARENT_CHARACTERS: Final = 256
"""Four times the length that W3C's Trace Context defines."""


class CallsServer(Protocol):
    """What a server has for the calls of all its connections."""

    tasks: set[asyncio.Task[None]]

    @property
    def mapping(self) -> Any: ...

    @property
    def __dispatch__(self) -> Any: ...


class GuardedHandler(Handler):
    """Starts the tasks of one connection's calls, and makes sure that each call is ended."""

    def __init__(self, server: CallsServer, caller: Caller) -> None:
        super().__init__(server.mapping, Codec(), DetailsCodec(), server.__dispatch__)
        self._server = server
        self._caller = caller

    def begin(self, stream: GuardedStream, path: str, headers: Headers, release_stream: Callable[[], Any]) -> None:
        stream.arrived_at = trio.current_time()
        self.__gc_step__()
        self._tasks[stream] = task = self.loop.create_task(self._serve(stream, _prepare(stream, headers)), name=path)
        self._server.tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            # Not left to the task, since a task that is cancelled before its first step runs no code.
            release_stream()
            self._server.tasks.discard(task)
            stream.finish()

        task.add_done_callback(end)

    def accept(self, stream: Stream, headers: Headers, release_stream: Callable[[], Any]) -> None:
        raise NotImplementedError("GuardedProcessor calls `begin`")

    async def _serve(self, stream: GuardedStream, headers: Headers) -> None:
        def nothing() -> None: ...

        current_caller.set(self._caller)
        try:
            await request_handler(
                self.mapping,
                stream,
                headers,
                Codec(account=stream.request_bytes.add),
                self.status_details_codec,
                self.dispatch,
                nothing,
            )
        finally:
            # grpclib failed on the headers; without a reset the client would wait for its deadline.
            if not stream.answered and stream.closable:
                stream.reset_nowait(ErrorCodes.INTERNAL_ERROR)


def _prepare(stream: GuardedStream, headers: Headers) -> Headers:
    """Keeps the headers that are read; the others would take memory while the call lasts, or make grpclib fail.

    The timeout is removed: trio keeps the deadline, which may have passed already.
    """
    kept: Headers = []
    for name, value in headers:
        if name not in _READ or (name == TRACEPARENT and len(value) > MAX_TRACEPARENT_CHARACTERS):
            continue
        if name != "grpc-timeout":
            kept.append((name, value))
            continue
        try:
            deadline = stream.arrived_at + decode_timeout(value)
        except (ValueError, OverflowError):
            kept.append((name, "invalid"))  # grpclib refuses it
        else:
            stream.deadline = min(stream.deadline, deadline)
    return kept
