"""What one user's commands may take of the service's memory: the counting, without commands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.rpc.output import LEAST_WINDOW, GuestRoom, OutputBudget, cost
from pool.settings.limits import EdgeLimits
from vmm.errors import NoRoomError
from vmm.guest.agent.wire import WINDOW

MIB = 1024 * 1024
KIB = 1024


def budget(*, limit: int = 32 * MIB, most_streams: int = 256) -> OutputBudget:
    return OutputBudget(uid=1000, limit=limit, most_streams=most_streams)


def windows(budget: OutputBudget, count: int) -> list[int]:
    return [budget.begin(given=0).window for _ in range(count)]


def test_who_runs_few_commands_has_whole_windows() -> None:
    assert windows(budget(), 12) == [WINDOW] * 12


def test_who_runs_many_has_smaller_ones_for_the_later() -> None:
    found = windows(budget(), 256)
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (WINDOW, LEAST_WINDOW)
    assert len(set(found)) > 2


def test_by_default_nobody_is_refused_a_command_that_he_may_run() -> None:
    limits = EdgeLimits()
    found = budget(limit=limits.output_bytes_per_user, most_streams=limits.execs_per_user)
    assert len(windows(found, limits.execs_per_user)) == limits.execs_per_user
    assert found.taken <= limits.output_bytes_per_user


def test_with_nothing_left_a_command_is_refused_with_the_key() -> None:
    small = budget(limit=2 * cost(LEAST_WINDOW))
    assert windows(small, 2) == [LEAST_WINDOW] * 2
    with pytest.raises(NoRoomError, match=r"uid 1000 .*limits\.output_mib_per_user"):
        small.begin(given=0)


def test_stdin_that_comes_with_the_start_counts_beyond_its_window() -> None:
    narrow = budget(limit=cost(LEAST_WINDOW) + 100 * KIB)
    with pytest.raises(NoRoomError):
        narrow.begin(given=117 * KIB)
    assert (narrow.taken, narrow.streams) == (0, 0)
    narrow.begin(given=116 * KIB)
    assert narrow.taken == narrow.limit


def test_what_ends_makes_room() -> None:
    small = budget(limit=2 * cost(LEAST_WINDOW))
    first, second = small.begin(given=0), small.begin(given=0)
    with pytest.raises(NoRoomError):
        first.take(1)
    second.end()
    first.take(1)
    first.end()
    assert (small.taken, small.streams) == (0, 0)


@given(
    limit=st.integers(1, 64 * MIB),
    most_streams=st.integers(1, 300),
    steps=st.lists(st.tuples(st.sampled_from(["begin", "take", "end"]), st.integers(0, 512 * KIB)), max_size=80),
)
def test_never_more_than_the_limit_and_all_of_it_comes_back(
    limit: int, most_streams: int, steps: list[tuple[str, int]]
) -> None:
    found = budget(limit=limit, most_streams=most_streams)
    rooms: list[GuestRoom] = []
    for step, number in steps:
        try:
            if step == "begin" and len(rooms) < most_streams:
                rooms.append(found.begin(given=number))
            elif step == "take" and rooms:
                rooms[number % len(rooms)].take(number)
            elif step == "end" and rooms:
                rooms.pop(number % len(rooms)).end()
        except NoRoomError:
            pass
        assert found.taken <= limit
        assert found.streams == len(rooms)
        assert found.taken >= sum(cost(room.window) for room in rooms)
    for room in rooms:
        room.end()
    assert (found.taken, found.streams) == (0, 0)
