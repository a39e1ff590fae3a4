"""What is due, and when: one time for each key, however often it is moved."""

from __future__ import annotations

import math

from pool.ledger.schedule import Schedule


def schedule(**times: float) -> Schedule[str]:
    made = Schedule[str]()
    for key, at in times.items():
        made.set(key, at)
    return made


def due(times: Schedule[str], now: float) -> list[str]:
    return list(times.take_due(now=now))


def test_nothing_is_due_of_nothing() -> None:
    assert schedule().next_at() == math.inf
    assert due(schedule(), 1e9) == []


def test_what_is_due_comes_in_order_and_once() -> None:
    times = schedule(b=2.0, c=3.0, a=1.0)
    assert due(times, 2.0) == ["a", "b"]
    assert due(times, 2.0) == []
    assert times.next_at() == 3.0


def test_a_time_that_is_moved_counts_no_more() -> None:
    times = schedule(a=1.0, b=2.0)
    times.set("a", 3.0)
    assert times.next_at() == 2.0
    assert due(times, 2.0) == ["b"]
    assert due(times, 3.0) == ["a"]


def test_a_time_that_is_moved_there_and_back_comes_once() -> None:
    times = schedule(a=1.0)
    times.set("a", 3.0)
    times.set("a", 1.0)
    assert due(times, 5.0) == ["a"]


def test_what_is_dropped_is_never_due() -> None:
    times = schedule(a=1.0)
    times.drop("a")
    times.drop("b")
    assert "a" not in times
    assert times.next_at() == math.inf
    assert due(times, 5.0) == []


def test_what_is_never_due_takes_no_place() -> None:
    times = schedule(a=1.0)
    times.set("a", math.inf)
    assert "a" not in times
    assert times.next_at() == math.inf


def test_a_key_may_be_set_again_while_it_is_taken() -> None:
    """As a check that is ordered anew as soon as it is done."""
    times = schedule(a=1.0, b=1.0)
    taken = []
    for key in times.take_due(now=1.0):
        taken.append(key)
        times.set(key, 2.0)
    assert taken == ["a", "b"]
    assert times.next_at() == 2.0
