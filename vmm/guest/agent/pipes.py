"""Bytes between the host and a descriptor, with the credit that bounds what lies in between."""

from __future__ import annotations

import os

from . import wire
from .channel import PIECE_SIZE
from .loop import WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .channel import Channel
    from .loop import Loop


class Inlet:
    """Writes what the host sends into a pipe, and gives the host credit for it."""

    def __init__(self, fd: int, stream: int, window: int, loop: Loop, channel: Channel) -> None:
        """Takes over the descriptor."""
        os.set_blocking(fd, False)
        self._fd = fd  # -1 once closed
        self._stream = stream
        self._window = window
        self._loop = loop
        self._channel = channel
        self._buffer = bytearray()
        self._ended = False
        self._consumed = 0

    def receive(self, data: bytes) -> None:
        if self._ended or len(self._buffer) + len(data) > self._window:
            raise ValueError("input: more bytes than the credit allows, or some after its end")
        self._buffer += data
        self._write()

    def receive_eof(self) -> None:
        self._ended = True
        self._write()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _write(self) -> None:
        if self._fd >= 0 and self._buffer:
            try:
                with memoryview(self._buffer) as view:
                    written = os.write(self._fd, view)
                del self._buffer[:written]
                self._consumed += written
            except BlockingIOError:
                pass
            except BrokenPipeError:
                self.close()
        if self._fd < 0:
            # Nobody reads it. It is counted all the same, so that the host does not wait for credit for ever.
            self._consumed += len(self._buffer)
            self._buffer.clear()
        elif self._buffer:
            if not self._loop.watching(self._fd):
                self._loop.watch(self._fd, WRITE, lambda _events: self._write())
        elif self._ended:
            self.close()
        else:
            self._loop.unwatch(self._fd)
        if self._consumed >= self._window // 4 and not self._ended:
            self._channel.send_credit(wire.STDIN, self._stream, self._consumed)
            self._consumed = 0


class Outlet:
    """Sends what comes out of a pipe as far as the host's credit goes."""

    def __init__(
        self, fd: int, stream: int, window: int, loop: Loop, channel: Channel, *, on_end: Callable[[], None]
    ) -> None:
        """Takes over the descriptor, and reads it from `start` on; `on_end` is called once, when all is sent."""
        os.set_blocking(fd, False)
        self._fd = fd  # -1 once closed
        self._stream = stream
        self._credit = window
        self._loop = loop
        self._channel = channel
        self._on_end = on_end
        self._started = False

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def start(self) -> None:
        self._started = True
        self._watch()

    def add_credit(self, count: int) -> None:
        self._credit += count
        self._watch()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.unwatch_source(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _watch(self) -> None:
        if self._fd >= 0 and self._started and self._credit > 0:
            self._loop.watch_source(self._fd, lambda _events: self._read())

    def _read(self) -> None:
        data = os.read(self._fd, min(PIECE_SIZE, self._credit))
        if not data:
            self.close()
            self._on_end()
            return
        self._credit -= len(data)
        self._channel.send_data(wire.STDOUT, self._stream, data)
        if self._credit == 0:
            self._loop.unwatch_source(self._fd)
