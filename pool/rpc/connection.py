"""One client's connection, made safe against that client.

grpclib trusts its peers: a frame that it does not know ends the loop it runs on, a message may be of any size, and a
reply counts as sent when it lies in a buffer. The classes here take grpclib's place one by one to change that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
import trio
from grpclib.config import Configuration
from grpclib.metadata import decode_timeout
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream
from grpclib.server import Handler, Server, request_handler
from h2.errors import ErrorCodes
from h2.events import Event as H2Event
from h2.events import PingAckReceived, RequestReceived
from h2.exceptions import FrameTooLargeError, ProtocolError, StreamClosedError

from pool.crossing import GuestLoop
from pool.rpc.framing import CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Codec, MessageBuffer

_log = structlog.get_logger("vmpool.rpc")

RECEIPT_LIMIT_S: Final = 1.0
"""How long a reply's receipt is waited for. Every HTTP/2 stack answers a PING by itself, within a round trip."""

MAX_FRAME_BYTES: Final = 9 + 16 * 1024
"""Header and payload; HTTP/2's smallest limit, which the server does not raise."""

GOODBYE: Final = "the service is shutting down"

HEALTH: Final = "/grpc.health.v1.Health/"
"""Its Watch never ends by itself."""

Headers = list[tuple[str, str]]


class GuardedStream(Stream):
    """One call on the wire: bounded buffer, arrival, deadline, receipts."""

    arrived_at: float = 0.0
    """On trio's clock, as is `deadline`."""
    deadline: float = math.inf
    answered: bool = False
    """The client has got, or will get, a status."""
    status_follows: bool = False
    """What is sent next is the last message, and waits for the status, to go in one packet with it."""

    def __init__(self, protocol: GuardedProtocol, *, stream_id: int, max_message_bytes: int) -> None:
        super().__init__(protocol.connection, protocol.http2, protocol.transport)
        self._protocol = protocol
        self._max_message_bytes = max_message_bytes
        self.init_stream(stream_id, protocol.connection)

    def init_stream(self, stream_id: int, connection: Connection) -> None:
        super().init_stream(stream_id, connection)

        def acknowledge(size: int) -> None:
            if not connection.is_closing():
                connection.ack(stream_id, size)

        self.buffer = MessageBuffer(acknowledge=acknowledge, limit=self._max_message_bytes)  # type: ignore[assignment]

    async def send_headers(self, headers: Headers, end_stream: bool = False) -> None:
        if end_stream:
            await super().send_headers(headers, end_stream=True)
            self.answered = True
            return
        # The first ones wait for the first message, to go in one packet with it: each packet wakes the client.
        await self.connection.write_ready.wait()
        assert self.id is not None  # the client has opened it
        if self.id not in self._h2_connection.streams:
            raise StreamClosedError(self.id)
        self._h2_connection.send_headers(self.id, headers)
        self.connection.headers_send_process()

    async def send_data(self, data: bytes, end_stream: bool = False) -> None:
        if not (self.status_follows and self._takes_at_once(len(data))):
            await super().send_data(data, end_stream=end_stream)
            return
        assert self.id is not None  # the client has opened it
        self._h2_connection.send_data(self.id, data, end_stream=end_stream)
        self.data_sent += len(data)
        self.connection.data_sent += len(data)
        self.connection.data_send_process()

    def _takes_at_once(self, size: int) -> bool:
        """Whether a message of so many bytes fits into one frame and the windows, and the client reads."""
        http2 = self._h2_connection
        return (
            self.connection.write_ready.is_set()
            and self.id in http2.streams
            and size <= min(http2.local_flow_control_window(self.id), http2.max_outbound_frame_size)
        )

    @property
    def loop(self) -> GuestLoop:
        """What the call runs on."""
        return self._protocol.loop

    @property
    def abandoned(self) -> bool:
        """The client has reset the call, or gone."""
        return self.wrapper is not None and bool(self.wrapper.cancelled)

    def request_receipt(self) -> trio.Event:
        """Sends a PING along with what is sent next; the event is set when the client has read it.

        Waiting for the event is up to the caller, with RECEIPT_LIMIT_S: a connection that ends never sets it, but
        cancels the call.
        """
        return self._protocol.ping()


class GuardedProcessor(EventsProcessor):
    """Dispatches HTTP/2 events; ignores those it does not know, as RFC 9113 section 5.5 demands."""

    def __init__(self, protocol: GuardedProtocol, *, max_message_bytes: int) -> None:
        super().__init__(protocol.handler, protocol.connection)
        self._protocol = protocol
        self._max_message_bytes = max_message_bytes

    def process(self, event: H2Event) -> None:
        # Without `processors` the connection is closed, and events that came along with the end are void.
        if type(event) in getattr(self, "processors", {}):
            super().process(event)

    def process_request_received(self, event: RequestReceived) -> None:
        stream = GuardedStream(self._protocol, stream_id=event.stream_id, max_message_bytes=self._max_message_bytes)
        self.handler.accept(stream, event.headers, self.register(stream))  # type: ignore[arg-type]

    def process_ping_ack_received(self, event: PingAckReceived) -> None:
        super().process_ping_ack_received(event)
        self._protocol.pong(event.ping_data)


class GuardedProtocol(H2Protocol):
    """One connection. Whatever its client sends ends this connection at worst."""

    transport: asyncio.Transport

    def __init__(self, server: GuardedServer, handler: GuardedHandler) -> None:
        super().__init__(handler, server.configuration, server.http2_configuration)
        self._server = server
        self._pings: dict[bytes, trio.Event] = {}
        self._ping_ids = itertools.count(1)

    @property
    def loop(self) -> GuestLoop:
        return self._server.loop

    @property
    def http2(self) -> Any:
        return self.connection._connection  # noqa: SLF001 - grpclib keeps it private, and subclasses need it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        super().connection_made(transport)
        self.processor = GuardedProcessor(self, max_message_bytes=self._server.max_message_bytes)
        self._server.connections.add(self)
        if self._server.hanging_up:  # accepted just before the listening socket was closed
            self.hang_up(GOODBYE)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.connections.discard(self)
        super().connection_lost(exc)
        self._server.on_connection_lost()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._feed(data)
            self._flush()
            for event in events:
                self.processor.process(event)
            self._flush()
        except Exception as error:  # noqa: BLE001 - the client chose the bytes, so any error is the client's
            self._server.violations += 1
            _log.warning("connection closed: its client broke the protocol", error=str(error) or type(error).__name__)
            self.hang_up("Protocol error")

    def _feed(self, data: bytes) -> list[H2Event]:
        events = self.connection.feed(data)
        # h2 judges a frame's length only once it has all of it, up to 16 MiB.
        if len(self.http2.incoming_buffer._data) > MAX_FRAME_BYTES:  # noqa: SLF001 - nowhere public
            raise FrameTooLargeError(f"a frame of more than {MAX_FRAME_BYTES} bytes")
        return events

    def pause_writing(self) -> None:
        super().pause_writing()
        # A client that does not read its answers, to PINGs for instance, gets to ask for no more of them.
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.resume_reading()

    def ping(self) -> trio.Event:
        number = next(self._ping_ids).to_bytes(8, "big")
        self._pings[number] = event = trio.Event()
        self.http2.ping(number)
        return event

    def pong(self, number: bytes) -> None:
        event = self._pings.pop(number, None)
        if event is not None:
            event.set()

    def hang_up(self, reason: str) -> None:
        """Says GOAWAY, sends what is still to be sent, and closes."""
        if not self.transport.is_closing():
            with contextlib.suppress(ProtocolError):
                self.http2.close_connection(ErrorCodes.NO_ERROR)
            self._flush()
        self.processor.close(reason)

    def _flush(self) -> None:
        pending = self.http2.data_to_send()
        if pending and not self.transport.is_closing():
            self.transport.write(pending)


class GuardedHandler(Handler):
    """Starts the tasks of one connection's calls, and sees to it that each call gets an end."""

    def __init__(self, server: GuardedServer) -> None:
        super().__init__(server.mapping, Codec(), None, server.__dispatch__)
        self._server = server

    def accept(self, stream: Stream, headers: Headers, release_stream: Callable[[], Any]) -> None:
        assert isinstance(stream, GuardedStream)
        stream.arrived_at = trio.current_time()
        self.__gc_step__()
        self._tasks[stream] = task = self.loop.create_task(
            self._serve(stream, _prepare(stream, headers)), name=dict(headers).get(":path", "")
        )
        self._server.tasks.add(task)

        def end(task: asyncio.Task[None]) -> None:
            # Not left to the task: one that is reset before its first step never takes it.
            release_stream()
            self._server.tasks.discard(task)

        task.add_done_callback(end)

    async def _serve(self, stream: GuardedStream, headers: Headers) -> None:
        def nothing() -> None: ...

        try:
            await request_handler(
                self.mapping, stream, headers, self.codec, self.status_details_codec, self.dispatch, nothing
            )
        finally:
            # Headers that grpclib trips over; the client would wait for its deadline.
            if not stream.answered and stream.closable:
                stream.reset_nowait(ErrorCodes.INTERNAL_ERROR)


def _prepare(stream: GuardedStream, headers: Headers) -> Headers:
    """Takes out of a request's headers what grpclib fails on.

    The timeout: trio holds the deadline, which may have passed already. Binary metadata: no method reads any, and it
    may be broken.
    """
    kept: Headers = []
    for name, value in headers:
        if name.endswith("-bin"):
            continue
        if name != "grpc-timeout":
            kept.append((name, value))
            continue
        try:
            deadline = stream.arrived_at + decode_timeout(value)
        except (ValueError, OverflowError):
            kept.append((name, "invalid"))  # grpclib has the answer to this one
        else:
            stream.deadline = min(stream.deadline, deadline)
    return kept


class GuardedServer(Server):
    """grpclib's server with the guarded classes, and with what is needed to end it in good order."""

    def __init__(self, handlers: list[Any], *, loop: GuestLoop, max_message_bytes: int) -> None:
        super().__init__(
            handlers,
            codec=Codec(),
            config=Configuration(
                # The kernel tells of a peer on this host that goes away.
                _keepalive_time=None,
                http2_connection_window_size=CONNECTION_WINDOW_BYTES,
                http2_stream_window_size=STREAM_WINDOW_BYTES,
            ),
        )
        self._h2_config.validate_inbound_headers = True
        self.loop = loop
        self.max_message_bytes = max_message_bytes
        self.connections: set[GuardedProtocol] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.violations = 0
        """Connections that were closed because their client broke the protocol."""
        self.hanging_up = False
        self._fewer_connections = asyncio.Event()
        self._others: list[asyncio.Server] = []

    @property
    def mapping(self) -> dict[str, Any]:
        return self._mapping

    @property
    def configuration(self) -> Configuration:
        return self._config

    @property
    def http2_configuration(self) -> Any:
        return self._h2_config

    def _protocol_factory(self) -> GuardedProtocol:
        self.__gc_step__()
        handler = GuardedHandler(self)
        self._handlers.add(handler)
        return GuardedProtocol(self, handler)

    def on_connection_lost(self) -> None:
        self._fewer_connections.set()

    async def listen_also(self, sock: socket.socket) -> None:
        """Takes connections from one more listening socket, which it closes in the end."""
        self._others.append(await self.loop.create_server(self._protocol_factory, sock=sock))

    async def farewell(self, shut_down: Sequence[socket.socket], *, limit_s: float) -> None:
        """Ends everything: statuses on their way are sent, then connections are closed, then what is left is cut off.

        `shut_down` take no connections any more. Takes no longer than twice `limit_s`.
        """
        assert self._server is not None
        for sock in shut_down:
            sock.shutdown(socket.SHUT_RDWR)
        for server in (self._server, *self._others):
            server.close()  # the listening socket only; grpclib's own close would cancel calls without a status
        ending = {task for task in self.tasks if not task.get_name().startswith(HEALTH)}
        if ending:
            await asyncio.wait(ending, timeout=limit_s)
        self.hanging_up = True
        for protocol in tuple(self.connections):
            protocol.hang_up(GOODBYE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.connections:
                    self._fewer_connections.clear()
                    await self._fewer_connections.wait()
        for protocol in tuple(self.connections):
            protocol.transport.abort()
        self.close()
        await self.wait_closed()


async def open_server(handlers: list[Any], *, loop: GuestLoop, max_message_bytes: int) -> GuardedServer:
    """A coroutine, because grpclib asks for the loop that runs."""
    return GuardedServer(handlers, loop=loop, max_message_bytes=max_message_bytes)


def guarded(stream: Any) -> GuardedStream:
    """The call on the wire below a `grpclib.server.Stream`."""
    found = stream._stream  # noqa: SLF001 - no public way leads there
    assert isinstance(found, GuardedStream)
    return found
