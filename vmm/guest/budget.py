"""What it may cost to listen to a guest: so much at once, so much in the long run, and little of what is of no use.

Who speaks decides into how many frames its bytes are cut, and each takes time of the loop that everybody shares. No
I/O, and no clock of its own.
"""

from __future__ import annotations

from typing import Final

from vmm.guest.agent import wire

SLICE: Final = 2048
"""Bytes that are decoded in one go, beside the rest of a frame: 227 frames of the smallest kind, a third of a
millisecond."""

FRAMES_AT_ONCE: Final = 512
FRAMES_PER_S: Final = 5000
"""A guest that answers 256 commands at a time stays below both. One that does not is read from more slowly: what it
says waits on its side, and costs the loop a hundredth of its time."""

_FREE_SIZE: Final = 1024
"""One frame in so many bytes costs nothing more: output and files are as fast as can be."""

MAX_PIECES: Final = 1024
"""Of one message. Some are cut where nobody could help it; these are short."""

MAX_STREAMS: Final = 256
"""That an agent has at a time."""

_LATE_DATA: Final = 2 * wire.WINDOW
_LATE_FRAMES: Final = 8
"""Of one stream that was cancelled, on their way: what both outputs had credit for; a reply, an end, and the credit for
a window of input, which comes by quarters."""

_STRAY_FRAMES: Final = 64
"""In a whole session, for no reason at all: the answer to a hello that was said twice is the only one that is known."""


class Pace:
    """How fast a channel is read. Of what comes slowly nothing is held up."""

    def __init__(self, *, at_once: int = FRAMES_AT_ONCE, per_s: float = FRAMES_PER_S) -> None:
        self._at_once = at_once
        self._per_s = per_s
        self._left = float(at_once)
        self._seen = 0.0

    def spend(self, frames: int, *, size: int, now: float) -> float:
        """Accounts for frames that were found in `size` bytes at time `now`, in seconds of a clock that never goes
        back. Returns for how many seconds nothing more may be read; mostly 0.
        """
        self._left = min(self._at_once, self._left + (now - self._seen) * self._per_s)
        self._seen = now
        self._left -= max(0, frames - size // _FREE_SIZE)
        return max(0.0, -self._left / self._per_s)


class Unwanted:
    """How much more may come that nobody waits for. Some is honest: it was on its way when its stream was closed."""

    def __init__(self, *, streams: int = 0) -> None:
        """`streams`: cancelled by somebody before us."""
        self._frames = _STRAY_FRAMES
        self._data = 0
        self.expect(streams)

    def expect(self, streams: int) -> None:
        """So many were cancelled."""
        self._frames += streams * _LATE_FRAMES
        self._data += streams * _LATE_DATA

    def take(self, data: int) -> bool:
        """Accounts for one frame with so many bytes of output, or none. Whether there may be more such."""
        if data:
            self._data -= data
        else:
            self._frames -= 1
        return self._data >= 0 and self._frames >= 0
