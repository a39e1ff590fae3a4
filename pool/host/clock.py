"""The service's clock for trio: time in which the event loop stood still does not count.

A process that was stopped (SIGSTOP, a debugger, a frozen cgroup), or that a busy host did not run, would find all its
deadlines passed when it goes on, while the answers lie unread in its sockets: the process is late, not its peers. So
this clock stands during such a standstill and for a moment afterwards.
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
"""The longest time that the loop waits at once, so that a longer pause must be a standstill."""

STANDSTILL_S: Final = 0.5
"""A longer time between two readings of the clock was a standstill: the service's tasks take milliseconds. Shorter
pauses count as time; all time limits that end something are longer."""

GRACE_S: Final = 0.25
"""How long the loop runs after a standstill before time goes on, so that unread answers are handled first.

A standstill and its grace are free only if STANDSTILL_S of time have counted since the last free one. Otherwise a
standstill counts as STANDSTILL_S: on a host that is late again and again, time would never go on.
"""


def _somewhere() -> float:
    return random.uniform(10_000, 1_000_000)  # noqa: S311 - as in trio, so that nothing mistakes it for another clock


@attrs.define(eq=False)
class RunningClock(trio.abc.Clock):
    """Fulfils `trio.abc.Clock`. Runs at the rate of the kernel's monotonic clock, and stands when the loop does."""

    read: Callable[[], float] = time.perf_counter
    """Seconds on a clock that never stands."""
    _now: float = attrs.field(factory=_somewhere, init=False)
    _seen: float = attrs.field(default=attrs.Factory(lambda self: self.read(), takes_self=True), init=False)
    """The last reading of that clock."""
    _goes_on_at: float = attrs.field(default=0.0, init=False)
    """When this clock goes on after a standstill, on that clock."""
    _counted_s: float = attrs.field(default=STANDSTILL_S, init=False)
    """Time counted since the last free standstill."""
    _stood_s: float = attrs.field(default=0.0, init=False)

    @property
    def stood_s(self) -> float:
        """Total time in which the loop stood still."""
        return self._stood_s

    def start_clock(self) -> None:
        """Called by trio at the start of the run."""
        self._seen = self.read()

    def current_time(self) -> float:
        """Seconds since an arbitrary moment."""
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
        """How long the loop may wait, for trio."""
        left_s = deadline - self.current_time()
        if left_s <= 0:
            return 0.0
        return min(left_s + max(0.0, self._goes_on_at - self._seen), LOOK_EACH_S)


def run(main: Callable[[], Awaitable[T]]) -> T:
    """`trio.run` on this clock, for programs that end VMs and templates by time limits."""
    return trio.run(main, clock=RunningClock())
