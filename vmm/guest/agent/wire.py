"""Frames on the agent channel: one byte stream, many logical ones. Used by the agent and by the host.

A frame is a 9 byte header (kind u8, stream u32, length u32, little endian) and up to 64 KiB of payload. A message that
is longer is sent as several frames in a row, all but the last with `MORE` set in their kind.

The marker makes the channel recoverable. It is written in front of hello and its answer, and by construction nowhere
else: an encoder cuts a payload that contains it into two frames, so that a header stands between the halves; the first
and the last byte of a header are below 0x80 while all of the marker's are not, so a header cannot complete one. Who
reads the marker therefore knows that a new session begins, even in the middle of a frame whose sender died.
"""

from __future__ import annotations

import struct

VERSION = 2
"""Of the protocol. Both sides say theirs in hello; the host refuses a guest that differs."""

MARKER = bytes.fromhex("f5c1e9a8d3b7fe95c09acfb2e6878df1")
"""Bytes are distinct (it cannot overlap itself), above 0x7f, and 0xc0, 0xc1, 0xf5 never occur in UTF-8."""

NONCE_SIZE = 16
MAX_PAYLOAD = 64 * 1024
MAX_REQUEST = 4 * 1024 * 1024
"""Of a message to the agent: twice what Linux takes as argv and environment of a program. The host sends no more; with
more the agent takes what it gets for garbage."""

MAX_REPLY = 24 * 1024
"""Of an answer to the host, which does not trust a guest with its time or memory. The longest is an error, whose
message has 4096 characters."""

WINDOW = 256 * 1024
"""Bytes of data a sender may have on its way in one direction of one channel of a stream before it gets credit. An exec
may ask for less, as "window"; an agent that keeps to it says so in its reply."""

HEADER = struct.Struct("<BII")
COUNT = struct.Struct("<I")
HELLO_BODY = struct.Struct(f"<{NONCE_SIZE}sH")

# Kinds. From the host:
HELLO = 0x01  # nonce, version; ends the previous session
REQUEST = 0x02  # a value (see `values`): a dict with "op"
CANCEL = 0x03  # forget the stream: kill the command, drop the file
SIGNAL = 0x04  # a value: the signal's number
# Both ways, plus the channel's number:
DATA = 0x10
EOF = 0x14
CREDIT = 0x18  # count of bytes that were consumed
# From the guest:
ANNOUNCE = 0x20  # the agent has opened its port
HELLO_REPLY = 0x21  # the host's nonce, the agent's version
REPLY = 0x22  # a value
ERROR = 0x23  # a value: {"code", "message", "part"}: of the request, if that is known; the stream is over
EXITED = 0x24  # a value: {"status" or "signal", "timed_out", "out_of_memory"}; the stream is over
# Made by the decoder, never on the wire:
SYNCED = 0x30  # a marker was read: what follows is a new session
BROKEN = 0x31  # not a frame: nothing is read until the next marker; the payload says why

MORE = 0x40

STDIN, STDOUT, STDERR = 0, 1, 2
"""Channels of a stream. A file that is put uses STDIN's number, one that is got STDOUT's."""

Frame = tuple[int, int, bytes]
"""Kind, stream, payload."""


def encode(kind: int, stream: int, payload: bytes = b"") -> bytes:
    """One message as bytes. For data use `encode_data`, whose pieces need not be put together again."""
    if len(payload) <= MAX_PAYLOAD and MARKER not in payload:
        return HEADER.pack(kind, stream, len(payload)) + payload
    pieces = _pieces(payload)
    last = len(pieces) - 1
    return b"".join(
        HEADER.pack(kind if index == last else kind | MORE, stream, len(piece)) + piece
        for index, piece in enumerate(pieces)
    )


def encode_data(channel: int, stream: int, payload: bytes) -> bytes:
    """Bytes of a channel, as one or several DATA frames."""
    return b"".join(HEADER.pack(DATA + channel, stream, len(piece)) + piece for piece in _pieces(payload))


def _pieces(payload: bytes) -> list[bytes]:
    if len(payload) <= MAX_PAYLOAD and MARKER not in payload:
        return [payload]
    pieces = []
    while payload:
        end = MAX_PAYLOAD
        found = payload.find(MARKER, 0, end + len(MARKER))
        if found >= 0:
            end = min(end, found + len(MARKER) // 2)
        pieces.append(payload[:end])
        payload = payload[end:]
    return pieces


class Decoder:
    """Bytes in, frames out. Discards everything until the first marker."""

    def __init__(self, *, max_message: int) -> None:
        self._max_message = max_message
        self.frames = 0
        """That were read so far, pieces of messages among them: what it has cost to read."""
        self.missing = 0
        """Bytes until the frame that has begun is complete; 0 if its length is not known."""
        self._synced = False
        self._seen = b""  # the last bytes fed, where a marker may have begun
        self._buffer = bytearray()
        self._parts = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Frames that `data` completes, in order. Memory is bounded by `max_message` and one frame."""
        frames: list[Frame] = []
        window = self._seen + data
        found = window.rfind(MARKER)
        fresh = data
        if found >= 0:
            # What came before it was said to, or by, somebody who is gone.
            frames.append((SYNCED, 0, b""))
            self._synced = True
            self._parts.clear()
            self._buffer.clear()
            fresh = window[found + len(MARKER) :]
        self._seen = window[1 - len(MARKER) :]
        if self._synced:
            self._parse(fresh, frames)
        return frames

    def _parse(self, fresh: bytes, frames: list[Frame]) -> None:
        buffer: bytes | bytearray = fresh
        if self._buffer:
            self._buffer += fresh
            buffer = self._buffer
        size = HEADER.size
        start = self.missing = 0
        while len(buffer) - start >= size:
            kind, stream, length = HEADER.unpack_from(buffer, start)
            if length > MAX_PAYLOAD or kind >= 0x80:
                self._break(frames, f"kind {kind:#x} with {length} bytes is not a frame")
                return
            end = start + size + length
            if len(buffer) < end:
                self.missing = end - len(buffer)
                break
            payload = bytes(buffer[start + size : end])
            start = end
            self.frames += 1
            if kind & MORE or self._parts:
                self._parts += payload
                if len(self._parts) > self._max_message:
                    self._break(frames, f"a message of more than {self._max_message} bytes")
                    return
                if kind & MORE:
                    continue
                payload = bytes(self._parts)
                self._parts.clear()
            frames.append((kind, stream, payload))
        if buffer is self._buffer:
            del self._buffer[:start]
        elif start < len(buffer):
            self._buffer += buffer[start:]

    def _break(self, frames: list[Frame], reason: str) -> None:
        self._synced = False
        self._buffer.clear()
        self._parts.clear()
        frames.append((BROKEN, 0, reason.encode()))
