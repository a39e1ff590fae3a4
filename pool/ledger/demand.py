"""The size of a pool, learnt from the arrivals: each one shows which size would have had a VM for it.

A pool of `n` VMs starts a production for every VM that it hands out, so an arrival finds a ready VM exactly if fewer
than `n` productions are outstanding. That number is known without the pool: it follows from the arrivals, the duration
of a production and the limit of simultaneous productions. The wanted size is then a quantile of the sizes that recent
arrivals needed. If the arrivals are too few to show that quantile, they are presumed to be Poisson, and the quantile is
computed.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Final

import attrs

SLOTS: Final = 6
"""Parts of the window, forgotten one at a time: more of them forget more evenly and wake the ledger more often."""

FIRST_GUESS_S: Final = 10.0
"""Assumed duration of a production until the first has ended: that of a slow boot. The guess matters only to a burst
at the beginning, which a smaller guess would miss."""

LEARNING: Final = 1 / 8
"""Weight of the latest production in the mean duration, as TCP weights a round trip. One slow boot among many should
not resize the pool, and a host that has become slow is detected after a dozen. As long as productions do not queue, the
number of outstanding ones depends only on the mean of their durations (Palm's theorem)."""


@attrs.frozen(kw_only=True)
class AdaptiveSize:
    """Settings of a pool whose size follows the demand."""

    minimum: int = attrs.field(default=1, validator=attrs.validators.ge(0))
    """The size without demand. With 0 the first caller after a quiet time waits for a production."""
    maximum: int = attrs.field(validator=attrs.validators.ge(1))
    """The largest size that the host can bear, as its operator knows."""
    target_hit_rate: float = attrs.field(default=0.99, validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)])
    """The part of the arrivals within the window that should have found a ready VM. Beyond 0.99 the few deepest
    bursts determine the size."""
    window_s: float = attrs.field(default=900.0, validator=attrs.validators.gt(0.0))
    """How long an arrival counts, and so how long an unused VM is kept. The pool is prepared for a burst that comes
    back within this time. FaaS platforms keep an instance for 10 to 20 minutes."""
    hold_s: float = attrs.field(default=180.0, validator=attrs.validators.gt(0.0))
    """The size falls by one when it was more than needed for so long at a stretch. That bounds the churn whatever the
    load: no more than 3600 / `hold_s` steps down an hour. Longer holds swing less and lag more behind a load that has
    gone; with 180 s a steady load swings a few times an hour by one."""

    @maximum.validator
    def _maximum_is_not_below(self, _: attrs.Attribute[int], maximum: int) -> None:
        if maximum < self.minimum:
            raise ValueError(f"'maximum' {maximum} is less than minimum ({self.minimum}); raise maximum")


@attrs.define(eq=False, kw_only=True)
class _Needs:
    """The sizes that recent arrivals needed, and the smallest size that meets the target hit rate.

    `enough` is adjusted, not searched: an arrival moves it by a step or two.
    """

    target_hit_rate: float
    slot_s: float
    enough: int = attrs.field(default=0, init=False)
    total: int = attrs.field(default=0, init=False)
    """Arrivals that count."""
    _beyond: int = attrs.field(default=0, init=False)
    """Arrivals that needed more than `enough`."""
    _counts: Counter[int] = attrs.field(factory=Counter, init=False)
    """Needed size to arrivals, of all slots."""
    _slots: deque[Counter[int]] = attrs.field(factory=deque, init=False)
    """Oldest first; the last one is being filled. Empty while there are no arrivals."""
    slot_ends_at: float = attrs.field(default=math.inf, init=False)

    def add(self, needed: int, *, now: float) -> None:
        if not self._slots:
            self._slots.append(Counter())
            self.slot_ends_at = now + self.slot_s
        self._slots[-1][needed] += 1
        self._counts[needed] += 1
        self.total += 1
        self._beyond += needed > self.enough
        self._settle()

    def next_slot(self) -> None:
        """Begins a new slot. An arrival is forgotten `SLOTS` slots after its own."""
        self._slots.append(Counter())
        self.slot_ends_at += self.slot_s
        if len(self._slots) > SLOTS + 1:
            for needed, arrivals in self._slots.popleft().items():
                self._counts[needed] -= arrivals
                self.total -= arrivals
                self._beyond -= arrivals * (needed > self.enough)
        if not self.total:
            self._slots.clear()
            self.slot_ends_at = math.inf
        self._settle()

    def covered_s(self) -> float:
        """Total duration of the completed slots."""
        return (len(self._slots) - 1) * self.slot_s

    def _settle(self) -> None:
        may_miss = math.floor((1.0 - self.target_hit_rate) * self.total)
        while self._beyond > may_miss:
            self.enough += 1
            self._beyond -= self._counts[self.enough]
        while self.enough and self._beyond + self._counts[self.enough] <= may_miss:
            self._beyond += self._counts[self.enough]
            self.enough -= 1


@attrs.define(eq=False, kw_only=True)
class Demand:
    """One profile's demand, and the size to meet it. Times are seconds on a monotonic clock.

    The results depend only on the events and `now`, not on how often or how late the methods are called.
    """

    policy: AdaptiveSize
    production_limit: int
    """The limit of simultaneous productions."""
    _size: int = attrs.field(init=False)
    _too_many_since: float = attrs.field(default=math.inf, init=False)
    """Since when, or since which step down, the size exceeds the need; infinity if it does not."""
    _production_s: float | None = attrs.field(default=None, init=False)
    _outstanding: deque[float] = attrs.field(factory=deque, init=False)
    """When the outstanding productions of a pool of any size would end; at most `maximum` entries."""
    _needs: _Needs = attrs.field(init=False)
    _presumed: int = attrs.field(default=0, init=False)
    """The size needed for few arrivals, presumed to be Poisson; 0 without arrivals, or with enough of them."""

    def __attrs_post_init__(self) -> None:
        self._size = self.policy.minimum
        self._needs = _Needs(target_hit_rate=self.policy.target_hit_rate, slot_s=self.policy.window_s / SLOTS)

    def arrived(self, now: float) -> None:
        """Counts a request for a VM, whether one is ready or not. The size may grow."""
        self._pass_time(now)
        self._needs.add(self._draw(now), now=now)
        self._size = max(self._size, self._needed())
        self._note_surplus(now)

    def produced(self, production_s: float, now: float) -> None:
        """Counts a successful production and its duration, queueing excluded."""
        self._pass_time(now)
        before = production_s if self._production_s is None else self._production_s
        self._production_s = before + LEARNING * (production_s - before)

    def size(self, now: float) -> int:
        """The number of VMs that the pool should have now, ready and in production."""
        self._pass_time(now)
        return self._size

    def next_review(self, now: float) -> float:
        """When the size could change without an arrival; infinity if it cannot. Always later than `now`."""
        self._pass_time(now)
        return math.inf if self._size == self.policy.minimum else self._next_change()

    def _next_change(self) -> float:
        return min(self._needs.slot_ends_at, self._too_many_since + self.policy.hold_s)

    def _pass_time(self, now: float) -> None:
        """Processes all changes that have become due, at the times they were due."""
        while (due := self._next_change()) <= now:
            if due == self._needs.slot_ends_at:
                self._needs.next_slot()
                self._presumed = self._presume()
            else:
                self._size -= 1
                self._too_many_since = math.inf
            self._note_surplus(due)

    def _needed(self) -> int:
        return max(self.policy.minimum, self._needs.enough, self._presumed)

    def _presume(self) -> int:
        """The Poisson size. One arrival more or less within the window, as under a steady load, does not change it."""
        arrivals = self._needs.total
        if not arrivals or arrivals + (not self._presumed) >= 1 / (1 - self.policy.target_hit_rate):
            return 0
        outstanding_each = self._lasts() / self._needs.covered_s()
        at_least = self._base_stock(arrivals * outstanding_each)
        at_most = self._base_stock((arrivals + 1) * outstanding_each)
        return min(max(self._presumed, at_least), at_most)

    def _base_stock(self, outstanding: float) -> int:
        """The smallest size that meets the target under Poisson demand, with `outstanding` productions on average."""
        size, term = 1, math.exp(-outstanding)
        served = term
        while served < self.policy.target_hit_rate and size < self.policy.maximum:
            term *= outstanding / size
            served += term
            size += 1
        return size

    def _lasts(self) -> float:
        return FIRST_GUESS_S if self._production_s is None else self._production_s

    def _note_surplus(self, now: float) -> None:
        """Updates the time since which the size exceeds the need. Only arrivals raise the size."""
        if self._needed() >= self._size:
            self._too_many_since = math.inf
        elif self._too_many_since == math.inf:
            self._too_many_since = now

    def _draw(self, now: float) -> int:
        """Simulates an arrival, which takes a VM and starts a production. Returns the size that it needed."""
        line = self._outstanding
        while line and line[0] <= now:
            line.popleft()
        needed = len(line) + 1
        if needed <= self.policy.maximum:
            begins = max(now, line[-self.production_limit]) if len(line) >= self.production_limit else now
            line.append(begins + self._lasts())
        return min(needed, self.policy.maximum)
