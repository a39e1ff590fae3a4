"""Frames on the agent channel: many logical streams on one byte stream. Used by the agent and by the host.

A frame is a 9 byte header (kind u8, stream u32, length u32, little endian) and up to 64 KiB of payload. A message that
is longer is sent as several frames in a row, all but the last with `MORE` set in their kind.

The marker makes the channel recoverable. It is written in front of hello and its answer, and by construction nowhere
else: an encoder cuts a payload that contains it into two frames, so that a header stands between the halves; the first
and the last byte of a header are below 0x80 while all of the marker's are not, so a header cannot complete one. A
reader that finds the marker therefore knows that a new session begins, even in the middle of an abandoned frame.
"""

from __future__ import annotations

import struct

VERSION = 2
"""Version of the protocol. Both sides send theirs in hello; the host refuses a guest whose version differs."""

MARKER = bytes.fromhex("f5c1e9a8d3b7fe95c09acfb2e6878df1")
"""Its bytes are distinct, so it cannot overlap itself, and above 0x7f; 0xc0, 0xc1 and 0xf5 never occur in UTF-8."""

NONCE_SIZE = 16
MAX_PAYLOAD = 64 * 1024
MAX_REQUEST = 4 * 1024 * 1024
"""The longest message to the agent: twice Linux's limit on argv and environment of a program. The host sends no more;
the agent treats a longer one as garbage."""

MAX_REPLY = 24 * 1024
"""The longest answer to the host, which protects its time and memory from the guest. The longest honest one is an error
with a message of 4096 characters."""

WINDOW = 256 * 1024
"""Bytes that a sender may have in flight in one direction of one channel before it gets credit. An exec may request a
smaller "window"; an agent that supports this confirms it in its reply."""

GAP_COST = 256
"""Bytes of credit that SKIPPED takes, so that a window bounds what both sides have to remember of gaps, too."""

HEADER = struct.Struct("<BII")
COUNT = struct.Struct("<I")
LONG_COUNT = struct.Struct("<Q")
HELLO_BODY = struct.Struct(f"<{NONCE_SIZE}sH")

# Kinds. From the host:
HELLO = 0x01  # nonce, version; ends the previous session
REQUEST = 0x02  # a value (see `values`): a dict with "op"
CANCEL = 0x03  # forget the stream: kill the command, drop the file
SIGNAL = 0x04  # a value: the signal's number
RESIZE = 0x05  # a value: {"rows", "columns"} of a process's terminal
# Both ways, plus the channel's number:
DATA = 0x10
EOF = 0x14
CREDIT = 0x18  # count of bytes that were consumed
SKIPPED = 0x1C  # from the guest: count, as a u64, of bytes of a followed process's output that are lost
# From the guest:
ANNOUNCE = 0x20  # the agent has opened its port
HELLO_REPLY = 0x21  # the host's nonce, the agent's version
REPLY = 0x22  # a value
ERROR = 0x23  # a value: {"code", "message", "part"}: the part of the request, if known; the stream is over
EXITED = 0x24  # a value: {"status" or "signal", "timed_out", "out_of_memory"}; the stream is over
# Made by the decoder, never on the wire:
SYNCED = 0x30  # a marker was read: what follows is a new session
BROKEN = 0x31  # not a frame: nothing is read until the next marker; the payload says why

MORE = 0x40

STDIN, STDOUT, STDERR = 0, 1, 2
"""Channels of a stream. Putting a file uses STDIN's number, getting one STDOUT's."""

Frame = tuple[int, int, bytes]
"""Kind, stream, payload."""


def encode(kind: int, stream: int, payload: bytes = b"") -> bytes:
    """Encodes one message. For data use `encode_data`, whose pieces need no reassembly."""
    if len(payload) <= MAX_PAYLOAD and MARKER not in payload:
        return HEADER.pack(kind, stream, len(payload)) + payload
    pieces = _pieces(payload)
    last = len(pieces) - 1
    return b"".join(
        HEADER.pack(kind if index == last else kind | MORE, stream, len(piece)) + piece
        for index, piece in enumerate(pieces)
    )


def encode_data(channel: int, stream: int, payload: bytes) -> bytes:
    """Encodes bytes of a channel as one or more DATA frames."""
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
        """Number of frames read so far, counting pieces of messages: a measure of the reading cost."""
        self.missing = 0
        """Bytes missing from the frame that has begun; 0 if its length is not known."""
        self._synced = False
        self._seen = b""  # the last bytes fed, which may hold the start of a marker
        self._buffer = bytearray()
        self._parts = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Frames that `data` completes, in order. Memory is bounded by `max_message` and one frame."""
        frames: list[Frame] = []
        window = self._seen + data
        found = window.rfind(MARKER)
        fresh = data
        if found >= 0:
            # Bytes before the marker belong to an earlier session.
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
