"""One client's connection, protected against a hostile client.

grpclib trusts its peers: an unknown frame ends the loop it runs on, a message may have any size, and a reply counts as
sent once it is in a buffer. The classes here replace grpclib's to change that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any, Final, Protocol

import trio
from grpclib.config import Configuration
from grpclib.metadata import encode_grpc_message
from grpclib.protocol import Connection, EventsProcessor, H2Protocol
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event as H2Event
from h2.events import PingAckReceived, RequestReceived, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from pool.rpc.flood import ANSWERED, RESET, TokenBucket, cost
from pool.rpc.frames import DATA, MAX_HEADER_BYTES, FrameCutter, FrameHead
from pool.rpc.framing import CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES
from pool.rpc.patience import Patience
from pool.rpc.repeats import Repeats
from pool.rpc.stream import GuardedStream, Headers
from pool.rpc.tasks import CallsServer, GuardedHandler
from pool.rpc.users import User
from vmpool.wire.crossing import GuestLoop

CALLS_PER_CONNECTION: Final = 100
"""Open at a time. Clients learn the limit from SETTINGS, and hold back further calls."""

WORK_AT_ONCE: Final = 64
"""Work for one connection before others have their turn, in cheap frames: a millisecond."""

UNREAD_BYTES: Final = 16 * 1024
"""Unread output of one client, beyond the kernel's buffer, from which nothing is added."""

GOODBYE: Final = "the service is shutting down"


class FloodError(Exception):
    """A client sends too many useless frames."""

    def __init__(self) -> None:
        super().__init__("too many useless frames, or calls that are reset before they are answered")


class BoundedH2(H2Connection):
    """h2's connection state, with tighter limits on what clients control."""

    DEFAULT_MAX_HEADER_LIST_SIZE = MAX_HEADER_BYTES
    MAX_CLOSED_STREAMS = 1000
    """Remembered for late frames; h2's default of 65,536 would take 10 MB."""

    def announce(self) -> None:
        """Sends the server's limits."""
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: CALLS_PER_CONNECTION,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            },
        )
        self.initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW_BYTES - 65535)


class GuardedProcessor(EventsProcessor):
    """Dispatches HTTP/2 events; ignores unknown ones, as RFC 9113 section 5.5 demands."""

    def __init__(self, protocol: GuardedProtocol, *, max_message_bytes: int) -> None:
        super().__init__(protocol.handler, protocol.connection)
        self._protocol = protocol
        self._max_message_bytes = max_message_bytes

    def process(self, event: H2Event) -> None:
        # Without `processors` the connection is closed, and events that arrived with its end are void.
        if type(event) in getattr(self, "processors", {}):
            super().process(event)

    def process_request_received(self, event: RequestReceived) -> None:
        headers: Headers = event.headers  # type: ignore[assignment]
        path = next((value for name, value in headers if name == ":path"), "")
        if not self._protocol.begin_call(event.stream_id, path):
            return
        method = self._protocol.handler.mapping.get(path)
        stream = GuardedStream(
            self._protocol,
            stream_id=event.stream_id,
            max_message_bytes=self._max_message_bytes,
            single_request=method is not None and not method.cardinality.client_streaming,
        )
        self._protocol.handler.begin(stream, path, headers, self.register(stream))

    def process_stream_reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if isinstance(stream, GuardedStream) and not stream.answered:
            self._protocol.spend(RESET)
        super().process_stream_reset(event)

    def process_ping_ack_received(self, event: PingAckReceived) -> None:
        super().process_ping_ack_received(event)
        self._protocol.pong(event.ping_data)


class ConnectionServer(CallsServer, Protocol):
    """What a server has for its connections."""

    loop: GuestLoop
    max_message_bytes: int
    connections: set[GuardedProtocol]
    silent: Patience[GuardedProtocol]
    repeats: Repeats
    hanging_up: bool
    floods: int
    violations: int

    @property
    def configuration(self) -> Configuration: ...

    @property
    def http2_configuration(self) -> Any: ...

    def on_connection_lost(self, protocol: GuardedProtocol) -> None: ...

    def go_on_later(self, protocol: GuardedProtocol) -> None: ...


class GuardedProtocol(H2Protocol):
    """One connection. At worst, its client can end this connection."""

    transport: asyncio.Transport
    handler: GuardedHandler

    def __init__(self, server: ConnectionServer, handler: GuardedHandler, user: User) -> None:
        super().__init__(handler, server.configuration, server.http2_configuration)
        self.user = user
        self._server = server
        self._received = FrameCutter()
        self._budget = TokenBucket()
        self._behind = False
        """Received data waits for this connection's turn."""
        self._unread = False
        """The client does not read its output."""
        self._pings: dict[bytes, trio.Event] = {}
        self._ping_ids = itertools.count(1)

    @property
    def loop(self) -> GuestLoop:
        return self._server.loop

    @property
    def http2(self) -> Any:
        return self.connection._connection  # noqa: SLF001 - private in grpclib, but subclasses need it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=UNREAD_BYTES)
        http2 = BoundedH2(config=self.h2_config)
        http2.announce()
        self.connection = Connection(http2, transport, config=self.config)
        self.processor = GuardedProcessor(self, max_message_bytes=self._server.max_message_bytes)
        self._flush()
        self._server.connections.add(self)
        self._server.silent.expect(self)
        if self._server.hanging_up:  # accepted just before the listening socket was closed
            self.hang_up(GOODBYE)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._server.on_connection_lost(self)

    def data_received(self, data: bytes) -> None:
        self._received.add(data)
        if not self._behind:
            self._work()

    def go_on(self) -> None:
        """Handles the next portion of received data."""
        self._behind = False
        self._work()
        self._read_or_not()

    def _work(self) -> None:
        """Handles one portion, and schedules the rest."""
        if self.transport.is_closing():
            return
        try:
            data, heads = self._received.take(most=WORK_AT_ONCE)
            if units := sum(cost(head) or self._is_stale_data(head) for head in heads):
                self.spend(units)
            events = self.connection.feed(data)
            self._flush()
            for event in events:
                self.processor.process(event)
            self._flush()
        except FloodError as error:
            self._server.floods += 1
            self._warn("connection closed: flooded by its client", error)
            self.hang_up("Flood", code=ErrorCodes.ENHANCE_YOUR_CALM)
            if self.transport.get_write_buffer_size():  # the client does not read either
                self.transport.abort()
        except Exception as error:  # noqa: BLE001 - the client chose the bytes, so any error is its fault
            self._server.violations += 1
            self._warn("connection closed: protocol violation by its client", error)
            self.hang_up("Protocol error")
        else:
            self._go_on_later()

    def _is_stale_data(self, head: FrameHead) -> bool:
        """Whether the frame is DATA of a call that is over: h2 answers each with a reset."""
        return (
            head.kind == DATA
            and head.stream not in self.processor.streams
            and head.stream <= self.http2.highest_inbound_stream_id
        )

    def _go_on_later(self) -> None:
        if not (self._behind or self._unread) and self._received.has_frame():
            self._behind = True
            self._read_or_not()
            self._server.go_on_later(self)

    def _warn(self, what: str, error: Exception) -> None:
        self._server.repeats.warn(
            what, uid=self.user.uid, now=trio.current_time(), error=str(error) or type(error).__name__
        )

    def pause_writing(self) -> None:
        super().pause_writing()
        # A client that does not read its answers, to PINGs for instance, cannot request more of them.
        self._unread = True
        self._read_or_not()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = False
        self._read_or_not()
        self._go_on_later()

    def _read_or_not(self) -> None:
        if self._behind or self._unread:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def spend(self, units: int) -> None:
        """Raises FloodError if the client has spent too much."""
        now = trio.current_time()
        self.user.budget.charge(units, now=now)
        if not self._budget.charge(units, now=now):
            raise FloodError

    def earn(self, units: int) -> None:
        self._budget.earn(units)
        self.user.budget.earn(units)

    def begin_call(self, stream_id: int, method: str) -> bool:
        """Returns whether the call may begin; it then counts until `end_call`. Otherwise refuses it."""
        self._server.silent.satisfied(self)
        refusal = self.user.begin_call(method)
        if refusal is None:
            return True
        self.spend(RESET)
        with contextlib.suppress(ProtocolError):  # the client has already reset it
            self.http2.send_headers(
                stream_id,
                [
                    (":status", "200"),
                    ("content-type", "application/grpc+proto"),
                    ("grpc-status", str(refusal.status.value)),
                    ("grpc-message", encode_grpc_message(refusal.message or "")),
                ],
                end_stream=True,
            )
            if not self.http2.streams[stream_id].closed:
                self.http2.reset_stream(stream_id, ErrorCodes.NO_ERROR)
        return False

    def end_call(self, stream: GuardedStream) -> None:
        self.user.end_call()
        stream.request_bytes.end()
        if stream.answered:
            self.earn(ANSWERED)

    def ping(self) -> trio.Event:
        number = next(self._ping_ids).to_bytes(8, "big")
        self._pings[number] = event = trio.Event()
        self.http2.ping(number)
        self.earn(1)
        return event

    def pong(self, number: bytes) -> None:
        event = self._pings.pop(number, None)
        if event is not None:
            event.set()

    def hang_up(self, reason: str, *, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Sends GOAWAY and all pending output, and closes."""
        if not self.transport.is_closing():
            with contextlib.suppress(ProtocolError):
                self.http2.close_connection(code)
            self._flush()
        self.processor.close(reason)

    def _flush(self) -> None:
        pending = self.http2.data_to_send()
        if pending and not self.transport.is_closing():
            self.transport.write(pending)
