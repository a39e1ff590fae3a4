"""The budget for useless HTTP/2 frames of a client, which refills with time and with useful work.

One unit is the cost of a cheap frame to the service, about 15 us. Frames that carry requests are free: calls have
limits of their own, and data have windows. Honest clients stay far below these figures:

- grpcio and grpc-go send at most one PING every ten seconds while idle. While output arrives, they may send one PING in
  each round trip, to measure the bandwidth, and two WINDOW_UPDATEs for each DATA frame: each message that is sent to a
  client earns more than that.
- SETTINGS are sent once or twice, and each frame of the service's is acknowledged.
- A client that gives up resets its calls, at most the 100 that it may have open; a program that polls from ten threads
  with its own timeout of a tenth of a second resets 100 a second. Resetting an answered call is free, and a call with a
  deadline is answered in time. (nghttp2's servers allow 1000 at once and 33 a second.)
"""

from __future__ import annotations

from typing import Final

import attrs

from pool.rpc.frames import DATA, END_STREAM, HEADERS, SETTINGS, FrameHead

CAPACITY: Final = 3000
"""Units of one connection: 600 calls that are reset at once, 45 ms of wasted work."""

REFILL_PER_S: Final = 500

USER_CAPACITY: Final = 20_000
"""Units of all connections of one user, so that opening another connection gains nothing."""

USER_REFILL_PER_S: Final = 5000
"""A tenth of a CPU."""

CONNECT: Final = 10
"""Cost of opening a connection. Its first answered call earns that back."""

RESET: Final = 5
"""Cost of a call that is reset before it is answered: a task was started in vain."""

ANSWERED: Final = 15
"""Earned by a call that gets its status."""

SENT: Final = 4
"""Earned by each frame of a message that is sent: up to two WINDOW_UPDATEs, a PING, and one to spare."""

MESSAGE_BYTES_PER_FRAME: Final = 16 * 1024

MIN_DATA_BYTES: Final = 5
"""The size of a message's header. A smaller DATA frame that does not end the stream makes work and no progress."""

SETTING_BYTES: Final = 6


@attrs.define(eq=False, kw_only=True)
class TokenBucket:
    """Units left, and since when. It may be overdrawn by its capacity, so that a client who overdraws it waits long."""

    capacity: float = CAPACITY
    refill_per_s: float = REFILL_PER_S
    _left: float = attrs.field(init=False)
    _at: float | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.capacity

    def charge(self, cost: float, *, now: float) -> bool:
        """Whether enough units were left. `now` is in seconds, on the same clock in each call."""
        if self._at is not None:
            self._left = min(self.capacity, self._left + (now - self._at) * self.refill_per_s)
        self._at = now
        self._left = max(self._left - cost, -self.capacity)
        return self._left >= 0

    def earn(self, credit: float) -> None:
        """Adds units for useful work, up to the capacity."""
        self._left = min(self.capacity, self._left + credit)

    def is_whole(self, *, now: float) -> bool:
        """Whether it is full, so that it can be forgotten."""
        return self.charge(0, now=now) and self._left >= self.capacity


def cost(head: FrameHead) -> int:
    """Units for one frame, as far as its head shows."""
    if head.kind == DATA:
        return int(head.size < MIN_DATA_BYTES and not head.flags & END_STREAM)
    if head.kind == HEADERS:
        return 0  # RESET is charged if the call is reset
    if head.kind == SETTINGS:
        return 1 + head.size // SETTING_BYTES
    return 1


def earned_by(message_bytes: int) -> int:
    """Units for a message of so many bytes that is sent to the client."""
    return SENT * (1 + message_bytes // MESSAGE_BYTES_PER_FRAME)
