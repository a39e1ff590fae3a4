"""The SDK's connection to the service: an asyncio loop, and channels on it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import attrs
import h2.exceptions
import trio
from grpclib.client import Channel, Handler
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import EventsProcessor, H2Protocol

from vmpool.client.errors import CallError, ServiceUnavailableError
from vmpool.client.exchange import ClientStream, begin, close, exchange
from vmpool.client.methods import Method
from vmpool.wire.crossing import GuestLoop, open_loop

_log = logging.getLogger("vmpool.client")

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_LIMIT_S: Final = 5.0
"""A live service accepts at once; if its queue is full for this long, it counts as unavailable."""

BUSY_PAUSE_S: Final = 0.01
"""Between attempts while the service's queue is full; the kernel does not report when it has room."""

ANSWER_LIMIT_S: Final = 10.0
"""For calls that the service answers without waiting for anything."""

CALLS_PER_CHANNEL: Final = 90
"""The service takes 100 calls on a connection; further calls would wait without a sign."""

LATE_ANSWER_S: Final = 2.0
"""How long after a deadline the service's own status is waited for."""

_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.5
"""Between attempts to reach a service that is starting; no event reports when it listens."""

_NOT_YET: Final = (FileNotFoundError, ConnectionError)
"""Errors after which a service may still start to listen."""

_HOW_TO_START: Final = "start the service with `vmpool serve`, or name its socket"


def pause_after(attempts: int, *, first_s: float, longest_s: float) -> float:
    """Seconds until the next attempt; doubles each time."""
    return min(first_s * 2.0 ** min(attempts - 1, 63), longest_s)


class LastingProcessor(EventsProcessor):
    """Keeps calls whose reply is complete when the connection closes.

    A server may answer and close the connection at once. grpclib would then end the call with an error although the
    whole reply has arrived, and a lease in it, say, would be lost.
    """

    def close(self, reason: str = "Connection closed") -> None:
        complete = {number: stream for number, stream in self.streams.items() if stream.trailers is not None}
        for number, stream in complete.items():
            del self.streams[number]
            stream.buffer._ack_callback = lambda _size: None  # noqa: SLF001 - the peer has gone
        super().close(reason)
        self.streams.update(complete)  # each call removes itself


class LastingProtocol(H2Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.processor = LastingProcessor(self.handler, self.connection)


@attrs.define(eq=False, kw_only=True)
class Connection:
    """Channels to one socket. A second one is opened when the first one has CALLS_PER_CHANNEL calls."""

    socket_path: Path
    loop: GuestLoop
    tasks: trio.Nursery
    """For calls that outlast the method that starts them; cancelled with the connection."""
    codec: CodecBase | None = None
    """None: grpclib's, which does not check messages."""
    _channels: dict[_UnixChannel, int] = attrs.field(factory=dict, init=False)
    """Number of open calls by channel."""

    async def call(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs an asyncio function, from any task; raises its errors as ClientErrors."""
        try:
            return await self.loop.run(function, *args, **kwargs)
        except GRPCError as error:
            raise CallError(status=error.status.name, message=error.message or "") from error
        except UnicodeEncodeError as error:
            raise CallError(
                status="INVALID_ARGUMENT", message=f"{error.object!r:.200} is not UTF-8; it cannot be sent"
            ) from error
        except (StreamTerminatedError, h2.exceptions.ProtocolError, ConnectionError) as error:
            raise self._broken(error) from error

    async def ask(self, method: Method, request: Any, *, timeout_s: float, to_the_end: bool = False) -> Any:
        """One request, one reply; with `to_the_end` as `ask_to_the_end`. Raises ClientError.

        Runs as one task of the loop, since each crossing from trio takes several rounds.
        """
        async with self._taking_channel(timeout_s) as channel:
            return await self.call(exchange, channel, method, request, timeout_s, to_the_end)

    async def connect(self, *, wait_s: float = 0.0) -> None:
        """Retries for `wait_s` while no service listens; may take CONNECT_LIMIT_S longer. Raises
        ServiceUnavailableError.
        """
        channel = await self._channel()
        give_up_at = trio.current_time() + wait_s
        for attempt in itertools.count(1):
            try:
                await self._connect(channel)
            except ServiceUnavailableError as error:
                if trio.current_time() >= give_up_at or not isinstance(error.__cause__, _NOT_YET):
                    raise
            else:
                return
            pause_s = pause_after(attempt, first_s=_FIRST_PAUSE_S, longest_s=_LONGEST_PAUSE_S)
            await trio.sleep_until(min(trio.current_time() + pause_s, give_up_at))

    @contextlib.asynccontextmanager
    async def open(self, method: Method, *, timeout_s: float) -> AsyncIterator[ClientStream]:
        """One call, which is reset at the end unless it has ended by itself.

        The service keeps `timeout_s`; LATE_ANSWER_S after it the client gives up, with CallError DEADLINE_EXCEEDED.
        """
        async with self._taking_channel(timeout_s) as channel:
            stream = await self.call(begin, channel, method, timeout_s)
            try:
                yield stream
            finally:
                with trio.CancelScope(shield=True):
                    await self.call(close, stream)

    @contextlib.asynccontextmanager
    async def _taking_channel(self, timeout_s: float) -> AsyncIterator[_UnixChannel]:
        channel = await self._channel()
        self._channels[channel] += 1
        scope = trio.CancelScope(deadline=trio.current_time() + timeout_s + LATE_ANSWER_S)
        try:
            with scope:
                if not channel.connected:
                    await self._connect(channel)
                yield channel
        finally:
            self._channels[channel] -= 1
        if scope.cancelled_caught:
            raise CallError(
                status="DEADLINE_EXCEEDED", message=f"no answer from {self.socket_path} within {timeout_s:g} s"
            )

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    async def _channel(self) -> _UnixChannel:
        for channel, calls in self._channels.items():
            if calls < CALLS_PER_CHANNEL:
                return channel
        channel = await self.loop.run(_open_channel, os.fspath(self.socket_path), self.codec)
        self._channels[channel] = 0
        return channel

    async def _connect(self, channel: _UnixChannel) -> None:
        with trio.move_on_after(CONNECT_LIMIT_S):
            try:
                await self.call(channel.__connect__)
            except OSError as error:
                raise self._unreachable(error) from error
            return
        raise ServiceUnavailableError(
            socket_path=self.socket_path,
            reason=f"the service did not accept a connection within {CONNECT_LIMIT_S:g} s",
            remedy="see its log, and restart it if it hangs",
        )

    def _unreachable(self, error: OSError) -> ServiceUnavailableError:
        match error:
            case FileNotFoundError():
                reason, remedy = "the socket does not exist", _HOW_TO_START
            case ConnectionRefusedError():
                reason, remedy = "no service listens on this socket", _HOW_TO_START
            case PermissionError():
                reason, remedy = "no permission for this socket", "run as the service's user, or as root"
            case _:
                reason, remedy = error.strerror or str(error), "name the service's socket"
        return ServiceUnavailableError(socket_path=self.socket_path, reason=reason, remedy=remedy)

    def _broken(self, error: Exception) -> ServiceUnavailableError:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            return self._unreachable(error)
        return ServiceUnavailableError(
            socket_path=self.socket_path,
            reason=f"the connection broke ({str(error) or type(error).__name__})",
            remedy="the service ended or crashed: see its log, and start it with `vmpool serve`",
        )


class _UnixChannel(Channel):
    """A channel that waits while a Unix socket's queue is full: the kernel returns EAGAIN, which asyncio takes for
    success.
    """

    def _protocol_factory(self) -> H2Protocol:
        return LastingProtocol(Handler(), self._config, self._h2_config)

    @property
    def connected(self) -> bool:
        return bool(self._connected)

    async def __connect__(self) -> H2Protocol:
        protocol = await super().__connect__()
        if not self._connected:
            raise ConnectionResetError("the service closed it at once")
        return protocol

    async def _create_connection(self) -> H2Protocol:
        assert self._path is not None
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                sock.connect(self._path)
            except BlockingIOError:
                sock.close()
                await asyncio.sleep(BUSY_PAUSE_S)
            except BaseException:
                sock.close()
                raise
            else:
                break
        _, protocol = await self._loop.create_unix_connection(self._protocol_factory, sock=sock)
        return protocol


async def _open_channel(path: str, codec: CodecBase | None) -> _UnixChannel:
    """A coroutine, because grpclib needs a running loop."""
    return _UnixChannel(path=path, codec=codec)


@contextlib.asynccontextmanager
async def open_connection(
    socket_path: Path | str, *, wait_s: float = 0.0, codec: CodecBase | None = None
) -> AsyncIterator[Connection]:
    """A connection, closed at the end with all its open calls. Raises ServiceUnavailableError."""
    failure = None
    async with open_loop() as loop:
        loop.set_exception_handler(_note_loop_error)
        with contextlib.ExitStack() as cleanup:
            async with trio.open_nursery() as tasks:
                connection = Connection(socket_path=Path(socket_path), loop=loop, tasks=tasks, codec=codec)
                cleanup.callback(connection.close)
                try:
                    await connection.connect(wait_s=wait_s)
                    yield connection
                except Exception as error:  # noqa: BLE001 - raised below, outside the nurseries, which would wrap it
                    failure = error
                finally:
                    tasks.cancel_scope.cancel(reason="the connection is being closed")
    if failure is not None:
        raise failure


def _note_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs a warning; asyncio's own handler would log an error of the caller's program."""
    _log.warning("error in the event loop: %s", context.get("message"), exc_info=context.get("exception"))
