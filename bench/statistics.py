"""Statistics of samples: medians and spread, ratios with their uncertainty, and whether two runs differ.

Latencies are skewed and have outliers, so all statistics here use ranks: medians, quartiles, quantiles; the test is
Mann and Whitney's, the intervals are bootstrapped. Samples of one round share the host's load at the time. Therefore
the bootstrap draws whole rounds, and a round counts once in the test.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Final

import attrs

RESAMPLES: Final = 400
"""Enough for a 95 % interval whose ends vary by a tenth of its width."""

Rounds = Sequence[Sequence[float]]
Statistic = Callable[[Sequence[float]], float]


def quantile(values: Sequence[float], q: float) -> float:
    """By linear interpolation between the two nearest ranks. Raises ValueError if there are no values."""
    if not values:
        raise ValueError("no values have no quantile")
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median(values: Sequence[float]) -> float:
    return quantile(values, 0.5)


def p99(values: Sequence[float]) -> float:
    """With fewer than 100 samples it is close to the maximum; read it with the number of samples."""
    return quantile(values, 0.99)


@attrs.frozen(kw_only=True)
class Summary:
    """A series' figures."""

    n: int
    median: float
    q25: float
    q75: float
    p99: float
    minimum: float
    maximum: float

    @property
    def iqr(self) -> float:
        """The range of the middle half of the samples."""
        return self.q75 - self.q25


def summarize(values: Sequence[float]) -> Summary:
    return Summary(
        n=len(values),
        median=median(values),
        q25=quantile(values, 0.25),
        q75=quantile(values, 0.75),
        p99=p99(values),
        minimum=min(values),
        maximum=max(values),
    )


def pooled(rounds: Rounds) -> list[float]:
    return [value for each in rounds for value in each]


@attrs.frozen(kw_only=True)
class Estimate:
    """A figure and the 95 % interval in which it lies."""

    value: float
    low: float
    high: float


def ratio(
    over: Rounds, under: Rounds, *, statistic: Statistic = median, under_statistic: Statistic = median
) -> Estimate:
    """`statistic` of `over` divided by `under_statistic` of `under`. The same rounds are drawn of both: they ran
    together.

    Raises ValueError if one has no samples.
    """
    value = statistic(pooled(over)) / under_statistic(pooled(under))
    rng = random.Random(len(over))  # noqa: S311 - the same figures from the same results
    numbers = range(min(len(over), len(under)))
    ratios = []
    for _ in range(RESAMPLES):
        drawn = rng.choices(numbers, k=len(numbers))
        above, below = pooled([over[i] for i in drawn]), pooled([under[i] for i in drawn])
        if above and below and (divisor := under_statistic(below)):
            ratios.append(statistic(above) / divisor)
    if not ratios:
        return Estimate(value=value, low=value, high=value)
    return Estimate(value=value, low=quantile(ratios, 0.025), high=quantile(ratios, 0.975))


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """The two-sided p of "a value of the one is as often above as below one of the other".

    By the normal approximation with corrections for ties and continuity, which is good from 8 values on each side; with
    fewer it is conservative.
    """
    n, m = len(a), len(b)
    if not n or not m:
        raise ValueError("both sides need values")
    ordered = sorted([(value, 0) for value in a] + [(value, 1) for value in b])
    rank_sum, ties = 0.0, 0.0
    start = 0
    while start < len(ordered):
        end = start
        while end < len(ordered) and ordered[end][0] == ordered[start][0]:
            end += 1
        rank = (start + 1 + end) / 2
        rank_sum += rank * sum(1 for _, side in ordered[start:end] if side == 0)
        ties += (end - start) ** 3 - (end - start)
        start = end
    u = rank_sum - n * (n + 1) / 2
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0  # all values are the same
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    return 2 * (1 - statistics.NormalDist().cdf(z))


def self_difference(rounds: Rounds) -> float:
    """A series' difference from itself: the relative difference of its odd and its even rounds' medians."""
    odd, even = pooled(rounds[1::2]), pooled(rounds[::2])
    if not odd or not even:
        return math.inf
    base = median(even)
    return abs(median(odd) / base - 1) if base else 0.0


def holm(p_values: Sequence[float], *, alpha: float) -> list[bool]:
    """Which of many tests hold, with a probability of `alpha` that any of them is wrong (Holm's procedure)."""
    holds = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        holds[index] = True
    return holds
