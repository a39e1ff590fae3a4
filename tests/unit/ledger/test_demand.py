"""How large the pool should be: up at once, down slowly, and at rest while the load is."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import attrs
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pool.ledger.demand import SLOTS, AdaptiveSize, Demand
from tests.examples import examples

HOUR_S = 3600.0
POLICY = AdaptiveSize(maximum=20)
FORGOTTEN_S = POLICY.window_s * (SLOTS + 1) / SLOTS
"""No arrival counts for longer."""
PRODUCTION_LIMIT = 4

policies = st.builds(
    AdaptiveSize,
    minimum=st.integers(0, 3),
    maximum=st.integers(3, 12),
    target_hit_rate=st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999]),
    window_s=st.sampled_from([6.0, 60.0, 900.0]),
    hold_s=st.sampled_from([1.0, 20.0, 180.0]),
)
pauses = st.lists(
    st.one_of(st.just(0.0), st.floats(0.0, 5.0), st.floats(0.0, 300.0), st.floats(0.0, 1e9)), min_size=1, max_size=60
)
"""Seconds from one arrival to the next."""

targets = st.floats(0.0, 0.9999)


def demand(
    policy: AdaptiveSize = POLICY, *, production_s: float = 4.0, production_limit: int = PRODUCTION_LIMIT
) -> Demand:
    informed = Demand(policy=policy, production_limit=production_limit)
    informed.produced(production_s, 0.0)
    return informed


def history(told: Demand, arrivals: list[float], *, until: float) -> list[tuple[float, int]]:
    """Every change of the size and when, as a ledger sees them that asks after each arrival and when it should."""
    changes = [(0.0, told.size(0.0))]
    now = 0.0
    for at in (*arrivals, until):
        while (review := told.next_review(now)) < at:
            assert review > now
            now = review
            changes.append((now, told.size(now)))
        now = at
        if at != until:
            told.arrived(now)
        changes.append((now, told.size(now)))
    return [changes[0], *(after for before, after in itertools.pairwise(changes) if after[1] != before[1])]


def poisson(rate: float, *, until: float, seed: int) -> list[float]:
    rng = random.Random(seed)
    arrivals = [rng.expovariate(rate)]
    while arrivals[-1] < until:
        arrivals.append(arrivals[-1] + rng.expovariate(rate))
    return arrivals[:-1]


# -- what it follows -------------------------------------------------------------------------------------------------


def test_a_burst_raises_it_at_once_to_what_the_burst_needed() -> None:
    pool = demand()
    for _ in range(7):
        pool.arrived(100.0)
    assert pool.size(100.0) == 7


def test_so_does_one_that_comes_before_anything_was_produced() -> None:
    pool = Demand(policy=POLICY, production_limit=4)
    for _ in range(7):
        pool.arrived(100.0)
    assert pool.size(100.0) == 7


def test_those_who_come_one_production_after_another_need_one_vm() -> None:
    pool = demand(production_s=4.0)
    for number in range(400):
        pool.arrived(number * 4.0)
    assert pool.size(1600.0) == 1


def test_productions_that_queue_for_each_other_need_more() -> None:
    """Eight at once, then one each second: alone, each production takes four seconds; one at a time, they pile up."""
    wide, narrow = demand(production_limit=8), demand(production_limit=1)
    for pool in (wide, narrow):
        for number in range(10):
            pool.arrived(float(number))
    assert wide.size(10.0) == 4
    assert narrow.size(10.0) == 8


def test_slower_productions_need_more() -> None:
    pool = demand(production_s=2.0, production_limit=8)
    for number in range(100):
        pool.arrived(float(number))
    assert pool.size(100.0) == 2
    for _ in range(50):
        pool.produced(6.0, 100.0)
    for number in range(100, 120):
        pool.arrived(float(number))
    assert pool.size(120.0) == 6


def test_one_slow_production_among_many_changes_nothing() -> None:
    pool = demand(production_s=2.0)
    pool.produced(9.0, 0.0)
    for number in range(400):
        pool.arrived(number * 3.0)
    assert pool.size(1200.0) == 1


def test_the_part_that_may_miss_does_not_raise_it() -> None:
    """Eight pairs among five hundred arrivals within the window: a second VM would be used by sixteen in a thousand."""
    sizes = []
    for target in (0.98, 0.99):
        pool = demand(attrs.evolve(POLICY, target_hit_rate=target), production_s=1.5)
        for number in range(1000):
            for _ in range(2 if number in range(800, 960, 20) else 1):
                pool.arrived(number * 2.0)
        sizes.append(pool.size(2000.0))
    assert sizes == [1, 2]


def test_those_too_few_to_tell_are_presumed_to_meet_now_and_then() -> None:
    """One in a hundred seconds: nine within the window, no two of them together, which one in 25 would be by chance."""
    sizes = []
    for target in (0.95, 0.9615):
        pool = demand(attrs.evolve(POLICY, target_hit_rate=target), production_s=4.0)
        for number in range(20):
            pool.arrived(number * 100.0)
        sizes.append(pool.size(2000.0))
    assert sizes == [1, 2]


def test_what_is_presumed_when_a_slot_ends_goes_by_what_was_known_then() -> None:
    asked, left_alone = demand(production_s=1.0), demand(production_s=1.0)
    for pool in (asked, left_alone):
        pool.arrived(0.0)
    asked.size(200.0)
    for pool in (asked, left_alone):
        pool.produced(200.0, 250.0)
        pool.arrived(250.0)
    assert asked.size(250.0) == left_alone.size(250.0)


def test_a_pool_that_nobody_asks_goes_to_the_minimum_one_step_at_a_time() -> None:
    pool = demand()
    changes = history(pool, [100.0] * 5, until=100.0 + FORGOTTEN_S + 5 * POLICY.hold_s)
    assert [size for _, size in changes] == [1, 2, 3, 4, 5, 4, 3, 2, 1]
    assert [after - before for (before, _), (after, _) in itertools.pairwise(changes[5:])] == [POLICY.hold_s] * 3


def test_a_host_that_slept_wakes_up_to_the_minimum() -> None:
    pool = demand()
    for _ in range(20):
        pool.arrived(100.0)
    assert pool.size(1e9) == 1
    pool.arrived(1e9)
    assert pool.size(1e9) == 1


def test_a_pool_at_its_minimum_needs_no_waking() -> None:
    pool = demand()
    pool.arrived(100.0)
    assert pool.next_review(100.0) == math.inf


def test_only_an_arrival_raises_it() -> None:
    """A burst that was rare among many is not when those are forgotten; but nobody is there yet who needs it."""
    pool = demand(attrs.evolve(POLICY, target_hit_rate=0.9))
    for number in range(100):
        pool.arrived(number * 5.0)
    for _ in range(6):
        pool.arrived(600.0)
    without_the_many = 500.0 + FORGOTTEN_S
    assert pool.size(without_the_many) == 1
    pool.arrived(without_the_many)
    assert pool.size(without_the_many) == 6


# -- whatever happens ------------------------------------------------------------------------------------------------


@given(policy=policies, pauses=pauses, production_s=st.sampled_from([0.0, 0.3, 4.0, 60.0]))
@examples(200)
def test_it_stays_within_its_bounds(policy: AdaptiveSize, pauses: list[float], production_s: float) -> None:
    arrivals = list(itertools.accumulate(pauses))
    for _, size in history(demand(policy, production_s=production_s), arrivals, until=arrivals[-1] + HOUR_S):
        assert policy.minimum <= size <= policy.maximum


@given(policy=policies, pauses=pauses)
@examples(200)
def test_it_falls_by_one_and_not_while_it_is_held(policy: AdaptiveSize, pauses: list[float]) -> None:
    arrivals = list(itertools.accumulate(pauses))
    until = arrivals[-1] + policy.window_s * 2 + policy.hold_s * (policy.maximum + 1)
    changes = history(demand(policy), arrivals, until=until)
    for (before, larger), (after, smaller) in itertools.pairwise(changes):
        if smaller < larger:
            assert smaller == larger - 1
            assert after >= before + policy.hold_s
    assert changes[-1][1] == policy.minimum, "nobody came for long enough"


@given(policy=policies, pauses=pauses, lower=targets, higher=targets)
@examples(200)
def test_a_higher_target_never_needs_less(
    policy: AdaptiveSize, pauses: list[float], lower: float, higher: float
) -> None:
    assume(lower <= higher)
    modest, ambitious = (demand(attrs.evolve(policy, target_hit_rate=target)) for target in (lower, higher))
    for at in itertools.accumulate(pauses):
        modest.arrived(at)
        ambitious.arrived(at)
        assert modest.size(at) <= ambitious.size(at)


@given(policy=policies, pauses=pauses, data=st.data())
@examples(200)
def test_asking_changes_nothing(policy: AdaptiveSize, pauses: list[float], data: st.DataObject) -> None:
    asked, left_alone = demand(policy), demand(policy)
    before = 0.0
    for at in itertools.accumulate(pauses):
        for when in sorted(data.draw(st.lists(st.floats(before, at), max_size=3))):
            asked.size(when)
            asked.next_review(when)
        for pool in (asked, left_alone):
            pool.produced(at % 10, at)
            pool.arrived(at)
        before = at
    end = data.draw(st.floats(before, before + 2 * HOUR_S))
    assert asked.size(end) == left_alone.size(end)
    assert asked.next_review(end) == left_alone.next_review(end)


@given(policy=policies, pauses=pauses)
@examples(200)
def test_it_keeps_no_more_than_its_bounds_ask_for(policy: AdaptiveSize, pauses: list[float]) -> None:
    """Memory does not grow with the load."""
    pool = demand(policy, production_s=1e6)
    for at in itertools.accumulate(pauses):
        pool.arrived(at)
        assert len(pool._outstanding) <= policy.maximum
        assert len(pool._needs._slots) <= SLOTS + 1
        assert set(pool._needs._counts) <= set(range(1, policy.maximum + 1)) | {0}


@given(policy=policies, pauses=pauses)
@examples(200)
def test_what_it_moves_along_is_what_a_search_would_find(policy: AdaptiveSize, pauses: list[float]) -> None:
    pool = demand(policy)
    for at in itertools.accumulate(pauses):
        pool.arrived(at)
        needs = sorted(need for slot in pool._needs._slots for need in slot.elements())
        may_miss = math.floor((1.0 - policy.target_hit_rate) * len(needs))
        assert pool._needs.enough == (needs[-1 - may_miss] if may_miss < len(needs) else 0)


# -- at rest ---------------------------------------------------------------------------------------------------------


SETTLED_S = FORGOTTEN_S + POLICY.maximum * POLICY.hold_s
"""What it started with is forgotten, and what was too many is gone."""


def changes_in_an_hour(*, every_s: float, production_s: float) -> int:
    """Of a steady load, once it has settled."""
    arrivals = [number * every_s for number in range(int((SETTLED_S + HOUR_S) / every_s))]
    changes = history(demand(production_s=production_s), arrivals, until=SETTLED_S + HOUR_S)
    return sum(at > SETTLED_S for at, _ in changes)


@given(every_s=st.floats(0.5, 900.0), production_s=st.floats(0.1, 8.0))
@example(every_s=120.77350812409915, production_s=1.1500542755718178)  # the count goes to and fro by one
@example(every_s=9.01, production_s=5.3)  # between enough to tell and one too few
@examples(100)
def test_a_steady_load_does_not_move_it_to_and_fro(every_s: float, production_s: float) -> None:
    """Once at most, when a count that beats against the window's slots shows the load for what it is."""
    ratio = production_s / every_s
    assume(ratio <= PRODUCTION_LIMIT)  # or the line of productions grows, and the size with it: it is not steady
    assume(ratio < 0.5 or abs(ratio - round(ratio)) > 1e-6)  # or rounding decides who finds the VM made just in time
    assert changes_in_an_hour(every_s=every_s, production_s=production_s) <= 1


@pytest.mark.parametrize("rate", [0.003, 0.01, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_a_steady_random_load_moves_it_four_times_an_hour_at_most(rate: float, seed: int) -> None:
    """On average over half a day; a productions' line that is half busy at most."""
    hours = 12
    until = (hours + 1) * HOUR_S
    changes = history(demand(), poisson(rate, until=until, seed=seed), until=until)
    assert sum(at > HOUR_S for at, _ in changes) <= 4 * hours


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"minimum": -1},
        {"maximum": 0},
        {"minimum": 21},
        {"target_hit_rate": 1.0},
        {"target_hit_rate": -0.1},
        {"window_s": 0.0},
        {"hold_s": 0.0},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        attrs.evolve(POLICY, **wrong)
