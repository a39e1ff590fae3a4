"""Limits on the cost of listening to a guest: bursts, a sustained rate, and a small allowance for unrequested frames.

The sender decides how many frames its bytes are cut into, and each frame takes time of the event loop that all guests
share. No I/O, and no clock of its own.
"""

from __future__ import annotations

from typing import Final

from vmm.guest.agent import wire

SLICE: Final = 2048
"""Bytes decoded in one go, not counting the rest of a frame: 227 frames of the smallest kind, a third of a millisecond.
"""

FRAMES_AT_ONCE: Final = 512
FRAMES_PER_S: Final = 5000
"""A guest that answers 256 commands at a time stays below both limits. A guest that exceeds them is read more slowly:
its output waits on its side, and costs the loop a hundredth of its time."""

_FREE_SIZE: Final = 1024
"""One frame per this many bytes is free, so output and files are never slowed down."""

MAX_PIECES: Final = 1024
"""The most pieces of one message. An honest sender rarely has to cut a message, and then into few pieces."""

MAX_STREAMS: Final = 256
"""The most streams that an agent has open at a time."""

_LATE_DATA: Final = 2 * wire.WINDOW
_LATE_FRAMES: Final = 8
"""Frames that may still arrive for one cancelled stream: data up to the credit of both outputs, a reply, an end, and
the credit for a window of input, which comes in quarters."""

_STRAY_FRAMES: Final = 64
"""Other unrequested frames allowed per session. The only known honest one is a second answer to a repeated hello."""


class Pace:
    """Limits how fast a channel is read. Slow senders are not delayed."""

    def __init__(self, *, at_once: int = FRAMES_AT_ONCE, per_s: float = FRAMES_PER_S) -> None:
        self._at_once = at_once
        self._per_s = per_s
        self._left = float(at_once)
        self._seen = 0.0

    def spend(self, frames: int, *, size: int, now: float) -> float:
        """Accounts for `frames` found in `size` bytes at time `now`, in seconds of a monotonic clock. Returns the
        seconds for which nothing more may be read; mostly 0.
        """
        self._left = min(self._at_once, self._left + (now - self._seen) * self._per_s)
        self._seen = now
        self._left -= max(0, frames - size // _FREE_SIZE)
        return max(0.0, -self._left / self._per_s)


class Unwanted:
    """How many unrequested frames may still arrive. Some are honest: they were sent before their stream was closed."""

    def __init__(self, *, streams: int = 0) -> None:
        """`streams`: number of streams cancelled by an earlier session."""
        self._frames = _STRAY_FRAMES
        self._data = 0
        self.expect(streams)

    def expect(self, streams: int) -> None:
        """Allows for the late frames of this many cancelled streams."""
        self._frames += streams * _LATE_FRAMES
        self._data += streams * _LATE_DATA

    def take(self, data: int) -> bool:
        """Accounts for one frame with `data` bytes of output, 0 for others. Returns whether it was within limits."""
        if data:
            self._data -= data
        else:
            self._frames -= 1
        return self._data >= 0 and self._frames >= 0
