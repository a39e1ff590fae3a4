"""Cuts received data into HTTP/2 frames, a limited number at a time, and checks their heads before h2 parses them."""

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
"""HTTP/2's default limit, which the server does not raise."""

MAX_HEADER_BYTES: Final = 16 * 1024
"""Of a request's headers, both compressed and decompressed. Other gRPC servers accept 8 to 16 KiB."""

HEADERS_WEIGHT: Final = 8
"""The work of a frame that begins a call, in cheap frames."""

_HEAD: Final = struct.Struct(">HBBBI")


def weight(heads: Iterable[FrameHead]) -> int:
    """The work of these frames, in cheap frames."""
    return sum(HEADERS_WEIGHT if head.kind == HEADERS else 1 for head in heads)


class FrameHead(NamedTuple):
    kind: int
    flags: int
    stream: int
    size: int
    """Of the payload, without padding, in bytes."""


class FrameCutter:
    """Received data of one connection that was not taken yet: at most one read, and a part of a frame."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._preface_left = len(PREFACE)
        self._header_bytes = 0
        """Of headers that are not complete yet."""

    def add(self, data: bytes) -> None:
        self._data += data

    def take(self, *, most: int) -> tuple[bytes, list[FrameHead]]:
        """Takes whole frames until their weight reaches `most`, which the last one may exceed; the rest is kept.

        The preface is passed on as it arrives. Raises h2's ProtocolErrors for data that is not HTTP/2, and for frames
        or headers that are too large.
        """
        data = self._data
        at = min(self._preface_left, len(data))
        if at:
            begun = len(PREFACE) - self._preface_left
            if data[:at] != PREFACE[begun : begun + at]:
                raise ProtocolError("not HTTP/2")
            self._preface_left -= at
        heads: list[FrameHead] = []
        while most > 0 and len(data) - at >= HEAD_BYTES:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            size = high << 8 | low
            if size > MAX_PAYLOAD_BYTES:
                raise FrameTooLargeError(f"a frame of {size} bytes; the maximum is {MAX_PAYLOAD_BYTES}")
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
        """Whether a whole frame is left. One that is too large counts, since `take` reports it."""
        data = self._data
        if len(data) < HEAD_BYTES:
            return False
        size = int.from_bytes(data[:3], "big")
        return size > MAX_PAYLOAD_BYTES or len(data) >= HEAD_BYTES + size

    def _note_headers(self, kind: int, flags: int, size: int) -> None:
        self._header_bytes = size + (self._header_bytes if kind == CONTINUATION else 0)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise DenialOfServiceError(f"headers exceed {MAX_HEADER_BYTES} bytes")
        if flags & END_HEADERS:
            self._header_bytes = 0
