"""A refused connection: its calls are answered with the reason, cheaply, and it ends soon.

A gRPC client reports a status only for a call; a closed connection is UNAVAILABLE with the client's own text. So the
connection stays open for as long as a client needs for its first call, but without a connection's usual state: the
headers of each request are answered with the same bytes.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final

from grpclib.exceptions import GRPCError
from grpclib.metadata import encode_grpc_message
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack import Encoder

from pool.rpc.frames import END_HEADERS, END_STREAM, GOAWAY, HEADERS, SETTINGS, FrameCutter, weight

LIMIT_S: Final = 2.0
"""Until a refused connection is closed."""

MAX_WORK: Final = 128
"""Work for one refused connection, in cheap frames: enough for 15 calls."""


class TurnedAway(asyncio.Protocol):
    """Limits its own work; its creator limits its time, by `close`."""

    def __init__(self, refusal: GRPCError, *, on_lost: Callable[[TurnedAway], object]) -> None:
        self._answer = Encoder().encode(
            [
                (":status", "200"),
                ("content-type", "application/grpc+proto"),
                ("grpc-status", str(refusal.status.value)),
                ("grpc-message", encode_grpc_message(refusal.message or "")),
            ]
        )
        self._on_lost = on_lost
        self._frames = FrameCutter()
        self._work_left = MAX_WORK
        self._last_call = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(_frame(SETTINGS))

    def data_received(self, data: bytes) -> None:
        self._frames.add(data)
        try:
            _, heads = self._frames.take(most=self._work_left)
        except ProtocolError:
            self.close()
            return
        self._work_left -= weight(heads)
        assert self._transport is not None
        for head in heads:
            if head.kind == SETTINGS and not head.flags:
                self._transport.write(_frame(SETTINGS, flags=1))
            elif head.kind == HEADERS and head.stream > self._last_call:
                self._last_call = head.stream
                self._transport.write(_frame(HEADERS, self._answer, flags=END_HEADERS | END_STREAM, stream=head.stream))
        if self._work_left <= 0:
            self.close()

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's
        self._on_lost(self)

    def close(self) -> None:
        """Sends GOAWAY and closes. Output that the client has not read is dropped."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_frame(GOAWAY, struct.pack(">II", self._last_call, ErrorCodes.NO_ERROR)))
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()


def _frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
