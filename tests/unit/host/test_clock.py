"""The service's clock: what the loop slept through does not count, and nothing is late for it."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from actors.parking import CHECK_TIMEOUT_S, check
from pool.host import clock as clock_module
from pool.host.clock import GRACE_S, LOOK_EACH_S, STANDSTILL_S, RunningClock
from tests.unit.actors.stage import Wrapped, paused_vm
from vmm.errors import AgentUnreachableError
from vmm.simulated import SimulatedHost
from vmm.words.preparation import GuestInfo

STOPPED_S = 60.0
NO_TIME_S = 1e-6


@attrs.define(eq=False)
class Host:
    """Its clock goes on when the loop waits, and when a test says so."""

    at: float = 1000.0

    def stop_service(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT so many seconds later."""
        self.at += seconds


class VirtualClock(RunningClock):
    """Never waits: what the loop would have slept is over at once."""

    def __init__(self, host: Host) -> None:
        super().__init__(lambda: host.at)
        self._host = host

    def deadline_to_sleep_time(self, deadline: float) -> float:
        self._host.at += super().deadline_to_sleep_time(deadline)
        return 0.0


@pytest.fixture
def host() -> Host:
    return Host()


Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture
def run(host: Host) -> Run:
    def run(test: Callable[[], Awaitable[None]]) -> None:
        trio.run(test, clock=VirtualClock(host))

    return run


# -- time --------------------------------------------------------------------------------------------------------------


def test_it_goes_as_fast_as_the_hosts(host: Host, run: Run) -> None:
    async def test() -> None:
        began, began_there = trio.current_time(), host.at
        await trio.sleep(10)
        assert trio.current_time() - began == pytest.approx(10)
        assert host.at - began_there == pytest.approx(10)

    run(test)


def test_the_loop_looks_at_it_often_enough_to_know_a_standstill(host: Host) -> None:
    clock = RunningClock(lambda: host.at)
    assert clock.deadline_to_sleep_time(float("inf")) == LOOK_EACH_S
    assert clock.deadline_to_sleep_time(clock.current_time() - 1) == 0
    assert LOOK_EACH_S < STANDSTILL_S


def test_a_standstill_does_not_count_and_is_counted(host: Host) -> None:
    clock = RunningClock(lambda: host.at)
    began = clock.current_time()
    host.stop_service(STOPPED_S)
    assert clock.current_time() == began
    assert clock.stood_s == STOPPED_S


def test_for_a_moment_after_it_no_time_passes(host: Host) -> None:
    clock = RunningClock(lambda: host.at)
    began = clock.current_time()
    host.stop_service(STOPPED_S)
    clock.current_time()
    host.at += GRACE_S
    assert clock.current_time() == began
    assert clock.deadline_to_sleep_time(began + 0.125) == 0.125
    host.at += 0.125
    assert clock.current_time() == pytest.approx(began + 0.125)


def test_while_it_stands_the_loop_waits_until_it_goes_on(host: Host) -> None:
    clock = RunningClock(lambda: host.at)
    host.stop_service(STOPPED_S)
    began = clock.current_time()
    host.at += GRACE_S - 0.05
    assert clock.deadline_to_sleep_time(began + 0.125) == pytest.approx(0.175)


def test_what_a_loop_takes_that_is_only_busy_counts(host: Host) -> None:
    clock = RunningClock(lambda: host.at)
    began = clock.current_time()
    host.stop_service(STANDSTILL_S)
    assert clock.current_time() == began + STANDSTILL_S
    assert clock.stood_s == 0


@pytest.mark.parametrize("late_s", [STANDSTILL_S * 1.02, 0.6, 3.0, STOPPED_S])
@pytest.mark.parametrize("runs_s", [0.0, 0.02, GRACE_S - 0.01, GRACE_S + 0.0001, 0.4])
def test_on_a_host_that_is_late_again_and_again_it_goes_on(host: Host, late_s: float, runs_s: float) -> None:
    """Or no lease would expire, and nothing that hangs would be ended."""
    clock = RunningClock(lambda: host.at)
    began, times = clock.current_time(), 1000
    for _ in range(times):
        host.stop_service(late_s)
        clock.current_time()
        host.at += runs_s
        clock.current_time()
    assert clock.current_time() - began > times * STANDSTILL_S * 0.49
    assert clock.stood_s == pytest.approx(times * late_s)


def test_a_standstill_after_half_a_second_of_time_is_free_again(host: Host) -> None:
    clock = RunningClock(lambda: host.at)
    for _ in range(3):
        began = clock.current_time()
        host.stop_service(STOPPED_S)
        assert clock.current_time() == began
        host.at += GRACE_S
        clock.current_time()
        host.at += STANDSTILL_S
        assert clock.current_time() == pytest.approx(began + STANDSTILL_S)


def test_one_before_that_counts_as_the_shortest(host: Host) -> None:
    clock = RunningClock(lambda: host.at)
    began = clock.current_time()
    for _ in range(2):
        host.stop_service(STOPPED_S)
        clock.current_time()
    assert clock.current_time() == began + STANDSTILL_S


# -- time limits -------------------------------------------------------------------------------------------------------


def test_an_answer_that_came_while_the_service_was_stopped_counts(host: Host, run: Run) -> None:
    """A task reads it, and hands it to another one, which had no time left."""

    async def test() -> None:
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        answered = trio.Event()

        async def read() -> None:
            assert await stream.receive_some() == b"pong"
            answered.set()

        async def stop_just_before_the_deadline() -> None:
            await trio.sleep(2 - NO_TIME_S)
            theirs.send(b"pong")
            host.stop_service(STOPPED_S)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(stop_just_before_the_deadline)
            with trio.fail_after(2):
                await answered.wait()
        await stream.aclose()
        theirs.close()

    run(test)


async def _check(host: Host, *, answer_after_s: float) -> None:
    """Of an idle VM; the service is stopped in the middle of it."""

    async def ping() -> GuestInfo:
        host.stop_service(STOPPED_S)
        await trio.sleep(answer_after_s)
        return GuestInfo(agent_version=1, kernel_release="6.1")

    async with trio.open_nursery() as nursery:
        vm = await paused_vm(SimulatedHost(), nursery)
        await check(Wrapped(vm, agent=Wrapped(vm.agent, ping=ping)))
        nursery.cancel_scope.cancel(reason="the check is done")


def test_an_idle_vm_has_its_time_to_answer_a_check(host: Host, run: Run) -> None:
    run(lambda: _check(host, answer_after_s=CHECK_TIMEOUT_S * 0.9))


def test_and_no_more_than_that(host: Host, run: Run) -> None:
    with pytest.RaisesGroup(AgentUnreachableError):
        run(lambda: _check(host, answer_after_s=CHECK_TIMEOUT_S * 1.1))


def test_what_is_run_on_it_has_it() -> None:
    async def clock() -> trio.abc.Clock:
        return trio.lowlevel.current_clock()

    assert isinstance(clock_module.run(clock), RunningClock)
