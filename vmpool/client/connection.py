"""The SDK's connection to the service: channels of one asyncio loop. No trio: its faces are made around this."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import attrs
import h2.exceptions
from grpclib.client import Channel, Handler
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import EventsProcessor, H2Protocol

from vmpool.client.details import DetailsCodec, error_of
from vmpool.client.encoding import RequestCodec
from vmpool.client.endings import finish
from vmpool.client.errors import CallError, CallTimeoutError, ServiceUnavailableError
from vmpool.client.exchange import Call, Exchange, ask, begin, exchange
from vmpool.client.methods import Method

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
    """Channels to one socket. A second one is opened when the first one has CALLS_PER_CHANNEL calls.

    Belongs to the loop that runs when `connect` is called; `aclose` ends it with all its calls and tasks.
    """

    socket_path: Path
    codec: CodecBase | None = None
    """None: one that does not check what the service sends."""
    _channels: dict[_UnixChannel, int] = attrs.field(factory=dict, init=False)
    """Number of open calls by channel."""
    _tasks: set[asyncio.Task[None]] = attrs.field(factory=set, init=False)
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task for what outlasts the method that starts it; cancelled with the connection."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """What grpclib and the transport raise leaves the block as a ClientError."""
        try:
            yield
        except GRPCError as error:
            raise error_of(error) from error
        except UnicodeEncodeError as error:
            raise CallError(
                status="INVALID_ARGUMENT", message=f"{error.object!r:.200} is not UTF-8; it cannot be sent"
            ) from error
        except (StreamTerminatedError, h2.exceptions.ProtocolError, ConnectionError) as error:
            raise self._broken(error) from error

    async def call(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function of `exchange`; raises its errors as ClientErrors."""
        with self.errors():
            return await function(*args, **kwargs)

    async def ask(self, method: Method, request: Any, *, timeout_s: float, by: Exchange = ask) -> Any:
        """One request, one reply, exchanged `by` a function of `exchange`. Raises ClientError.

        The service keeps `timeout_s`; LATE_ANSWER_S after it the client gives up, with CallError DEADLINE_EXCEEDED.
        """
        scope = asyncio.timeout(None if timeout_s == math.inf else timeout_s + LATE_ANSWER_S)
        try:
            async with scope:
                channel = await self._take_channel()
                try:
                    with self.errors():
                        return await exchange(channel, method, request, timeout_s, by)
                finally:
                    self._give_back(channel)
        except TimeoutError as error:
            if not scope.expired() or isinstance(error, CallError):
                raise
            raise CallTimeoutError(
                status="DEADLINE_EXCEEDED", message=f"no answer from {self.socket_path} within {timeout_s:g} s"
            ) from None

    async def open(self, method: Method, *, timeout_s: float = math.inf) -> Call:
        """A call of several messages; the service keeps `timeout_s`. The caller closes it, in whatever task."""
        channel = await self._take_channel()
        try:
            with self.errors():
                stream = await begin(channel, method, timeout_s)
        except BaseException:
            self._give_back(channel)
            raise
        return Call(stream, errors=self.errors, gone=lambda: self._give_back(channel))

    async def connect(self, *, wait_s: float = 0.0) -> None:
        """Retries for `wait_s` while no service listens; may take CONNECT_LIMIT_S longer. Raises
        ServiceUnavailableError.
        """
        self._loop = loop = asyncio.get_running_loop()
        channel = self._channel()
        give_up_at = loop.time() + wait_s
        for attempt in itertools.count(1):
            try:
                await self._connect(channel)
            except ServiceUnavailableError as error:
                if loop.time() >= give_up_at or not isinstance(error.__cause__, _NOT_YET):
                    raise
            else:
                return
            pause_s = pause_after(attempt, first_s=_FIRST_PAUSE_S, longest_s=_LONGEST_PAUSE_S)
            await asyncio.sleep(min(pause_s, max(give_up_at - loop.time(), 0.0)))

    async def aclose(self) -> None:
        """Ends all calls and tasks, then the channels."""
        await finish(self._end_tasks())
        self.close()

    def close(self) -> None:
        """Ends the channels, and with them all calls."""
        for channel in self._channels:
            channel.close()

    async def _end_tasks(self) -> None:
        while tasks := set(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _take_channel(self) -> _UnixChannel:
        if asyncio.get_running_loop() is not self._loop:  # whose answers would never arrive
            raise RuntimeError("the connection belongs to another event loop; connect in this one")
        channel = self._channel()
        self._channels[channel] += 1
        try:
            if not channel.connected:
                await self._connect(channel)
        except BaseException:
            self._give_back(channel)
            raise
        return channel

    def _give_back(self, channel: _UnixChannel) -> None:
        self._channels[channel] -= 1

    def _channel(self) -> _UnixChannel:
        for channel, calls in self._channels.items():
            if calls < CALLS_PER_CHANNEL:
                return channel
        channel = _UnixChannel(
            path=os.fspath(self.socket_path), codec=self.codec or RequestCodec(), status_details_codec=DetailsCodec()
        )
        self._channels[channel] = 0
        return channel

    async def _connect(self, channel: _UnixChannel) -> None:
        scope = asyncio.timeout(CONNECT_LIMIT_S)
        try:
            async with scope:
                try:
                    with self.errors():
                        await channel.__connect__()
                except OSError as error:
                    if scope.expired() or isinstance(error, CallError):
                        raise
                    raise self._unreachable(error) from error
        except TimeoutError:
            if not scope.expired():
                raise
            raise ServiceUnavailableError(
                socket_path=self.socket_path,
                reason=f"the service did not accept a connection within {CONNECT_LIMIT_S:g} s",
                remedy="see its log, and restart it if it hangs",
            ) from None

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
