"""How much a QEMU may say on its monitor without being asked, before that is no QEMU's way to talk.

There are events that a guest can cause as often as it likes, such as ACPI_DEVICE_OST with a write to a port of its
machine, and a QEMU that its guest has taken over says anything. No I/O, and no clock of its own.
"""

from __future__ import annotations

from typing import Final

AT_ONCE: Final = 2000
PER_S: Final = 20
"""Lines and KiB together. The most that is known to come unasked is an event for each CPU and block of memory that is
added at a hand-out; after that it is seconds from one to the next, or hours."""

_ANSWER: Final = 256
"""Of one command. The longest, of a machine with hundreds of CPUs, takes a quarter of it."""


class Allowance:
    def __init__(self) -> None:
        self._left = float(AT_ONCE)
        self._seen = 0.0

    def asked(self) -> None:
        """A command was sent: an answer will come."""
        self._left = min(AT_ONCE, self._left + _ANSWER)

    def spend(self, lines: int, *, size: int, now: float) -> bool:
        """Accounts for lines that ended in `size` bytes at time `now`, in seconds of a clock that never goes back.
        Whether it may go on like this.
        """
        self._left = min(AT_ONCE, self._left + (now - self._seen) * PER_S)
        self._seen = now
        self._left -= lines + size / 1024
        return self._left >= 0
