"""Runs experiments: cases take turns, in alternating order, so that drift and neighbours affect all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import attrs
import trio

from bench.case import Bench, Case, Experiment, Sampler, Turn
from bench.leftovers import Watch
from bench.results import YARDSTICK, Ended, Series


class Progress(Protocol):
    """The display of a run."""

    def turn(self, experiment: str, *, number: int, rounds: int, case: str) -> None: ...


@attrs.frozen(kw_only=True)
class Outcome:
    ended: Ended
    series: list[Series]


@attrs.define(eq=False)
class _Tally:
    """The samples of one experiment so far."""

    experiment: Experiment
    rounds: int = 0
    _series: dict[str, Series] = attrs.field(factory=dict)

    def begin_round(self) -> None:
        self.rounds += 1

    def add(self, case: Case, turn: Turn) -> None:
        for part, values in turn.samples.items():
            name = f"{case.name}:{part}" if part else case.name
            series = self._series.get(name)
            if series is None:
                series = self._series[name] = Series(
                    name=name,
                    experiment=self.experiment.name,
                    what=case.what,
                    unit=turn.units.get(part, case.unit),
                    at=dict(case.at),
                    rounds=[],
                )
            while len(series.rounds) < self.rounds:
                series.rounds.append([])
            series.rounds[-1].extend(values)

    def series(self) -> list[Series]:
        """A round that was not finished has no place in paired comparisons, but does no harm: it is the last."""
        return list(self._series.values())


async def run_experiment(
    experiment: Experiment,
    bench: Bench,
    *,
    rounds: int,
    warm_up: int,
    progress: Progress,
    describe: Callable[[BaseException], str],
) -> Outcome:
    """Runs an experiment to its end or its first error; the outcome has the error and the leftovers."""
    cases = [case for case in experiment.cases if case.name in bench.selected]
    tally = _Tally(experiment)
    began, error = time.perf_counter(), ""
    watch = Watch.begin(bench.home)
    try:
        with trio.fail_after(experiment.limit_s):
            await _measure(tally, cases, bench, rounds=rounds, warm_up=warm_up, progress=progress)
    except Exception as failure:  # noqa: BLE001 - one experiment's failure must not cost the others
        error = describe(failure) or type(failure).__name__
    leftovers = await watch.end()
    return Outcome(
        ended=Ended(
            experiment=experiment.name,
            rounds=tally.rounds,
            seconds=time.perf_counter() - began,
            error=error,
            leftovers=leftovers,
        ),
        series=tally.series(),
    )


async def _measure(
    tally: _Tally, cases: Sequence[Case], bench: Bench, *, rounds: int, warm_up: int, progress: Progress
) -> None:
    """In a frame of its own: it releases the samplers' references, which would otherwise count as leftovers."""
    async with tally.experiment.open(bench) as samplers:
        turns = [(case, samplers[case.name]) for case in cases]
        await _take_turns(tally, turns, rounds=rounds, warm_up=warm_up, progress=progress)


async def _take_turns(
    tally: _Tally,
    turns: Sequence[tuple[Case, Sampler]],
    *,
    rounds: int,
    warm_up: int,
    progress: Progress,
) -> None:
    name = tally.experiment.name
    yardstick = Case(name=f"{name}/{YARDSTICK}", what="one fixed piece of Python: how fast the host was")
    for number in range(-warm_up, rounds):
        if number >= 0:
            tally.begin_round()
            turn = Turn()
            turn.record(measure_host())
            tally.add(yardstick, turn)
        for case, sampler in _there_and_back(turns, number):
            progress.turn(name, number=number, rounds=rounds, case=case.name)
            turn = Turn()
            await sampler(turn)
            if number >= 0:
                tally.add(case, turn)


def _there_and_back(turns: Sequence[tuple[Case, Sampler]], number: int) -> Iterable[tuple[Case, Sampler]]:
    return reversed(turns) if number % 2 else turns


_YARDSTICK_STEPS: Final = 20_000


def measure_host() -> float:
    """Seconds that a fixed piece of Python takes, at best of three: about 3 ms on a machine of 2020."""
    return min(_yardstick() for _ in range(3))


def _yardstick() -> float:
    began = time.perf_counter()
    table: dict[int, int] = {}
    for step in range(_YARDSTICK_STEPS):
        key = (step * 7919) % 1009
        table[key] = table.get(key, 0) + step
    sorted(table.values())
    return time.perf_counter() - began


@attrs.frozen
class Quiet:
    """No progress is shown."""

    def turn(self, experiment: str, *, number: int, rounds: int, case: str) -> None:
        """Shows nothing."""
