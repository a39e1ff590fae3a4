"""Numbers from samples."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics import (
    holm,
    mann_whitney,
    median,
    p99,
    pooled,
    quantile,
    ratio,
    self_difference,
    summarize,
)

_VALUES = st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1, max_size=50)


def test_quantiles_lie_between_the_nearest_ranks() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5
    assert quantile([0.0, 10.0], 0.25) == 2.5
    assert p99([float(number) for number in range(101)]) == 99.0


def test_no_values_have_no_quantile() -> None:
    with pytest.raises(ValueError, match="no values"):
        median([])


@given(_VALUES)
def test_a_summary_is_in_order(values: list[float]) -> None:
    found = summarize(values)
    assert found.minimum <= found.q25 <= found.median <= found.q75 <= found.maximum
    assert found.p99 <= found.maximum
    assert found.n == len(values)
    assert found.iqr == found.q75 - found.q25


@given(_VALUES, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(values: list[float], rng: random.Random) -> None:
    shuffled = values.copy()
    rng.shuffle(shuffled)
    assert summarize(shuffled) == summarize(values)


def test_a_ratio_is_of_medians_and_inside_its_interval() -> None:
    rng = random.Random(1)
    under = [[rng.gauss(10.0, 0.1)] for _ in range(30)]
    over = [[rng.gauss(30.0, 0.3)] for _ in range(30)]
    found = ratio(over, under)
    assert found.value == median(pooled(over)) / median(pooled(under))
    assert found.low < found.value < found.high
    assert found.low > 2.9
    assert found.high < 3.1


def test_a_host_that_was_busy_in_some_rounds_does_not_widen_a_ratio_of_what_ran_in_turns() -> None:
    """The same rounds are drawn of both."""
    slow = [1.1**number for number in range(42)]
    found = ratio([[2.0 * factor] for factor in slow], [[1.0 * factor] for factor in slow])
    assert (found.low, found.value, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_a_round_without_samples_of_one_side_does_no_harm() -> None:
    assert ratio([[2.0], [2.0], []], [[1.0], [1.0], [1.0]]).value == 2.0


def test_mann_whitney_agrees_with_a_worked_example() -> None:
    """Worked by hand: U = 3 of 25 possible pairs, variance 22.9, z = 1.88."""
    assert mann_whitney([1.1, 1.3, 1.6, 2.1, 2.6], [2.0, 2.4, 2.9, 3.1, 3.3]) == pytest.approx(0.0601, abs=5e-4)


def test_mann_whitney_of_many_ties_agrees_with_a_worked_example() -> None:
    """U = 6, the mean is 8, the variance 8.57 instead of the 12 that it has without ties."""
    assert mann_whitney([1.0, 1.0, 2.0, 2.0], [1.0, 2.0, 2.0, 2.0]) == pytest.approx(0.608, abs=1e-3)


def test_mann_whitney_of_equals_is_one() -> None:
    assert mann_whitney([1.0, 1.0, 1.0], [1.0, 1.0]) == 1.0
    assert mann_whitney([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]) == 1.0


@given(_VALUES, _VALUES)
def test_mann_whitney_takes_no_side(a: list[float], b: list[float]) -> None:
    assert mann_whitney(a, b) == pytest.approx(mann_whitney(b, a))
    assert 0.0 <= mann_whitney(a, b) <= 1.0


def test_one_outlier_is_no_difference() -> None:
    a = [float(number) for number in range(20)]
    assert mann_whitney(a, [*a[:-1], 1e9]) > 0.5


def test_holm_asks_more_of_each_the_more_there_are() -> None:
    assert holm([0.004], alpha=0.01) == [True]
    assert holm([0.004, 0.5, 0.9], alpha=0.01) == [False, False, False]
    assert holm([0.5, 0.001, 0.004], alpha=0.01) == [False, True, True]


def test_holm_stops_at_the_first_that_fails() -> None:
    assert holm([0.004, 0.0045, 0.9], alpha=0.01) == [False, False, False]


def test_a_series_differs_from_itself_as_its_odd_rounds_from_its_even_ones() -> None:
    assert self_difference([[1.0], [1.2], [1.0], [1.2]]) == pytest.approx(0.2)
    assert self_difference([[1.0], [1.0]]) == 0.0
    assert self_difference([[1.0]]) == float("inf")
