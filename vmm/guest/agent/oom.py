"""What the guest's kernel killed because memory was short: it says so in its log, by pid."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KMSG = "/dev/kmsg"
"""One opens it at the oldest record that is left."""

_READ_BYTES = 8192
"""No record is longer; the kernel gives one at a time."""

_KILLED = b"Killed process "
_CLOCKS_APART_US = 1_000_000
"""The log has a clock of its own; the two were set apart by no more than this."""


def killed_since(began_ns: int) -> Iterator[int]:
    """The pids of those that were killed since that time of CLOCK_MONOTONIC, as far back as the log goes. No log that
    can be read, none.
    """
    try:
        log = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for line in _lines(log):
            head, _, text = line.partition(b";")
            before, killed, after = text.partition(_KILLED)
            if killed and b"ut of memory" in before and int(head.split(b",")[2]) + _CLOCKS_APART_US >= began_ns // 1000:
                yield int(after.split(b" ", 1)[0])
    finally:
        os.close(log)


def _lines(log: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(log, _READ_BYTES)
        except BlockingIOError:
            return
        except BrokenPipeError:
            continue  # overwritten while we read; the next one is there
        if not data:
            return
        yield from data.splitlines()


def ended_by_it(pid: int, exit_code: int, *, began_ns: int) -> bool:
    """Whether a command that began then ended for that: killed itself, or with the status by which a shell says that
    what it ran was killed, if anything was.
    """
    if exit_code not in (-9, 128 + 9):
        return False
    return any(exit_code > 0 or killed == pid for killed in killed_since(began_ns))
