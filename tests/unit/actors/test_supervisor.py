"""The supervisor: restarts what crashes, waits longer each time, gives up when it is too much, never hides an end."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from actors.supervisor import NEVER_GIVE_UP, RestartIntensityExceededError, RestartPolicy, Supervised
from tests.virtual_time import in_virtual_time
from vmm.words.backoff import Backoff

PLAIN = Backoff(initial_s=1.0, maximum_s=8.0, jitter=0.0)

Step = Callable[[trio.TaskStatus[None]], Awaitable[None]]


class CrashError(Exception):
    pass


@attrs.define
class Child:
    """Plays one step of its script each time it is started, the last one again and again."""

    script: list[Step]
    starts: list[float] = attrs.field(factory=list)

    async def main(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.starts.append(trio.current_time())
        await self.script[min(len(self.starts), len(self.script)) - 1](task_status)


def crash_after(seconds: float, *, ready: bool = True, error: Exception | None = None) -> Step:
    async def step(task_status: trio.TaskStatus[None]) -> None:
        if ready:
            task_status.started()
        await trio.sleep(seconds)
        raise error or CrashError("boom")

    return step


async def run_forever(task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep_forever()


async def finish(task_status: trio.TaskStatus[None]) -> None:
    task_status.started()


def supervised(
    child: Child, *, max_restarts: float = math.inf, window_s: float = 60.0, backoff: Backoff = PLAIN, seed: int = 1
) -> Supervised:
    policy = RestartPolicy(max_restarts=max_restarts, window_s=window_s, backoff=backoff)
    return Supervised(name="child", main=child.main, policy=policy, rng=random.Random(seed))


@in_virtual_time
async def test_a_crashed_child_is_restarted_after_a_growing_delay() -> None:
    child = Child([crash_after(0)] * 6 + [run_forever])
    with trio.move_on_after(100):
        await supervised(child).run()
    assert [b - a for a, b in itertools.pairwise(child.starts)] == [1, 2, 4, 8, 8, 8]


@in_virtual_time
async def test_a_child_that_returns_is_not_restarted() -> None:
    child = Child([crash_after(0), finish])
    subject = supervised(child)
    await subject.run()
    assert len(child.starts) == 2
    assert not subject.statistics().running


@in_virtual_time
async def test_more_crashes_than_allowed_within_the_window_end_the_supervisor_with_the_last_as_cause() -> None:
    child = Child([crash_after(0)] * 2 + [crash_after(0, error=CrashError("the last"))])
    with pytest.raises(RestartIntensityExceededError, match="child crashed 3 times within 60 s") as caught:
        await supervised(child, max_restarts=2).run()
    assert (caught.value.child, caught.value.crashes, caught.value.window_s) == ("child", 3, 60.0)
    assert pytest.RaisesGroup(pytest.RaisesExc(CrashError, match="the last")).matches(caught.value.__cause__)


@in_virtual_time
async def test_crashes_outside_the_window_do_not_count() -> None:
    child = Child([crash_after(40)])
    with trio.move_on_after(10_000) as scope:
        await supervised(child, max_restarts=2, window_s=60).run()
    assert scope.cancelled_caught, "it never crashed three times within a minute"


@in_virtual_time
async def test_a_quiet_window_resets_the_delay() -> None:
    child = Child([crash_after(0), crash_after(0), crash_after(60), run_forever])
    with trio.move_on_after(1000):
        await supervised(child, window_s=60).run()
    assert [b - a for a, b in itertools.pairwise(child.starts)] == [1, 2, 61]


@in_virtual_time
async def test_time_spent_on_becoming_ready_is_not_quiet_time() -> None:
    """A child that needs a minute to find out that it cannot work is not doing well."""
    child = Child([crash_after(60, ready=False)] * 3 + [run_forever])
    with trio.move_on_after(1000):
        await supervised(child, window_s=60).run()
    assert [b - a for a, b in itertools.pairwise(child.starts)] == [61, 62, 64]


@in_virtual_time
async def test_it_is_started_when_the_child_first_is_able_to_work() -> None:
    async def slow(task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(5)
        await run_forever(task_status)

    child = Child([crash_after(0, ready=False), slow])
    subject = supervised(child)
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        await nursery.start(subject.run)
        assert trio.current_time() - began == 1 + 5
        assert subject.statistics().running
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_readiness_is_announced_once() -> None:
    child = Child([crash_after(1), crash_after(1), run_forever])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervised(child).run)
        await trio.sleep(20)
        assert len(child.starts) == 3
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_child_that_ends_without_becoming_ready_has_crashed() -> None:
    async def leave(_task_status: trio.TaskStatus[None]) -> None:
        return

    child = Child([leave, run_forever])
    subject = supervised(child)
    async with trio.open_nursery() as nursery:
        await nursery.start(subject.run)
        assert subject.statistics().restarts == 1
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_group_of_errors_is_one_crash() -> None:
    async def several(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        raise ExceptionGroup("several", [CrashError("one"), CrashError("two")])

    child = Child([several, run_forever])
    subject = supervised(child, max_restarts=1)
    with trio.move_on_after(10):
        await subject.run()
    assert subject.statistics().restarts == 1
    assert subject.statistics().last_error == "one; two"


@pytest.mark.parametrize("step", [run_forever, crash_after(0)], ids=["while it runs", "while it waits for a restart"])
@in_virtual_time
async def test_cancellation_passes(step: Step) -> None:
    child = Child([step])
    with trio.move_on_after(0.5) as scope:
        await supervised(child).run()
    assert scope.cancelled_caught
    assert len(child.starts) == 1


@in_virtual_time
async def test_a_child_that_fails_while_it_is_cancelled_is_not_restarted() -> None:
    async def dirty(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            raise CrashError("while cleaning up")

    child = Child([dirty])
    with trio.move_on_after(0.5) as scope:
        await supervised(child).run()
    assert scope.cancelled_caught
    assert len(child.starts) == 1


@in_virtual_time
async def test_an_error_that_is_no_exception_is_not_swallowed() -> None:
    async def interrupted(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        raise KeyboardInterrupt

    with pytest.RaisesGroup(KeyboardInterrupt):
        await supervised(Child([interrupted])).run()


@in_virtual_time
async def test_jitter_shortens_the_delays_and_differs_between_supervisors() -> None:
    async def delays(seed: int) -> list[float]:
        child = Child([crash_after(0)] * 4 + [run_forever])
        jittery = Backoff(initial_s=1.0, maximum_s=8.0, jitter=0.5)
        with trio.move_on_after(100):
            await supervised(child, backoff=jittery, seed=seed).run()
        return [b - a for a, b in itertools.pairwise(child.starts)]

    first, second = await delays(1), await delays(2)
    assert first != second
    for delay, full in zip(first, [1, 2, 4, 8], strict=True):
        assert full / 2 <= delay <= full


@in_virtual_time
async def test_never_give_up_never_gives_up() -> None:
    child = Child([crash_after(0)])
    with trio.move_on_after(3600) as scope:
        await Supervised(name="child", main=child.main, policy=NEVER_GIVE_UP).run()
    assert scope.cancelled_caught
    assert len(child.starts) > 100


@in_virtual_time
async def test_changes_are_told() -> None:
    child = Child([crash_after(1), finish])
    seen: list[bool] = []
    subject = supervised(child)
    subject.on_change = lambda: seen.append(subject.statistics().running)
    await subject.run()
    assert seen == [True, False, True, False]
