"""Arrival processes: the moments of requests, in seconds from the start, as functions of a seed and a duration."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import attrs

HOUR_S: Final = 3600.0


@attrs.frozen(kw_only=True)
class Load:
    meaning: str
    arrivals: Callable[[random.Random, float], list[float]]
    """Ascending, from 0 to the duration."""


def poisson(rate: float) -> Callable[[random.Random, float], list[float]]:
    return lambda rng, until: list(_thinned(rng, until, peak=rate, rate=lambda _: rate))


def on_off(
    *, on_s: float, off_s: float, rate_on: float, rate_off: float
) -> Callable[[random.Random, float], list[float]]:
    """Phases of exponential durations."""

    def arrivals(rng: random.Random, until: float) -> list[float]:
        times: list[float] = []
        now, on = 0.0, False
        while now < until:
            ends = min(until, now + rng.expovariate(1 / (on_s if on else off_s)))
            rate = rate_on if on else rate_off
            times += (now + at for at in poisson(rate)(rng, ends - now))
            now, on = ends, not on
        return times

    return arrivals


def batches(*, every_s: float, mean: float) -> Callable[[random.Random, float], list[float]]:
    """Batches in a Poisson process; their size is geometrically distributed."""

    def arrivals(rng: random.Random, until: float) -> list[float]:
        times: list[float] = []
        for at in _thinned(rng, until, peak=1 / every_s, rate=lambda _: 1 / every_s):
            times.append(at)
            while rng.random() < 1 - 1 / mean:
                times.append(at)
        return times

    return arrivals


def timetable(*, every_s: float, number: int) -> Callable[[random.Random, float], list[float]]:
    """A fixed number at once, at regular intervals."""
    return lambda _, until: [at * every_s for at in range(1, int(until / every_s)) for _ in range(number)]


def diurnal(*, low: float, high: float, period_s: float) -> Callable[[random.Random, float], list[float]]:
    """A sine, times noise that changes every five minutes."""

    def arrivals(rng: random.Random, until: float) -> list[float]:
        noise = [min(2.0, rng.lognormvariate(-0.04, 0.3)) for _ in range(int(until / 300) + 1)]

        def rate(at: float) -> float:
            return (low + (high - low) * (1 - math.cos(math.tau * at / period_s)) / 2) * noise[int(at / 300)]

        return list(_thinned(rng, until, peak=2 * high, rate=rate))

    return arrivals


def spikes(
    *, base: float, spike: float, lasts_s: float, every_s: float
) -> Callable[[random.Random, float], list[float]]:
    def rate(at: float) -> float:
        return spike if every_s / 2 <= at % every_s < every_s / 2 + lasts_s else base

    return lambda rng, until: list(_thinned(rng, until, peak=spike, rate=rate))


def _thinned(rng: random.Random, until: float, *, peak: float, rate: Callable[[float], float]) -> Iterator[float]:
    """A Poisson process with a variable rate of at most `peak`."""
    at = 0.0
    while (at := at + rng.expovariate(peak)) < until:
        if rng.random() * peak < rate(at):
            yield at


LOADS: Final[Mapping[str, Load]] = {
    "steady, rare": Load(meaning="Poisson, one in 100 s", arrivals=poisson(0.01)),
    "steady": Load(meaning="Poisson, one in 10 s", arrivals=poisson(0.1)),
    "steady, heavy": Load(meaning="Poisson, one in 2 s", arrivals=poisson(0.5)),
    "on and off": Load(
        meaning="about 10 min of one in 2.5 s, then about 50 min of one in 5 min",
        arrivals=on_off(on_s=600, off_s=3000, rate_on=0.4, rate_off=1 / 300),
    ),
    "diurnal": Load(
        meaning="one in 200 s up to one in 2.5 s and back in 12 h, noise on it",
        arrivals=diurnal(low=0.005, high=0.4, period_s=12 * HOUR_S),
    ),
    "spikes": Load(
        meaning="one in 50 s, but for 5 min in 3 h two in 3 s",
        arrivals=spikes(base=0.02, spike=2 / 3, lasts_s=300, every_s=3 * HOUR_S),
    ),
    "batches, often": Load(
        meaning="about 6 at once, about every 3 min",
        arrivals=batches(every_s=180, mean=6),
    ),
    "batches, seldom": Load(
        meaning="about 6 at once, about every 30 min",
        arrivals=batches(every_s=1800, mean=6),
    ),
    "timetable": Load(meaning="8 at once, on the hour", arrivals=timetable(every_s=HOUR_S, number=8)),
}
