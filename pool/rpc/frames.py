"""HTTP/2 frames, cut out of what arrives: so many at a time, judged by their heads before anybody reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from h2.exceptions import DenialOfServiceError, FrameTooLargeError, ProtocolError

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

HEAD_BYTES: Final = 9

MAX_PAYLOAD_BYTES: Final = 16 * 1024
"""HTTP/2's smallest limit, which the server does not raise."""

MAX_HEADER_BYTES: Final = 16 * 1024
"""Of a request's headers, as they are sent and when they are unpacked. Other gRPC servers take 8 to 16 KiB."""

HEADERS_WEIGHT: Final = 8
"""How many cheap frames make as much work as one that begins a call."""

_HEAD: Final = struct.Struct(">HBBBI")


def weight(heads: Iterable[FrameHead]) -> int:
    """How much work they make, in cheap frames."""
    return sum(HEADERS_WEIGHT if head.kind == HEADERS else 1 for head in heads)


class FrameHead(NamedTuple):
    kind: int
    flags: int
    stream: int
    size: int
    """Of the payload, without padding, in bytes."""


class FrameCutter:
    """What has arrived of one connection and was not taken yet: at most what one read brought, and a frame's part."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._preface_left = len(PREFACE)
        self._header_bytes = 0
        """Of the headers that are not complete yet."""

    def add(self, data: bytes) -> None:
        self._data += data

    def take(self, *, most: int) -> tuple[bytes, list[FrameHead]]:
        """Whole frames whose weight comes to `most`, or with the last of them a little more; what is left stays.

        The preface comes as it arrives. Raises h2's ProtocolErrors for what is no HTTP/2, and for what is too large.
        """
        data = self._data
        at = min(self._preface_left, len(data))
        if at:
            begun = len(PREFACE) - self._preface_left
            if data[:at] != PREFACE[begun : begun + at]:
                raise ProtocolError("no HTTP/2")
            self._preface_left -= at
        heads: list[FrameHead] = []
        while most > 0 and len(data) - at >= HEAD_BYTES:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            size = high << 8 | low
            if size > MAX_PAYLOAD_BYTES:
                raise FrameTooLargeError(f"a frame of {size} bytes; at most {MAX_PAYLOAD_BYTES} are taken")
            end = at + HEAD_BYTES + size
            if end > len(data):
                break
            if kind in (HEADERS, CONTINUATION):
                self._note_headers(kind, flags, size)
            most -= HEADERS_WEIGHT if kind == HEADERS else 1
            if kind == DATA and flags & PADDED and size:
                size = max(0, size - 1 - data[at + HEAD_BYTES])
            heads.append(FrameHead(kind, flags, stream & 0x7FFFFFFF, size))
            at = end
        taken = bytes(data[:at])
        del data[:at]
        return taken, heads

    def has_frame(self) -> bool:
        """Whether there is more to take. One that is too large counts: to take it tells."""
        data = self._data
        if len(data) < HEAD_BYTES:
            return False
        size = int.from_bytes(data[:3], "big")
        return size > MAX_PAYLOAD_BYTES or len(data) >= HEAD_BYTES + size

    def _note_headers(self, kind: int, flags: int, size: int) -> None:
        self._header_bytes = size + (self._header_bytes if kind == CONTINUATION else 0)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise DenialOfServiceError(f"headers of more than {MAX_HEADER_BYTES} bytes")
        if flags & END_HEADERS:
            self._header_bytes = 0
