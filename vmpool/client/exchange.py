"""Messages over one call. They raise grpclib's errors; `Connection.errors` makes ClientErrors of those."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Generic, TypeVar

import h2.exceptions
from grpclib.client import Channel, Stream
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import Deadline
from h2.errors import ErrorCodes

from vmpool.client.methods import Method

ClientStream = Stream[Any, Any]

Exchange = Callable[[ClientStream, Any], Awaitable[Any]]
"""`ask`, `ask_to_the_end`, or one made of them."""

T = TypeVar("T")

REST_LIMIT_S: Final = 1.0
"""For the rest of a reply whose headers have arrived."""

_ENDED = (StreamTerminatedError, h2.exceptions.ProtocolError)
"""What grpclib raises when the call has ended, even if a status has arrived."""


async def begin(channel: Channel, method: Method, timeout_s: float) -> ClientStream:
    """Begins a call on a connected channel; `close` ends it."""
    stream = channel.request(method.path, method.cardinality, method.request, method.reply)
    await stream.__aenter__()
    if timeout_s != math.inf:
        # Set after entering, or grpclib would end the call before the service can send its status.
        stream._deadline = Deadline.from_timeout(timeout_s)  # noqa: SLF001 - nowhere public
    return stream


async def close(stream: ClientStream) -> None:
    """Resets the call unless it has ended."""
    # With an error as argument, grpclib neither waits for the end of the call nor complains about its absence.
    with contextlib.suppress(asyncio.CancelledError):
        await stream.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)


async def exchange(channel: Channel, method: Method, request: Any, timeout_s: float, by: Exchange) -> Any:
    """A whole call."""
    stream = await begin(channel, method, timeout_s)
    try:
        return await by(stream, request)
    finally:
        await close(stream)


async def ask(stream: ClientStream, request: Any) -> Any:
    """One request, one reply. Raises GRPCError for any status but OK."""
    try:
        await stream.send_message(request, end=True)
        reply = await stream.recv_message()
        await stream.recv_trailing_metadata()
    except _ENDED:
        stream._maybe_raise()  # noqa: SLF001 - raises the status, as grpclib does only at the end of its own block
        raise
    if reply is None:
        raise GRPCError(Status.INTERNAL, "the call ended without a reply; see the service's log")
    return reply


async def ask_to_the_end(stream: ClientStream, request: Any) -> Any:
    """As `ask`, but if it is cancelled after the reply has begun to arrive, it still returns the reply.

    By then the service may know that the reply was read, so a lease in it is the caller's to release.
    """
    exchange = asyncio.ensure_future(ask(stream, request))
    try:
        return await asyncio.shield(exchange)
    except asyncio.CancelledError:
        if not _has_begun(stream):
            _reset(stream)
            exchange.cancel()
        await asyncio.wait([exchange], timeout=REST_LIMIT_S)
        if not exchange.done():
            exchange.cancel()
            await asyncio.wait([exchange])
        return exchange.result()


def _has_begun(stream: ClientStream) -> bool:
    call = getattr(stream, "_stream", None)
    return call is not None and call.headers is not None


def _reset(stream: ClientStream) -> None:
    """Resets the call at once: until its end, the arrival of the reply could still be acknowledged."""
    call = getattr(stream, "_stream", None)
    if call is not None and call.closable:
        call.reset_nowait(ErrorCodes.CANCEL)


async def send(stream: ClientStream, request: Any) -> None:
    """One of several requests."""
    try:
        await stream.send_message(request)
    except _ENDED:
        stream._maybe_raise()  # noqa: SLF001 - as above
        raise


async def send_last(stream: ClientStream, request: Any) -> None:
    """The only request, or the last."""
    try:
        await stream.send_message(request, end=True)
    except _ENDED:
        stream._maybe_raise()  # noqa: SLF001 - as above
        raise


async def receive(stream: ClientStream) -> Any | None:
    """One of several replies; None after the last one. Raises GRPCError for any status but OK."""
    try:
        reply = await stream.recv_message()
        if reply is None:
            if not stream._end_done:  # noqa: SLF001 - grpclib requires this side to be ended, once
                await end(stream)
            await stream.recv_trailing_metadata()
    except _ENDED:
        stream._maybe_raise()  # noqa: SLF001 - as above
        raise
    return reply


async def end(stream: ClientStream) -> None:
    """Ends the client's side of a call. Ignored if the service has sent its status and closed the connection."""
    try:
        await stream.end()
    except _ENDED:
        if stream._stream.trailers is None:  # noqa: SLF001 - nowhere public
            raise
        stream._end_done = True  # noqa: SLF001 - idem


class Call:
    """A call of several messages. `aclose` resets it unless it has ended; errors are ClientErrors."""

    def __init__(
        self,
        stream: ClientStream,
        *,
        errors: Callable[[], AbstractContextManager[None]],
        gone: Callable[[], None],
    ) -> None:
        self.stream = stream
        self._errors = errors
        self._gone = gone
        self._closed = False

    async def send(self, request: Any) -> None:
        """One of several requests. Waits while the service does not read."""
        with self._errors():
            await send(self.stream, request)

    async def send_last(self, request: Any) -> None:
        """The only request, or the last."""
        with self._errors():
            await send_last(self.stream, request)

    async def end(self) -> None:
        """No more requests."""
        with self._errors():
            await end(self.stream)

    async def receive(self) -> Any | None:
        """One of several replies; None after the last one."""
        with self._errors():
            return await receive(self.stream)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            with self._errors():
                await close(self.stream)
        finally:
            self._gone()


class Replies(Generic[T]):
    """An iterator that may be abandoned in the middle, unlike an async generator."""

    def __init__(self, next_one: Callable[[], Awaitable[T | None]]) -> None:
        self._next_one = next_one

    def __aiter__(self) -> Replies[T]:
        return self

    async def __anext__(self) -> T:
        one = await self._next_one()
        if one is None:
            raise StopAsyncIteration
        return one
