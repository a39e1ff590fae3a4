"""Processes killed by the guest's kernel for lack of memory, read by pid from the kernel's log."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KMSG = "/dev/kmsg"

_READ_BYTES = 8192
"""No record is longer; the kernel returns one per read."""

_KILLED = b"Killed process "
_CLOCKS_APART_US = 1_000_000
"""The most by which the log's clock and CLOCK_MONOTONIC differ."""

_REMEMBERED = 64


class Kills:
    """OOM kills that the log reports. Opened early: when memory is short, opening it may fail."""

    def __init__(self, path: str = KMSG) -> None:
        """If the log cannot be opened, or can no longer be read, no further kills are known."""
        self._seen: list[tuple[int, int]] = []  # (microseconds, pid)
        try:
            self._log = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._log = -1

    def ended(self, pid: int, exit_code: int, *, began_ns: int) -> bool:
        """Whether a command that began at that time of CLOCK_MONOTONIC ended because of an OOM kill: either its own, or
        one of a descendant, which a shell reports in its exit status.
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
                    continue  # not the kernel's: root may write to the log
        del self._seen[:-_REMEMBERED]

    def _lines(self) -> Iterator[bytes]:
        while self._log >= 0:
            try:
                data = os.read(self._log, _READ_BYTES)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # overwritten before it was read; the next record is available
            except OSError:
                self.close()  # the log can no longer be read
                return
            if not data:
                return
            yield from data.splitlines()
