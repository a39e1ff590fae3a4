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

_READ_SIZE = 64 * 1024
_READS_PER_TURN = 32
"""A virtio port gives 4 KiB at a time: 128 KiB of input, then everything else has its turn."""

_WRITE_SIZE = 32 * 1024
"""What a virtio port takes in one write."""

_CONGESTED = 128 * 1024
"""With more than this to be written, no further output is read from commands and files."""

_MAX_REQUEST = 4 * 1024 * 1024
"""Twice what Linux takes as argv and environment of a program."""


class Channel:
    """Edge-triggered: with no host connected the port is silent, where level-triggered polling would spin on HUP."""

    def __init__(
        self, fd: int, loop: Loop, on_frame: Callable[[int, int, bytes], None], on_hangup: Callable[[], None]
    ) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = loop
        self._on_frame = on_frame
        self._on_hangup = on_hangup
        self._decoder = wire.Decoder(max_message=_MAX_REQUEST)
        self._outgoing = bytearray()
        self._readable = True
        self._writable = True
        loop.watch(fd, READ | WRITE | EDGE, self._on_events)

    @property
    def busy(self) -> bool:
        """There is something to be read or written right now."""
        return self._readable or (self._writable and bool(self._outgoing))

    @property
    def congested(self) -> bool:
        return len(self._outgoing) > _CONGESTED

    def send(self, kind: int, stream: int, payload: bytes = b"") -> None:
        self._outgoing += wire.encode(kind, stream, payload)

    def send_value(self, kind: int, stream: int, value: dict[str, Any]) -> None:
        self._outgoing += wire.encode(kind, stream, values.pack(value))

    def send_error(self, stream: int, code: str, message: str) -> None:
        self.send_value(wire.ERROR, stream, {"code": code, "message": message[:4096]})

    def send_data(self, channel: int, stream: int, data: bytes) -> None:
        self._outgoing += wire.encode_data(channel, stream, data)

    def send_credit(self, channel: int, stream: int, count: int) -> None:
        self._outgoing += wire.encode(wire.CREDIT + channel, stream, wire.COUNT.pack(count))

    def start_session(self, kind: int, payload: bytes) -> None:
        """Drops what was meant for the previous host, and writes a marker with the first message to the new one."""
        self._outgoing.clear()
        self._outgoing += wire.MARKER + wire.encode(kind, 0, payload)

    def close(self) -> None:
        self._loop.unwatch(self._fd)
        os.close(self._fd)

    def _on_events(self, _events: int) -> None:
        # Which events came tells less than trying: HUP and IN come and go together on a virtio port.
        self._readable = self._writable = True

    def run(self) -> None:
        """Reads and writes what can be, a bounded amount of it, without waiting."""
        for _ in range(_READS_PER_TURN):
            if not self._readable:
                break
            self._read()
        while self._outgoing and self._writable:
            self._write()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            self._readable = False
            return
        except ConnectionResetError:
            data = b""
        if not data:
            # The host closed its end. It may open it again, and that may even have happened already: news of it comes
            # on another queue than data. So this ends nothing; the next hello does.
            self._readable = False
            self._on_hangup()
            return
        for kind, stream, payload in self._decoder.feed(data):
            self._on_frame(kind, stream, payload)

    def _write(self) -> None:
        try:
            with memoryview(self._outgoing) as view:
                written = os.write(self._fd, view[:_WRITE_SIZE])
        except BlockingIOError:
            written = 0
        except (BrokenPipeError, ConnectionResetError):
            self._outgoing.clear()
            written = 0
        if written == 0:
            self._writable = False
        else:
            del self._outgoing[:written]
