"""What listening to a guest may cost, in numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.guest.agent import wire
from vmm.guest.budget import SLICE, Pace, Unwanted

SMALLEST = wire.HEADER.size


def test_what_comes_slowly_is_never_held_up() -> None:
    pace = Pace(at_once=10, per_s=100)
    assert [pace.spend(1, size=SMALLEST, now=second / 50) for second in range(1000)] == [0.0] * 1000


def test_so_much_at_once_and_then_as_fast_as_the_rate() -> None:
    pace = Pace(at_once=10, per_s=100)
    assert pace.spend(10, size=0, now=5.0) == 0.0
    assert pace.spend(20, size=0, now=5.0) == 0.2
    assert pace.spend(1, size=0, now=5.2) == pytest.approx(0.01)
    assert pace.spend(10, size=0, now=1000.0) == 0.0
    assert pace.spend(1, size=0, now=1000.0) == pytest.approx(0.01)


def test_a_pause_does_not_add_up_to_more_than_can_come_at_once() -> None:
    pace = Pace(at_once=10, per_s=100)
    assert pace.spend(11, size=0, now=1e9) > 0


@given(sizes=st.lists(st.integers(1024, wire.MAX_PAYLOAD), max_size=50))
def test_output_in_frames_worth_the_name_is_free(sizes: list[int]) -> None:
    pace = Pace(at_once=1, per_s=1)
    assert not any(pace.spend(1, size=size, now=0.0) for size in sizes)


@given(slices=st.lists(st.integers(0, SLICE // SMALLEST), max_size=200))
def test_in_the_long_run_no_guest_has_more_than_its_rate(slices: list[int]) -> None:
    pace, now = Pace(at_once=512, per_s=5000), 0.0
    for frames in slices:
        now += pace.spend(frames, size=0, now=now)
    assert now >= (sum(slices) - 512) / 5000 - 1e-6


def test_what_was_on_its_way_when_streams_were_cancelled_is_no_fault() -> None:
    unwanted = Unwanted(streams=2)
    unwanted.expect(1)
    assert all(unwanted.take(wire.WINDOW) for _ in range(6))
    assert all(unwanted.take(0) for _ in range(24))
    assert not unwanted.take(1)


def test_nothing_is_expected_of_streams_that_ended_by_themselves() -> None:
    assert not Unwanted().take(1)


def test_a_few_frames_are_no_fault_and_a_few_more_are() -> None:
    unwanted = Unwanted()
    taken = [unwanted.take(0) for _ in range(100)]
    assert taken == [True] * 64 + [False] * 36
