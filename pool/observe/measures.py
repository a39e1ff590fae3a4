"""The measures behind the metrics: few labels, none of them from callers, and cheap enough for every hand-out.

`pool.observe.exposition` writes them in Prometheus' format, and is imported on demand.
"""

from __future__ import annotations

import bisect
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from typing import Final

import attrs
import trio

from pool.ledger.news import LeaseNews, News, ProfileNews, VmNews
from pool.ledger.reasons import LOSSES, StopReason
from pool.ledger.records import Lease
from vmm.words.life import VmState

BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds. A hand-out takes milliseconds, a boot under emulation seconds."""

CUSTOM: Final = "custom"
"""The label of all that has no configured profile: callers' own configurations, unknown names."""

GRANTED: Final = "granted"
JOINED: Final = "joined"
"""The request got an existing lease by its idempotency key."""
ABANDONED: Final = "abandoned"
"""The caller went away before the answer. Every other result is a `RefusalCode`."""

LAG_INTERVAL_S: Final = 1.0


@attrs.define(eq=False)
class Histogram:
    counts: list[int] = attrs.field(factory=lambda: [0] * (len(BUCKETS_S) + 1), init=False)
    """By bucket, not cumulated; the last is for values above all bounds."""
    total_s: float = attrs.field(default=0.0, init=False)

    def observe(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds


Labels = tuple[str, ...]


@attrs.define(eq=False, kw_only=True)
class Measures:
    """Since the service started. Each key is the values of the labels, the profile first."""

    profiles: Collection[str]
    """Those that are configured."""
    acquires: Counter[Labels] = attrs.field(factory=Counter, init=False)
    """By result."""
    acquire_s: defaultdict[Labels, Histogram] = attrs.field(factory=lambda: defaultdict(Histogram), init=False)
    """By source: a VM that was ready, or one that was waited for."""
    stage_s: defaultdict[Labels, Histogram] = attrs.field(factory=lambda: defaultdict(Histogram), init=False)
    production_s: defaultdict[Labels, Histogram] = attrs.field(factory=lambda: defaultdict(Histogram), init=False)
    """By producer."""
    production_failures: Counter[Labels] = attrs.field(factory=Counter, init=False)
    lost: Counter[Labels] = attrs.field(factory=Counter, init=False)
    """By the state in which it was."""
    stopped: Counter[Labels] = attrs.field(factory=Counter, init=False)
    """By reason."""
    vms: Counter[Labels] = attrs.field(factory=Counter, init=False)
    """By state, now."""
    lag_s: Histogram = attrs.field(factory=Histogram, init=False)
    """How much later than it was due the event loop turned to something, standstills of the process included."""

    def label(self, profile: str) -> str:
        return profile if profile in self.profiles else CUSTOM

    # -- acquisitions ------------------------------------------------------------------------------------------------

    def acquired(self, lease: Lease, *, lasted_s: float, joined: bool) -> None:
        """A call was answered with a lease, `lasted_s` after it came. One that joined waited for less than others."""
        profile = self.label(lease.profile)
        self.acquires[profile, JOINED if joined else GRANTED] += 1
        if joined:
            return
        self.acquire_s[profile, "ready" if lease.terms.was_ready else "waited"].observe(lasted_s)
        timings = lease.timings
        for stage, seconds in (
            ("queue", lease.terms.queued_s),
            ("grow", timings.grow_s),
            ("resume", timings.resume_s),
            ("prepare", timings.prepare_s),
        ):
            self.stage_s[profile, stage].observe(seconds)

    def not_acquired(self, profile: str, result: str) -> None:
        self.acquires[self.label(profile), result] += 1

    # -- news --------------------------------------------------------------------------------------------------------

    def tell(self, news: News) -> None:
        match news:
            case VmNews():
                self._vm(news)
            case LeaseNews() | ProfileNews():
                pass  # counted elsewhere, or in the pool's views

    def _vm(self, news: VmNews) -> None:
        profile = self.label(news.profile)
        if news.was is not None:
            self.vms[profile, news.was.value] -= 1
        if news.state is not VmState.GONE:
            self.vms[profile, news.state.value] += 1
        if news.production_s is not None:
            self.production_s[profile, news.made_by.value].observe(news.production_s)
        if news.reason is not None:
            self.stopped[profile, news.reason.value] += 1
            self.production_failures[(profile,)] += news.reason is StopReason.PRODUCTION
            if news.reason in LOSSES and news.was is not None:
                self.lost[profile, news.was.value] += 1

    # -- the event loop ----------------------------------------------------------------------------------------------

    async def watch_loop(
        self,
        *,
        read: Callable[[], float] = time.perf_counter,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Never returns. `read` is of a clock that never stands, as the service's does while its loop does."""
        task_status.started()
        while True:
            due = read() + LAG_INTERVAL_S
            await trio.sleep(LAG_INTERVAL_S)
            self.lag_s.observe(max(0.0, read() - due))
