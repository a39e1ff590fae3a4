"""What is due, and when: one time for each key, however often it is moved."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pool.ledger.schedule import Schedule
from tests.examples import examples


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


def test_what_is_dropped_takes_no_room_for_long() -> None:
    """A lease for a day that is released after a second must not be remembered for a day."""
    schedule = Schedule[str]()
    schedule.set("a lease that stays", 1.0)
    for number in range(10_000):
        schedule.set(f"lease-{number}", 86_400.0 + number)
        schedule.drop(f"lease-{number}")
    assert len(schedule._heap) < 100
    assert schedule.next_at() == 1.0


def test_what_is_moved_takes_no_room_for_long() -> None:
    schedule = Schedule[str]()
    for number in range(10_000):
        schedule.set("a lease that is renewed", 60.0 + number)
    assert len(schedule._heap) < 100
    assert list(schedule.take_due(now=60.0 + 9_999)) == ["a lease that is renewed"]


steps = st.tuples(st.integers(0, 200), st.one_of(st.none(), st.just(math.inf), st.integers(0, 50).map(float)))


@examples(100)
@given(done=st.lists(steps, max_size=400))
def test_it_is_a_table_of_times(done: list[tuple[int, float | None]]) -> None:
    schedule, table = Schedule[int](), dict[int, float]()
    for key, at in done:
        if at is None:
            schedule.drop(key)
            table.pop(key, None)
        else:
            schedule.set(key, at)
            table.pop(key, None)
            if at < math.inf:
                table[key] = at
        assert schedule.next_at() == min(table.values(), default=math.inf)
    assert sorted(schedule.take_due(now=25.0)) == sorted(key for key, at in table.items() if at <= 25.0)
    assert schedule.next_at() == min((at for at in table.values() if at > 25.0), default=math.inf)
