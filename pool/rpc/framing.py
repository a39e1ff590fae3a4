"""Messages on the wire: how they are buffered, how large they may be, how they are decoded.

grpclib reads a message's length and then buffers that many bytes without a limit; here the length is checked first.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final

import betterproto2
from grpclib.const import Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError

from vmpool.wire.wellformed import MAX_FIELDS, Budget, TooManyFieldsError, check_wellformed

CONNECTION_WINDOW_BYTES: Final = 1024 * 1024
"""How much one connection may send beyond what the service has read."""

STREAM_WINDOW_BYTES: Final = 256 * 1024
"""How much one call may send beyond what the service has read."""

_HEADER: Final = struct.Struct(">BI")


class MessageBuffer:
    """Received data of one call that was not read yet; replaces `grpclib.protocol.Buffer`.

    grpclib reads 5 bytes of header, then the body that the header announces; `read` refuses headers of bodies that are
    too large. Bytes are kept in one piece, so that sending them one by one gains a client nothing, and empty frames
    cost nothing.
    """

    def __init__(
        self,
        *,
        acknowledge: Callable[[int], None],
        limit: int,
        account: Callable[[int], None] = lambda _size: None,
        single: bool = False,
    ) -> None:
        """`account` gets each message's size before its body is received, and may refuse it with a GRPCError.
        `single`: data after the first message is dropped, since the call reads only one.
        """
        self._acknowledge = acknowledge
        self._limit = limit
        self._account = account
        self._single = single
        self._complete = False
        self._data = bytearray()
        self._unacknowledged = 0
        self._ended = False
        self._in_body = False
        self._changed = asyncio.Event()

    def add(self, data: bytes, ack_size: int) -> None:
        """Takes the payload of a DATA frame, which counts as `ack_size` in flow control."""
        if self._complete:
            self._acknowledge(ack_size)
            return
        self._data += data
        self._unacknowledged += ack_size
        self._changed.set()

    def eof(self) -> None:
        """The client ended its side."""
        self._ended = True
        self._changed.set()

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes, or no bytes at the end of the requests.

        Raises GRPCError for a header that announces an unacceptable message, and for an end within a message.
        """
        while len(self._data) < size and not self._ended:
            # The reader needs more than has arrived, so the client may send more.
            self._allow(self._unacknowledged)
            self._changed.clear()
            await self._changed.wait()
        if len(self._data) < size:
            if not self._data and not self._in_body:
                return b""
            raise GRPCError(
                Status.INVALID_ARGUMENT, "the request ended in the middle of a message; send it again, complete"
            )
        taken = bytes(self._data[:size])
        del self._data[:size]
        if self._in_body and self._single:
            self._complete = True
            self._data.clear()
        self._allow(self._unacknowledged - len(self._data))
        self._in_body = not self._in_body
        if self._in_body:
            self._check_header(taken)
        return taken

    def _check_header(self, header: bytes) -> None:
        compressed, size = _HEADER.unpack(header)
        if compressed:
            raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not supported; send them uncompressed")
        if size > self._limit:
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"message of {size} bytes; the maximum is {self._limit}; send smaller messages",
            )
        self._account(size)

    def _allow(self, size: int) -> None:
        if size > 0:
            self._unacknowledged -= size
            self._acknowledge(size)

    def unacked_size(self) -> int:
        """The bytes still to be acknowledged when the call is over; called once, by grpclib."""
        size, self._unacknowledged = self._unacknowledged, 0
        self._data.clear()
        return size


FIELD_BYTES: Final = 160
"""Memory of a decoded field or list element beyond its own bytes."""


class Codec(ProtoCodec):
    """Protocol buffers; invalid bytes are INVALID_ARGUMENT."""

    def __init__(self, *, account: Callable[[int], None] = lambda _size: None) -> None:
        """`account` gets the memory a message takes beyond its bytes, and may refuse the message with a GRPCError."""
        super().__init__()
        self._account = account

    def decode(self, data: bytes, message_type: type[Any]) -> Any:
        try:
            if issubclass(message_type, betterproto2.Message):
                budget = Budget()
                check_wellformed(memoryview(data), message_type, budget=budget)
                self._account((MAX_FIELDS - budget.fields) * FIELD_BYTES)
            return super().decode(data, message_type)
        except GRPCError:
            raise
        except TooManyFieldsError as error:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{error}; send less, or use a file") from error
        except Exception as error:
            # Parsers raise all kinds of errors here, down to IndexError and UnicodeDecodeError.
            raise GRPCError(
                Status.INVALID_ARGUMENT, f"{len(data)} bytes are not a valid {message_type.__name__}: {error}"
            ) from error
