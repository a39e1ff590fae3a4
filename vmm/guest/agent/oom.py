"""What the guest's kernel killed because memory was short: it says so in its log, by pid."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KMSG = "/dev/kmsg"

_READ_BYTES = 8192
"""No record is longer; the kernel gives one at a time."""

_KILLED = b"Killed process "
_CLOCKS_APART_US = 1_000_000
"""The log has a clock of its own; the two were set apart by no more than this."""

_REMEMBERED = 64


class Kills:
    """Those that the log tells of. It is opened at once: when memory is short, there may be none to open it with."""

    def __init__(self, path: str = KMSG) -> None:
        """Where there is no log that can be read, or from when on it cannot, none are known."""
        self._seen: list[tuple[int, int]] = []  # (microseconds, pid)
        try:
            self._log = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._log = -1

    def ended(self, pid: int, exit_code: int, *, began_ns: int) -> bool:
        """Whether a command ended for that which began at that time of CLOCK_MONOTONIC: was killed itself, or has the
        status by which a shell says that what it ran was killed, if anything was.
        """
        if exit_code not in (-9, 128 + 9):
            return False
        self._read()
        since = began_ns // 1000 - _CLOCKS_APART_US
        return any(when >= since and (exit_code > 0 or killed == pid) for when, killed in self._seen)

    def close(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def _read(self) -> None:
        for line in self._lines():
            head, _, text = line.partition(b";")
            before, killed, after = text.partition(_KILLED)
            if killed and b"ut of memory" in before:
                try:
                    self._seen.append((int(head.split(b",")[2]), int(after.split(b" ", 1)[0])))
                except (ValueError, IndexError):
                    continue  # somebody else's words: root may write to the log
        del self._seen[:-_REMEMBERED]

    def _lines(self) -> Iterator[bytes]:
        while self._log >= 0:
            try:
                data = os.read(self._log, _READ_BYTES)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # overwritten before it was read; the next one is there
            except OSError:
                self.close()  # the kernel gives no more of it
                return
            if not data:
                return
            yield from data.splitlines()
