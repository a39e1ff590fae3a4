"""One call on the wire: bounded buffer, arrival, deadline, receipts."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final, Protocol

import trio
from grpclib.protocol import Connection, Stream
from h2.exceptions import StreamClosedError

from pool.rpc.flood import earned_by
from pool.rpc.framing import MessageBuffer
from pool.rpc.users import RequestBytes, User
from vmpool.wire.crossing import GuestLoop

RECEIPT_LIMIT_S: Final = 1.0
"""How long to wait for a reply's receipt. Every HTTP/2 stack answers a PING by itself, within a round trip."""

Headers = list[tuple[str, str]]


class CallConnection(Protocol):
    """What a connection has for each of its calls."""

    connection: Connection
    transport: asyncio.Transport
    user: User

    @property
    def http2(self) -> Any: ...

    @property
    def loop(self) -> GuestLoop: ...

    def earn(self, units: int) -> None: ...

    def end_call(self, stream: GuardedStream) -> None: ...

    def ping(self) -> trio.Event: ...


class GuardedStream(Stream):
    """One call on the wire: bounded buffer, arrival, deadline, receipts."""

    arrived_at: float = 0.0
    """On trio's clock, as is `deadline`."""
    deadline: float = math.inf
    answered: bool = False
    """The client has received, or will receive, a status."""
    status_follows: bool = False
    """The next message is the last one, and waits for the status, so that both go in one packet."""

    def __init__(
        self, protocol: CallConnection, *, stream_id: int, max_message_bytes: int, single_request: bool
    ) -> None:
        super().__init__(protocol.connection, protocol.http2, protocol.transport)
        self._protocol = protocol
        self._max_message_bytes = max_message_bytes
        self._single_request = single_request
        self.request_bytes = RequestBytes(user=protocol.user)
        self.init_stream(stream_id, protocol.connection)

    def init_stream(self, stream_id: int, connection: Connection) -> None:
        super().init_stream(stream_id, connection)

        def acknowledge(size: int) -> None:
            if not connection.is_closing():
                connection.ack(stream_id, size)

        self.buffer = MessageBuffer(  # type: ignore[assignment]
            acknowledge=acknowledge,
            limit=self._max_message_bytes,
            account=self.request_bytes.begin,
            single=self._single_request,
        )

    async def send_headers(self, headers: Headers, end_stream: bool = False) -> None:
        if end_stream:
            await super().send_headers(headers, end_stream=True)
            self.answered = True
            return
        # The initial headers wait for the first message, to go in one packet: each packet wakes the client.
        await self.connection.write_ready.wait()
        assert self.id is not None  # the client has opened it
        if self.id not in self._h2_connection.streams:
            raise StreamClosedError(self.id)
        self._h2_connection.send_headers(self.id, headers)
        self.connection.headers_send_process()

    async def send_data(self, data: bytes, end_stream: bool = False) -> None:
        self._protocol.earn(earned_by(len(data)))
        if not (self.status_follows and self._takes_at_once(len(data))):
            await super().send_data(data, end_stream=end_stream)
            return
        assert self.id is not None  # the client has opened it
        self._h2_connection.send_data(self.id, data, end_stream=end_stream)
        self.data_sent += len(data)
        self.connection.data_sent += len(data)
        self.connection.data_send_process()

    def _takes_at_once(self, size: int) -> bool:
        """Whether a message of so many bytes fits into one frame and the windows, and the connection is writable."""
        http2 = self._h2_connection
        return (
            self.connection.write_ready.is_set()
            and self.id in http2.streams
            and size <= min(http2.local_flow_control_window(self.id), http2.max_outbound_frame_size)
        )

    @property
    def loop(self) -> GuestLoop:
        """The loop that the call runs on."""
        return self._protocol.loop

    @property
    def user(self) -> User:
        """The user of the call."""
        return self._protocol.user

    @property
    def abandoned(self) -> bool:
        """Whether the client has reset the call or gone away."""
        return self.wrapper is not None and bool(self.wrapper.cancelled)

    def finish(self) -> None:
        """Called when the call is over, however it ended."""
        self._protocol.end_call(self)

    def request_receipt(self) -> trio.Event:
        """Sends a PING with the next message; the event is set when the client has read both.

        The caller bounds its wait with RECEIPT_LIMIT_S. A connection that ends does not set the event, but cancels the
        call.
        """
        return self._protocol.ping()


def guarded(stream: Any) -> GuardedStream:
    """The call on the wire below a `grpclib.server.Stream`."""
    found = stream._stream  # noqa: SLF001 - nowhere public
    assert isinstance(found, GuardedStream)
    return found
