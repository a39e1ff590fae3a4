"""The performance targets as data: each is a ratio within one run, or a bound, and is judged from the results."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from bench.noise import KINDS
from bench.results import Results, Series
from bench.statistics import Estimate, Rounds, Statistic, median, p99, pooled, ratio
from bench.system.neighbours import ADMIN_CALLS, GROWTH, USER_CALLS


class Verdict(enum.Enum):
    MET = "met"
    MISSED = "not met"
    UNKNOWN = "not measured"


@attrs.frozen(kw_only=True)
class Figure:
    """A number of one run: a statistic of a series, perhaps divided by one of another."""

    over: str
    under: str = ""
    statistic: Statistic = median
    under_statistic: Statistic = median
    factor: float = 1.0
    """Of the number: 2 where a sample of `over` stands for two of `under`."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        return (self,)

    def estimate(self, results: Results) -> Estimate | None:
        """None if a part was not measured."""
        over = _rounds(results, self.over)
        if over is None:
            return None
        if not self.under:
            value = self.statistic(pooled(over)) * self.factor
            return Estimate(value=value, low=value, high=value)
        under = _rounds(results, self.under)
        if under is None:
            return None
        found = ratio(over, under, statistic=self.statistic, under_statistic=self.under_statistic)
        return Estimate(value=found.value * self.factor, low=found.low * self.factor, high=found.high * self.factor)


@attrs.frozen
class Worst:
    """The largest of several numbers that were measured."""

    figures: tuple[Figure, ...]

    def estimate(self, results: Results) -> Estimate | None:
        """None if none was measured."""
        found = [estimate for figure in self.figures if (estimate := figure.estimate(results)) is not None]
        return max(found, key=lambda estimate: estimate.value, default=None)


@attrs.frozen(kw_only=True)
class Target:
    number: str
    what: str
    figure: Figure | Worst
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "times"
    limit_of: Callable[[Results], float | None] | None = None
    """Set if the bound depends on the run."""

    def limit(self, results: Results) -> float | None:
        if self.limit_of is not None:
            return self.limit_of(results)
        return self.at_least if self.at_most is None else self.at_most


@attrs.frozen(kw_only=True)
class Judgement:
    target: Target
    estimate: Estimate | None
    limit: float | None
    verdict: Verdict

    @property
    def sure(self) -> bool:
        """Whether the whole interval is on one side of the limit."""
        if self.estimate is None or self.limit is None:
            return False
        return not self.estimate.low <= self.limit <= self.estimate.high


def judge(results: Results) -> list[Judgement]:
    return [_judge(target, results) for target in TARGETS]


def _judge(target: Target, results: Results) -> Judgement:
    estimate, limit = target.figure.estimate(results), target.limit(results)
    if estimate is None or limit is None:
        verdict = Verdict.UNKNOWN
    elif target.at_least is not None:
        verdict = Verdict.MET if estimate.value >= limit else Verdict.MISSED
    else:
        verdict = Verdict.MET if estimate.value <= limit else Verdict.MISSED
    return Judgement(target=target, estimate=estimate, limit=limit, verdict=verdict)


def _rounds(results: Results, name: str) -> Rounds | None:
    series: Series | None = results.find(name)
    return series.rounds if series is not None and any(series.rounds) else None


def _start_limit(least_s: float) -> Callable[[Results], float | None]:
    """Milliseconds: `least_s`, or three times a bare interpreter if that is more."""

    def limit(results: Results) -> float | None:
        bare = _rounds(results, "cli/python")
        return None if bare is None else 1e3 * max(least_s, 3 * median(pooled(bare)))

    return limit


def _beside_a_loud_user(calls: Sequence[str]) -> Worst:
    return Worst(
        tuple(
            Figure(over=f"neighbours/{kind}:{call}", under=f"neighbours/quiet:{call}", statistic=p99)
            for kind in KINDS
            for call in calls
        )
    )


EMPTY: Final = "handout/empty"
KIB: Final = 1024
MIB: Final = 1024 * KIB

TARGETS: Final = (
    Target(
        number="1a",
        what="hand-out of a ready VM, whole Acquire, p50, against an empty call on the same server",
        figure=Figure(over="handout/ready", under=EMPTY),
        at_most=3.0,
    ),
    Target(
        number="1b",
        what="the same, p99 against p99",
        figure=Figure(over="handout/ready", under=EMPTY, statistic=p99, under_statistic=p99),
        at_most=6.0,
    ),
    Target(
        number="2a",
        what="miss served by a clone, whole Acquire, against QEMU's own start (spawn to QMP greeting)",
        figure=Figure(over="miss/clone", under="miss/qemu-start"),
        at_most=2.5,
    ),
    Target(
        number="2b",
        what="the same against a miss served by a direct boot",
        figure=Figure(over="miss/clone", under="miss/direct"),
        at_most=1 / 30,
    ),
    Target(
        number="2c",
        what="miss served from a shell, whole Acquire, against QEMU's own start",
        figure=Figure(over="miss/shell", under="miss/qemu-start"),
        at_most=1.5,
    ),
    Target(
        number="3a",
        what="rate at which the service fills a pool, against the bare loop: spawn, restore, cont",
        figure=Figure(over="production/service", under="production/bare"),
        at_least=0.9,
    ),
    Target(
        number="3b",
        what="the same against a loop that also brings each VM to where the service parks it",
        figure=Figure(over="production/service", under="production/parked"),
        at_least=0.9,
    ),
    Target(
        number="4",
        what="direct boot until ready, against the bare boot of the same kernel with an init that only powers off",
        figure=Figure(over="start/direct", under="start/bare-boot"),
        at_most=1.5,
    ),
    Target(
        number="5a",
        what="PSS of one of 100 idle clones, against the RSS of a direct VM",
        figure=Figure(over="idle/clones@100:pss", under="idle/direct:rss"),
        at_most=0.15,
    ),
    Target(
        number="5b",
        what="memory of the service for each of the first 100 idle VMs that it keeps",
        figure=Figure(over="memory/service-per-vm", factor=1 / KIB),
        at_most=64.0,
        unit="KiB",
    ),
    Target(
        number="5c",
        what="CPU of the service with 100 idle VMs, their agents' checks once a minute included",
        figure=Figure(over="idle/clones@100:service-cpu", factor=100.0),
        at_most=1.0,
        unit="% of a core",
    ),
    Target(
        number="6a",
        what="p99 of a hand-out decision with 10,000 VMs, against 100",
        figure=Figure(over="ledger/hand-out@10000", under="ledger/hand-out@100", statistic=p99, under_statistic=p99),
        at_most=1.5,
    ),
    Target(
        number="6b",
        what="calls in pairs of Acquire and Release per second, 8 clients, against empty calls",
        figure=Figure(over="rpc/pair-rate@8", under="rpc/empty-rate@8", factor=2.0),
        at_least=0.6,
    ),
    Target(
        number="7a",
        what="`vmpool --help`; within 150 ms, or three times `python -c pass`",
        figure=Figure(over="cli/help", factor=1e3),
        limit_of=_start_limit(0.150),
        unit="ms",
    ),
    Target(
        number="7b",
        what="`vmpool status`; within 250 ms, or three times `python -c pass`",
        figure=Figure(over="cli/status", factor=1e3),
        limit_of=_start_limit(0.250),
        unit="ms",
    ),
    Target(
        number="8a",
        what="from the start of a service with 50 idle VMs to adopt until the first hand-out was served",
        figure=Figure(over="restart/kill@50:first-hand-out"),
        at_most=1.5,
        unit="s",
    ),
    Target(
        number="8b",
        what="the same until all 50 are adopted",
        figure=Figure(over="restart/kill@50:all-adopted"),
        at_most=1.5,
        unit="s",
    ),
    Target(
        number="9a",
        what="p99 of a user's call while another is at the maximum of a limit, against its quiet p50; the worst",
        figure=_beside_a_loud_user(USER_CALLS),
        at_most=10.0,
    ),
    Target(
        number="9b",
        what="the same of an administrator's call",
        figure=_beside_a_loud_user(ADMIN_CALLS),
        at_most=10.0,
    ),
    Target(
        number="9c",
        what="memory that one user makes the service take, including all earlier kinds; the most",
        figure=Worst(
            tuple(Figure(over=f"neighbours/{kind}:{GROWTH}", statistic=max, factor=1 / MIB) for kind in KINDS)
        ),
        at_most=64.0,
        unit="MiB",
    ),
)
