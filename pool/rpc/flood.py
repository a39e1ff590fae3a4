"""How much an HTTP/2 client may send that serves nothing: a budget that refills with time and with useful work.

One unit is what a cheap frame costs the service, some 15 us. What carries a request costs nothing here: calls have
limits of their own, and data have windows. The figures are made for honest clients, which stay far below them:

- grpcio and grpc-go send a PING every ten seconds at most while nothing happens. While output comes they may send one
  in each round trip, to learn the bandwidth, and two WINDOW_UPDATEs for each DATA frame: each message that is sent to a
  client earns more than that.
- SETTINGS come once or twice, and each of ours is acknowledged.
- A client that loses patience resets its calls, at most the 100 that it may have open; a program that polls with a
  timeout of its own of a tenth of a second, from ten threads, resets 100 a second. A call that was answered may be
  reset at no cost, and one with a deadline is answered in time. (nghttp2's servers allow 1000 at once and 33 a second.)
"""

from __future__ import annotations

from typing import Final

import attrs

from pool.rpc.frames import DATA, END_STREAM, HEADERS, SETTINGS, FrameHead

CAPACITY: Final = 3000
"""Of a connection: 600 calls that are reset at once, 45 ms of work if it is all wasted."""

REFILL_PER_S: Final = 500

USER_CAPACITY: Final = 20_000
"""Of all connections that one user opens, so that nothing is won by opening another one."""

USER_REFILL_PER_S: Final = 5000
"""A tenth of a CPU."""

CONNECT: Final = 10
"""A connection is opened. Its first answered call earns that back."""

RESET: Final = 5
"""A call that was begun, and is reset before it has an answer: a task that started in vain."""

ANSWERED: Final = 15
"""Earned by a call that gets its status."""

SENT: Final = 4
"""Earned by each frame of a message that is sent: up to two WINDOW_UPDATEs, a PING, and one to spare."""

MESSAGE_BYTES_PER_FRAME: Final = 16 * 1024

MIN_DATA_BYTES: Final = 5
"""A message's header. Who sends less in a frame, without an end, makes work and no progress."""

SETTING_BYTES: Final = 6


@attrs.define(eq=False, kw_only=True)
class TokenBucket:
    """What is left, and since when. It may be overdrawn by its capacity, so that who overdraws it waits for long."""

    capacity: float = CAPACITY
    refill_per_s: float = REFILL_PER_S
    _left: float = attrs.field(init=False)
    _at: float | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.capacity

    def charge(self, cost: float, *, now: float) -> bool:
        """Whether there was so much. `now` is any clock's time in seconds, the same one in each call."""
        if self._at is not None:
            self._left = min(self.capacity, self._left + (now - self._at) * self.refill_per_s)
        self._at = now
        self._left = max(self._left - cost, -self.capacity)
        return self._left >= 0

    def earn(self, credit: float) -> None:
        """Useful work was done. Never more than the capacity is kept."""
        self._left = min(self.capacity, self._left + credit)

    def is_whole(self, *, now: float) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return self.charge(0, now=now) and self._left >= self.capacity


def cost(head: FrameHead) -> int:
    """Of one frame, in units, as far as it can be told from its head."""
    if head.kind == DATA:
        return int(head.size < MIN_DATA_BYTES and not head.flags & END_STREAM)
    if head.kind == HEADERS:
        return 0  # RESET, if it was for nothing
    if head.kind == SETTINGS:
        return 1 + head.size // SETTING_BYTES
    return 1


def earned_by(message_bytes: int) -> int:
    """By a message of so many bytes that is sent to the client."""
    return SENT * (1 + message_bytes // MESSAGE_BYTES_PER_FRAME)
