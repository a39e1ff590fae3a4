"""From trio to the SDK's asyncio code: what the generated trio faces call.

Each connection has an asyncio loop of its own, which trio tasks run in their thread (vmpool/wire/crossing.py). What is
cancelled in trio is cancelled there, and its end is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import trio
from grpclib.encoding.base import CodecBase

from vmpool.client import opening as asynchronous
from vmpool.client.connection import Connection
from vmpool.client.exchange import ClientStream, Exchange, Replies, ask
from vmpool.client.methods import Method
from vmpool.wire.crossing import GuestLoop, open_loop

_log = logging.getLogger("vmpool.client")

P = ParamSpec("P")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class TrioConnection:
    """A connection and its loop, from the side of trio."""

    def __init__(self, loop: GuestLoop, connection: Connection) -> None:
        self._loop = loop
        self._asynchronous = connection

    async def run(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs an asyncio function as a task of the loop, from any trio task."""
        return await self._loop.run(function, *args, **kwargs)

    async def close(self, resource: asynchronous.Resource) -> None:
        """To the end, which is bounded, whatever is cancelled meanwhile."""
        with trio.CancelScope(shield=True):
            await self.run(resource.aclose)

    def opening(self, opened: asynchronous.Opening[T], face: Callable[[T], R_co]) -> Opening[R_co]:
        @contextlib.asynccontextmanager
        async def block() -> AsyncIterator[R_co]:
            resource = await self.run(opened.open)
            try:
                yield face(resource)
            finally:
                with trio.CancelScope(shield=True):
                    await self.run(opened.aclose)

        return Opening(block())

    def iterator(self, iterator: AsyncIterator[T]) -> AsyncIterator[T]:
        async def step() -> T | None:
            return await anext(iterator, None)

        return Replies(lambda: self.run(step))

    async def step(self, iterator: AsyncIterator[T]) -> T:
        """The next one; raises StopAsyncIteration."""

        async def step() -> T:
            return await anext(iterator)

        return await self.run(step)

    def callback(self, function: Callable[[T], object] | None) -> Callable[[T], object] | None:
        """`function` may be a trio function."""
        if function is None:
            return None

        async def call(value: T) -> None:
            told = function(value)
            if inspect.isawaitable(told):
                await self._loop.in_trio(_awaiting(told))

        return call

    def chunks(self, data: Any) -> Any:
        """What is iterated by asyncio code in place of `data`, which may be a trio iterator."""
        if not isinstance(data, AsyncIterable):
            return data
        iterator = aiter(data)

        async def step() -> Any:
            return await anext(iterator, None)

        return Replies(lambda: self._loop.in_trio(step))

    async def call(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function of `exchange`; raises its errors as ClientErrors."""

        async def call() -> T:
            return await self._asynchronous.call(function, *args, **kwargs)

        return await self.run(call)

    async def ask(self, method: Method, request: Any, *, timeout_s: float, by: Exchange = ask) -> Any:
        """One request, one reply."""
        return await self.run(self._asynchronous.ask, method, request, timeout_s=timeout_s, by=by)

    @contextlib.asynccontextmanager
    async def open(self, method: Method, *, timeout_s: float) -> AsyncIterator[ClientStream]:
        """A call, for the functions of `exchange`."""
        call = await self.run(self._asynchronous.open, method, timeout_s=timeout_s)
        try:
            yield call.stream
        finally:
            with trio.CancelScope(shield=True):
                await self.run(call.aclose)

    def disconnect(self) -> None:
        """Ends all calls."""
        self._asynchronous.close()


class Resource:
    """Something that was opened. Its block closes it; so does `aclose`, which may be called again."""

    _connection: TrioConnection
    _core: asynchronous.Resource

    async def aclose(self) -> None:
        """Closes it; goes on to the end if it is cancelled meanwhile."""
        await self._connection.close(self._core)


class Opening(Generic[R_co]):
    """Something that is open for the length of an `async with` block. trio has no other way: what is open has tasks,
    and in trio tasks belong to a block.
    """

    def __init__(self, block: contextlib.AbstractAsyncContextManager[R_co]) -> None:
        self._block = block

    async def __aenter__(self) -> R_co:
        return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, traceback)


def connecting(
    opened: asynchronous.Opening[T], connection_of: Callable[[T], Connection], face: Callable[[TrioConnection, T], R_co]
) -> Opening[R_co]:
    """A connection, with a loop for it, for the length of a block."""

    @contextlib.asynccontextmanager
    async def block() -> AsyncIterator[R_co]:
        failure = None
        async with open_loop() as loop:
            loop.set_exception_handler(_note_loop_error)
            try:
                resource = await loop.run(opened.open)
                try:
                    yield face(TrioConnection(loop, connection_of(resource)), resource)
                finally:
                    with trio.CancelScope(shield=True):
                        await loop.run(opened.aclose)
            except Exception as error:  # noqa: BLE001 - raised below, outside the nurseries, which would wrap it
                failure = error
        if failure is not None:
            raise failure

    return Opening(block())


def open_connection(
    socket_path: Path | str, *, wait_s: float = 0.0, codec: CodecBase | None = None
) -> Opening[TrioConnection]:
    """A connection, closed at the end with all its open calls. Raises ServiceUnavailableError."""

    async def begin(ends: contextlib.AsyncExitStack) -> Connection:
        connection = Connection(socket_path=Path(socket_path), codec=codec)
        ends.push_async_callback(connection.aclose)
        await connection.connect(wait_s=wait_s)
        return connection

    return connecting(asynchronous.Opening(begin), lambda connection: connection, lambda crossing, _: crossing)


def _awaiting(awaitable: Awaitable[object]) -> Callable[[], Awaitable[object]]:
    async def wait() -> object:
        return await awaitable

    return wait


def _note_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs a warning; asyncio's own handler would log an error of the caller's program."""
    _log.warning("error in the event loop: %s", context.get("message"), exc_info=context.get("exception"))
