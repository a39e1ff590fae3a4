"""The agent's end of the byte channel to the host: a virtio-serial port, or a socket in tests."""

from __future__ import annotations

import os

from . import values, wire
from .loop import EDGE, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import Loop

_READ_SIZE = 4096
"""The most a virtio port returns at once. A shorter read has emptied it, so no second read is tried: that would raise
BlockingIOError, and a clone under TCG pays for translating each code path that it uses for the first time."""

_LONG_READ_SIZE = 64 * 1024
"""For reads after a full one; sockets return this much. As a first read it would make the allocator call the kernel."""

_READS_PER_TURN = 32
"""With 4 KiB a read from a virtio port, 128 KiB of input before other work gets its turn."""

_WRITE_SIZE = 32 * 1024
"""The most a virtio port accepts in one write."""

PIECE_SIZE = _WRITE_SIZE - wire.HEADER.size
"""Of what is read to be sent on: with its header, one write."""

_CONGESTED = 128 * 1024
"""Above this many bytes of pending output, commands and files are not read."""


class Channel:
    """Level-triggered while a host is connected; edge-triggered without one, when the port constantly reports HUP."""

    def __init__(
        self, fd: int, loop: Loop, on_frame: Callable[[int, int, bytes], None], on_hangup: Callable[[], None]
    ) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = loop
        self._on_frame = on_frame
        self._on_hangup = on_hangup
        self._decoder = wire.Decoder(max_message=wire.MAX_REQUEST)
        self._outgoing = bytearray()
        self._readable = False
        self._flowing = False
        """The last read filled its buffer."""
        self._writable = True
        self._absent = False
        """The host has closed its end, and has sent nothing since."""
        self._watched = READ
        loop.watch(fd, READ, self._on_events)

    @property
    def busy(self) -> bool:
        """There are bytes to read or write right now."""
        return self._readable or (self._writable and bool(self._outgoing))

    @property
    def congested(self) -> bool:
        return len(self._outgoing) > _CONGESTED

    def send(self, kind: int, stream: int, payload: bytes = b"") -> None:
        self._outgoing += wire.encode(kind, stream, payload)

    def send_value(self, kind: int, stream: int, value: dict[str, Any]) -> None:
        self._outgoing += wire.encode(kind, stream, values.pack(value))

    def send_error(self, stream: int, code: str, message: str, part: str = "") -> None:
        self.send_value(wire.ERROR, stream, {"code": code, "message": message[:4096], "part": part})

    def send_data(self, channel: int, stream: int, data: bytes) -> None:
        self._outgoing += wire.encode_data(channel, stream, data)

    def send_credit(self, channel: int, stream: int, count: int) -> None:
        self._outgoing += wire.encode(wire.CREDIT + channel, stream, wire.COUNT.pack(count))

    def start_session(self, kind: int, payload: bytes) -> None:
        """Drops output for the previous host, and writes a marker with the first message to the new one."""
        self._outgoing.clear()
        self._outgoing += wire.MARKER + wire.encode(kind, 0, payload)

    def close(self) -> None:
        self._loop.unwatch(self._fd)
        os.close(self._fd)

    def _on_events(self, events: int) -> None:
        # HUP alone also has to be read: the read returns the end of the stream.
        self._readable = events != WRITE
        self._writable = self._writable or events & WRITE != 0
        self._watch()

    def _watch(self) -> None:
        wanted = READ | (0 if self._writable else WRITE) | (EDGE if self._absent else 0)
        if wanted != self._watched:
            self._watched = wanted
            self._loop.rewatch(self._fd, wanted)

    def run(self) -> None:
        """Reads and writes a bounded amount without waiting."""
        for _ in range(_READS_PER_TURN):
            if not self._readable:
                break
            self._read()
        while self._outgoing and self._writable:
            self._write()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _LONG_READ_SIZE if self._flowing else _READ_SIZE)
        except BlockingIOError:
            self._readable = self._flowing = False
            return
        except ConnectionResetError:
            data = b""
        if not data:
            # The host closed its end. It may reopen it, and may have done so already, because port events and data
            # arrive on different queues. So the session goes on until the next hello.
            self._readable = self._flowing = False
            self._absent = True
            self._watch()
            self._on_hangup()
            return
        self._readable = self._flowing = len(data) >= _READ_SIZE
        self._absent = False
        self._watch()
        for kind, stream, payload in self._decoder.feed(data):
            self._on_frame(kind, stream, payload)

    def _write(self) -> None:
        outgoing = self._outgoing
        try:
            written = os.write(self._fd, outgoing if len(outgoing) <= _WRITE_SIZE else outgoing[:_WRITE_SIZE])
        except BlockingIOError:
            written = 0
        except (BrokenPipeError, ConnectionResetError):
            outgoing.clear()
            written = 0
        if written == 0:
            self._writable = False
            self._watch()
        else:
            del outgoing[:written]
