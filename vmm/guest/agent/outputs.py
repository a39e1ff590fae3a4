"""What a process writes to its stdout and stderr, or its terminal."""

from __future__ import annotations

import fcntl
import os
import time

from . import wire
from .channel import PIECE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop, Timer
    from .spawning import Spawned

GRACE_NS = 200_000_000
"""A daemon left behind by a process may hold the process's output open for ever. The process's own output is always
delivered in full; output that others write to the same pipes is delivered for this long after the process's end."""

_FIONREAD = 0x541B

UNLIMITED = 2**62


class _Source:
    __slots__ = ("credit", "fd", "owed")

    def __init__(self, fd: int, credit: int) -> None:
        self.fd = fd  # -1 once closed
        self.credit = credit
        self.owed = 0  # bytes in the pipe when the process ended


class Outputs:
    """Reads as many bytes of each stream as there is credit for."""

    def __init__(
        self,
        loop: Loop,
        spawned: Spawned,
        credit: int,
        *,
        on_data: Callable[[int, bytes], None],
        on_over: Callable[[], None],
    ) -> None:
        """`on_over` is called once: after `process_ended`, when all is read. With UNLIMITED credit it reads also while
        the loop's sources are paused.
        """
        self._loop = loop
        self._on_data = on_data
        self._on_over = on_over
        self._always = credit == UNLIMITED
        self._sources = {wire.STDOUT: _Source(spawned.stdout, credit)}
        if spawned.stderr >= 0:
            self._sources[wire.STDERR] = _Source(spawned.stderr, credit)
        self._ended_ns = 0
        self._timer: Timer | None = None
        for number in self._sources:
            self._watch(number)

    def add_credit(self, number: int, count: int) -> None:
        source = self._sources.get(number)
        if source is not None:
            source.credit += count
            self._watch(number)

    def process_ended(self) -> None:
        self._ended_ns = time.monotonic_ns()
        for source in self._sources.values():
            if source.fd >= 0:
                owed = fcntl.ioctl(source.fd, _FIONREAD, b"\0\0\0\0")
                source.owed = wire.COUNT.unpack(owed)[0]
        if any(source.fd >= 0 for source in self._sources.values()):
            self._timer = self._loop.call_later(GRACE_NS, self._finish_if_over)
        self._finish_if_over()

    def close(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        for source in self._sources.values():
            self._close(source)

    def _watch(self, number: int) -> None:
        source = self._sources[number]
        if source.fd >= 0 and source.credit > 0:
            watch = self._loop.watch_always if self._always else self._loop.watch_source
            watch(source.fd, lambda _events: self._on_readable(number))

    def _on_readable(self, number: int) -> None:
        source = self._sources[number]
        try:
            data = os.read(source.fd, min(PIECE_SIZE, source.credit))
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: nobody has the terminal open any more
        if not data:
            self._close(source)
            self._finish_if_over()
            return
        source.credit -= len(data)
        source.owed -= len(data)
        self._on_data(number, data)
        if source.credit == 0:
            self._loop.unwatch_source(source.fd)
        if self._ended_ns:
            self._finish_if_over()

    def _close(self, source: _Source) -> None:
        if source.fd >= 0:
            if self._always:
                self._loop.unwatch(source.fd)
            else:
                self._loop.unwatch_source(source.fd)
            os.close(source.fd)
            source.fd = -1

    def _finish_if_over(self) -> None:
        if not self._ended_ns:
            return
        if time.monotonic_ns() - self._ended_ns >= GRACE_NS:
            for source in self._sources.values():
                if source.owed <= 0:
                    self._close(source)
        if any(source.fd >= 0 for source in self._sources.values()):
            return
        self.close()
        self._on_over()
