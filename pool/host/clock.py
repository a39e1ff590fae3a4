"""Trio's clock as the service has it: time in which its loop stood still does not count.

A process that was stopped (SIGSTOP, a debugger, a frozen cgroup), or that a busy host did not run, finds the deadlines
of everything passed when it goes on, and the answers that it waited for unread in its sockets. What it was waiting for
is not late; it is. So no time passes for it meanwhile, for a deadline of any kind, and none for a moment afterwards.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import attrs
import trio

T = TypeVar("T")

LOOK_EACH_S: Final = 0.25
"""The loop never waits longer than this, so that a longer pause is not its own."""

STANDSTILL_S: Final = 0.5
"""What lies between two looks at the clock, if it is more than this, was a standstill: tasks of ours take milliseconds.
Shorter ones count; no time limit that ends something is as short."""

GRACE_S: Final = 0.25
"""Of running, after a standstill, before time goes on: what lies in the sockets is read and answered first.

One standstill and its grace are free once as much time as a standstill is long has counted since the last free one.
Until then standstills count as STANDSTILL_S, or a host that is late again and again would stop time for good.
"""


def _somewhere() -> float:
    return random.uniform(10_000, 1_000_000)  # noqa: S311 - as trio's does: nobody shall take it for another clock


@attrs.define(eq=False)
class RunningClock(trio.abc.Clock):
    """Fulfils `trio.abc.Clock`. It goes as fast as the kernel's monotonic clock, and stands when the loop does."""

    read: Callable[[], float] = time.perf_counter
    """Seconds on a clock that goes on."""
    _now: float = attrs.field(factory=_somewhere, init=False)
    _seen: float = attrs.field(default=attrs.Factory(lambda self: self.read(), takes_self=True), init=False)
    """When somebody looked last, on the clock that goes on."""
    _goes_on_at: float = attrs.field(default=0.0, init=False)
    """Until then it stands, on the same clock."""
    _counted_s: float = attrs.field(default=STANDSTILL_S, init=False)
    """How much time passed since the last standstill that was free."""
    _stood_s: float = attrs.field(default=0.0, init=False)

    @property
    def stood_s(self) -> float:
        """For how long the loop has stood still, in all."""
        return self._stood_s

    def start_clock(self) -> None:
        """Trio's, at the start of the run."""
        self._seen = self.read()

    def current_time(self) -> float:
        """Seconds since some moment of no meaning."""
        at, before = self.read(), self._seen
        self._seen = at
        stood = at - before > STANDSTILL_S
        if stood:
            self._stood_s += at - before
        if stood and self._counted_s >= STANDSTILL_S:
            self._goes_on_at = at + GRACE_S
            self._counted_s = 0.0
        else:
            passed_s = min(max(0.0, at - max(before, self._goes_on_at)), STANDSTILL_S)
            self._counted_s += passed_s
            self._now += passed_s
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio's: how long the loop may wait."""
        left_s = deadline - self.current_time()
        if left_s <= 0:
            return 0.0
        return min(left_s + max(0.0, self._goes_on_at - self._seen), LOOK_EACH_S)


def run(main: Callable[[], Awaitable[T]]) -> T:
    """`trio.run` on such a clock, for what ends VMs and templates when their time is over."""
    return trio.run(main, clock=RunningClock())
