"""Targets, judged from results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench import targets
from bench.statistics import p99
from bench.targets import Figure, Judgement, Target, Verdict, Worst, judge
from tests.unit.bench.runs import results, series

RATIO = Figure(over="a", under="b")

Judge = Callable[..., Judgement]
"""Judges one target, given samples of `a` and of `b`."""


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Judge:
    def judge_one(target: Target, *found: list[float]) -> Judgement:
        monkeypatch.setattr(targets, "TARGETS", (target,))
        named = (series(name, *([value] for value in values)) for name, values in zip("ab", found, strict=False))
        (judgement,) = judge(results(*named))
        return judgement

    return judge_one


def value_of(judgement: Judgement) -> float:
    assert judgement.estimate is not None
    return judgement.estimate.value


@pytest.mark.parametrize(
    ("bounds", "over", "verdict"),
    [
        ({"at_most": 3.0}, 2.9, Verdict.MET),
        ({"at_most": 3.0}, 3.1, Verdict.MISSED),
        ({"at_least": 0.9}, 0.95, Verdict.MET),
        ({"at_least": 0.9}, 0.85, Verdict.MISSED),
    ],
)
def test_a_ratio_is_held_against_its_bound(
    judged: Judge, bounds: dict[str, Any], over: float, verdict: Verdict
) -> None:
    judgement = judged(Target(number="1", what="", figure=RATIO, **bounds), [over] * 5, [1.0] * 5)
    assert judgement.verdict is verdict
    assert value_of(judgement) == over
    assert judgement.sure


def test_what_was_not_measured_is_neither_met_nor_missed(judged: Judge) -> None:
    judgement = judged(Target(number="1", what="", figure=RATIO, at_most=3.0), [1.0])
    assert judgement.verdict is Verdict.UNKNOWN
    assert not judgement.sure


def test_a_limit_inside_the_interval_is_not_sure(judged: Judge) -> None:
    wide = [1.0, 5.0, 1.0, 5.0, 3.0, 1.0, 5.0]
    assert not judged(Target(number="1", what="", figure=RATIO, at_most=3.5), wide, [1.0] * 7).sure


def test_a_figure_may_be_of_the_tails_and_scaled(judged: Judge) -> None:
    figure = Figure(over="a", under="b", statistic=p99, under_statistic=p99, factor=2.0)
    tail = [1.0] * 50 + [10.0] * 50
    assert value_of(judged(Target(number="1", what="", figure=figure, at_most=5.0), tail, [2.0] * 100)) == 10.0


def test_the_worst_of_several_counts_of_those_that_were_measured(judged: Judge) -> None:
    figures = Worst((Figure(over="a", under="b"), Figure(over="b", under="b"), Figure(over="not measured", under="b")))
    judgement = judged(Target(number="1", what="", figure=figures, at_most=2.0), [3.0] * 5, [1.0] * 5)
    assert (value_of(judgement), judgement.verdict) == (3.0, Verdict.MISSED)
    nothing = Worst((Figure(over="not measured"),))
    assert judged(Target(number="1", what="", figure=nothing, at_most=2.0), [3.0]).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(("bare_s", "limit_ms"), [(0.010, 150.0), (0.100, 300.0)])
def test_the_commands_limit_is_the_larger_of_two(bare_s: float, limit_ms: float) -> None:
    run = results(series("cli/python", [bare_s]), series("cli/help", [0.2]))
    (judgement,) = [each for each in judge(run) if each.target.number == "7a"]
    assert judgement.limit == pytest.approx(limit_ms)
    assert judgement.estimate is not None
    assert judgement.estimate.value == pytest.approx(200.0)


def test_every_target_has_one_bound() -> None:
    for target in targets.TARGETS:
        bounds = (target.at_most, target.at_least, target.limit_of)
        assert sum(bound is not None for bound in bounds) == 1, target.number
