"""What changed between two runs, beyond noise."""

from __future__ import annotations

import random

import attrs
import pytest

from bench.case import Unit
from bench.compare import Verdict, compare, host_factor
from bench.results import Series
from tests.unit.bench.runs import results, series

ROUNDS = 20


def noisy(name: str, level: float, *, seed: int, spread: float = 0.02, unit: Unit = Unit.SECONDS) -> Series:
    rng = random.Random(seed)
    return series(name, *([level * rng.lognormvariate(0, spread)] for _ in range(ROUNDS)), unit=unit)


def verdict(before: Series, after: Series) -> Verdict:
    (change,) = compare(results(before), results(after))
    return change.verdict


def test_the_same_is_no_change() -> None:
    assert verdict(noisy("a", 1.0, seed=1), noisy("a", 1.0, seed=2)) is Verdict.SAME


@pytest.mark.parametrize(
    ("unit", "worse"),
    [
        (Unit.SECONDS, 1.5),
        (Unit.BYTES, 1.5),
        (Unit.CORES, 1.5),
        (Unit.PER_SECOND, 0.67),
        (Unit.BYTES_PER_SECOND, 0.67),
    ],
)
def test_more_is_worse_except_for_rates(unit: Unit, worse: float) -> None:
    level, other = noisy("a", 1.0, seed=1, unit=unit), noisy("a", worse, seed=2, unit=unit)
    assert verdict(level, other) is Verdict.WORSE
    assert verdict(other, level) is Verdict.BETTER


def test_a_sure_change_that_is_small_is_none() -> None:
    assert verdict(noisy("a", 1.0, seed=1, spread=0.001), noisy("a", 1.03, seed=2, spread=0.001)) is Verdict.SAME


def test_a_change_less_than_a_run_differs_from_itself_is_none() -> None:
    """Between odd and even rounds, which ran in another order, there is a difference that means nothing."""
    uneven = series("a", *([1.0 + 0.3 * (number % 2)] for number in range(ROUNDS)))
    assert verdict(uneven, noisy("a", 1.31, seed=2, spread=0.001)) is Verdict.SAME


def test_many_samples_of_one_round_are_one_witness() -> None:
    """A thousand samples in two rounds prove nothing about other rounds."""
    before = series("a", [1.0] * 500, [1.01] * 500)
    after = series("a", [2.0] * 500, [2.01] * 500)
    assert verdict(before, after) is Verdict.TOO_FEW


def test_a_slower_host_is_no_change() -> None:
    def run(slow: float, seed: int) -> list[Series]:
        return [
            noisy("e/yardstick", 0.003 * slow, seed=seed),
            noisy("latency", 1.0 * slow, seed=seed + 1),
            noisy("rate", 100.0 / slow, seed=seed + 2, unit=Unit.PER_SECOND),
            noisy("memory", 5.0, seed=seed + 3, unit=Unit.BYTES),
        ]

    old, new = results(*run(1.0, 1)), results(*run(2.0, 10))
    assert host_factor("e", old=old, new=new) == pytest.approx(2.0, rel=0.05)
    changes = compare(old, new)
    assert [change.series for change in changes] == ["latency", "rate", "memory"]
    assert {change.verdict for change in changes} == {Verdict.SAME}


def test_what_is_in_one_run_only_or_has_another_unit_is_left_out() -> None:
    a, b = noisy("a", 1.0, seed=1), noisy("b", 1.0, seed=2)
    assert compare(results(a), results(b)) == []
    assert compare(results(a), results(attrs.evolve(a, unit=Unit.BYTES))) == []


def test_among_many_equals_hardly_one_is_called_changed() -> None:
    old = results(*(noisy(f"s{number}", 1.0, seed=number, spread=0.2) for number in range(100)))
    new = results(*(noisy(f"s{number}", 1.0, seed=1000 + number, spread=0.2) for number in range(100)))
    assert [change.series for change in compare(old, new) if change.verdict is not Verdict.SAME] == []
