"""Log output to stderr that never waits for a reader."""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Callable
from typing import Final, Protocol

MAX_PENDING_BYTES: Final = 64 * 1024
"""Of lines that are not written yet; a pipe holds as much. Further lines are dropped, and counted."""


class LogOutput:
    """The file that structlog and the logging module write to.

    A pipe, terminal or socket that takes no more bytes keeps up to MAX_PENDING_BYTES waiting; lines after that are
    dropped. When it takes bytes again, the next line says how many were. A log that cannot be written at all (broken
    pipe, full disk, closed) is lost; the leases of a service are not.
    """

    def __init__(self, descriptor: int, *, tell: Callable[[int], str]) -> None:
        """`descriptor` is not closed or changed: other processes may share it.

        `tell` makes the line that reports the number of dropped lines.
        """
        self._sink = _sink_for(descriptor)
        self._tell = tell
        self._pending = bytearray()
        self.dropped = 0
        """Dropped lines since the last report of them."""

    def write(self, text: str) -> int:
        """Takes one line, or several, whole. Returns their length, as files do."""
        line = text.encode(errors="backslashreplace")
        self._drain()
        if self.dropped and not self._pending:
            self._pending += self._tell(self.dropped).encode()
            self.dropped = 0
        if self._pending and len(self._pending) + len(line) > MAX_PENDING_BYTES:
            self.dropped += 1
        else:
            self._pending += line
            self._drain()
        return len(text)

    def flush(self) -> None:
        """Writes what can be written now."""
        self._drain()

    def close(self) -> None:
        """Drops pending lines, and closes what was opened here."""
        self._pending.clear()
        self._sink.close()
        self._sink = _Nowhere()

    def _drain(self) -> None:
        try:
            while self._pending:
                del self._pending[: self._sink.write(self._pending)]
        except BlockingIOError:
            return
        except OSError:
            self._pending.clear()


class _Sink(Protocol):
    def write(self, data: bytes | bytearray) -> int:
        """Writes some of `data`. Raises BlockingIOError if it would have to wait."""

    def close(self) -> None: ...


def _sink_for(descriptor: int) -> _Sink:
    try:
        kind = os.fstat(descriptor).st_mode
    except OSError:
        return _Nowhere()
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        with contextlib.suppress(OSError):  # for example, it belongs to another user
            return _Reopened(descriptor)
    return _File(descriptor) if stat.S_ISREG(kind) else _Polled(descriptor)


class _File:
    """A file is always ready."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes | bytearray) -> int:
        return os.write(self._descriptor, data)

    def close(self) -> None:
        """The descriptor belongs to its owner."""


class _Reopened(_File):
    """The same pipe or terminal with a mode of its own: others share the original's, and do not expect O_NONBLOCK."""

    def __init__(self, descriptor: int) -> None:
        path = f"/proc/self/fd/{descriptor}"
        super().__init__(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))

    def close(self) -> None:
        os.close(self._descriptor)


class _Polled(_File):
    """A socket, as systemd provides, or a file that cannot be reopened.

    If `poll` reports room, PIPE_BUF bytes can be written at once, unless another process writes in between.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, data: bytes | bytearray) -> int:
        if not self._poll.poll(0):
            raise BlockingIOError
        return super().write(data[: select.PIPE_BUF])


class _Nowhere:
    def write(self, data: bytes | bytearray) -> int:
        return len(data)

    def close(self) -> None: ...
