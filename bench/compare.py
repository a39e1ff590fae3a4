"""The changes between two runs beyond noise.

Between two runs the host may have become slower or faster. Each experiment times one fixed piece of Python in every
round; durations are divided by the change of that time, rates are multiplied. A difference counts if the test of the
rounds' medians, corrected for the number of series, is significant, and if it is more than the larger of both runs'
differences from themselves (odd rounds against even ones), and more than 5 %.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

from bench.case import Unit
from bench.results import YARDSTICK, Results, Series
from bench.statistics import holm, mann_whitney, median, pooled, self_difference

ALPHA: Final = 0.01
"""The probability of reporting any change between equal runs."""

LEAST_CHANGE: Final = 0.05
"""Smaller changes do not matter, even significant ones."""

LEAST_ROUNDS: Final = 6
"""On each side; with fewer the test has hardly any power."""


class Verdict(enum.Enum):
    BETTER = "better"
    WORSE = "worse"
    SAME = "no change beyond noise"
    TOO_FEW = "too few rounds to tell"


@attrs.frozen(kw_only=True)
class Change:
    series: str
    unit: Unit
    before: float
    """The old median, as if it had been measured on the host as it is now."""
    after: float
    p: float
    noise: float
    """Relative: smaller differences do not count."""
    verdict: Verdict

    @property
    def factor(self) -> float:
        return self.after / self.before if self.before else 1.0


def compare(old: Results, new: Results) -> list[Change]:
    """A change for each series that both runs have, except the yardsticks, in the order of the new run."""
    pairs = [
        (before, after)
        for after in new.series
        if not after.name.endswith(YARDSTICK)
        and (before := old.find(after.name)) is not None
        and before.unit is after.unit
        and any(before.rounds)
        and any(after.rounds)
    ]
    scaled = [(_as_of_now(before, old=old, new=new), after) for before, after in pairs]
    p_values = [mann_whitney(_medians(before), _medians(after)) for before, after in scaled]
    sure = holm(p_values, alpha=ALPHA)
    return [
        _change(before, after, p=p, sure=holds)
        for (before, after), p, holds in zip(scaled, p_values, sure, strict=True)
    ]


def host_factor(experiment: str, *, old: Results, new: Results) -> float:
    """How much longer the yardstick took in the new run; 1 if a run has none."""
    before, after = (results.find(f"{experiment}/{YARDSTICK}") for results in (old, new))
    if before is None or after is None:
        return 1.0
    return median(pooled(after.rounds)) / median(pooled(before.rounds))


def _as_of_now(series: Series, *, old: Results, new: Results) -> Series:
    factor = host_factor(series.experiment, old=old, new=new)
    match series.unit:
        case Unit.SECONDS | Unit.CORES:
            pass
        case Unit.PER_SECOND | Unit.BYTES_PER_SECOND:
            factor = 1 / factor
        case Unit.BYTES:
            factor = 1.0
    return attrs.evolve(series, rounds=[[value * factor for value in each] for each in series.rounds])


def _medians(series: Series) -> list[float]:
    return [median(each) for each in series.rounds if each]


def _change(before: Series, after: Series, *, p: float, sure: bool) -> Change:
    was, now = median(pooled(before.rounds)), median(pooled(after.rounds))
    noise = max(LEAST_CHANGE, self_difference(before.rounds), self_difference(after.rounds))
    more_is_better = after.unit in (Unit.PER_SECOND, Unit.BYTES_PER_SECOND)
    if min(len(_medians(before)), len(_medians(after))) < LEAST_ROUNDS:
        verdict = Verdict.TOO_FEW
    elif not sure or abs(now - was) <= noise * was:
        verdict = Verdict.SAME
    else:
        verdict = Verdict.BETTER if (now > was) == more_is_better else Verdict.WORSE
    return Change(series=after.name, unit=after.unit, before=was, after=now, p=p, noise=noise, verdict=verdict)
