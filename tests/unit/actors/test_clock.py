"""The clocks of leased guests follow the host's, whatever put them off, unless somebody in the guest has set them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import structlog.testing
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from actors.clock import TOLERANCE_NS, HostClock, is_off
from actors.vigil import Vigil
from tests.unit.actors.stage import ORDER, Story, story
from tests.virtual_time import in_virtual_time
from vmm.errors import AgentRequestError
from vmm.simulated.agent import GUEST_INFO, SimulatedAgent
from vmm.simulated.machine import Machine, Power
from vmm.words.facts import VmHandedOut, VmReady
from vmm.words.preparation import GuestClock

S = 10**9
NOW = 1_800_000_000 * S

moments = st.integers(NOW - 10 * S, NOW + 10 * S)
moves = st.integers(-(2**62), 2**62)


@given(asked=moments, answered=moments, guest=moments, moved=moves)
@example(asked=NOW, answered=NOW, guest=NOW - TOLERANCE_NS - 1, moved=0)
@example(asked=NOW, answered=NOW, guest=NOW - TOLERANCE_NS, moved=0)
@example(asked=NOW, answered=NOW, guest=NOW + 3600 * S, moved=3600 * S)
def test_a_clock_is_set_if_it_is_off_and_nobody_in_the_guest_has_moved_it(
    asked: int, answered: int, guest: int, moved: int
) -> None:
    off = is_off(GuestClock(wall_clock_ns=guest, moved_ns=moved), asked_ns=asked, answered_ns=answered)
    distance = max(min(asked, answered) - guest, guest - max(asked, answered), 0)
    assert off == (distance > TOLERANCE_NS and abs(moved) <= TOLERANCE_NS)


@given(
    asked=moments, trip=st.integers(0, 20 * S), share=st.floats(0, 1), error=st.integers(-TOLERANCE_NS, TOLERANCE_NS)
)
def test_the_time_that_an_answer_takes_is_not_held_against_a_clock(
    asked: int, trip: int, share: float, error: int
) -> None:
    guest = GuestClock(wall_clock_ns=asked + int(trip * share) + error, moved_ns=0)
    assert not is_off(guest, asked_ns=asked, answered_ns=asked + trip)


@attrs.define
class Times:
    """A host's clocks in virtual time."""

    slept_ns: int = 0
    """What the monotonic clock has not seen."""

    def monotonic_ns(self) -> int:
        return int(trio.current_time() * S)

    def now_ns(self) -> int:
        return NOW + self.slept_ns + self.monotonic_ns()


@asynccontextmanager
async def leased(*, vigil: Vigil) -> AsyncIterator[tuple[Story, Times, Machine]]:
    async with trio.open_nursery() as nursery, story() as one:
        times = Times()
        one.actor.vigil = vigil
        one.actor.host_clock = HostClock(now_ns=times.now_ns, monotonic_ns=times.monotonic_ns)
        nursery.start_soon(one.actor.host_clock.run)
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await one.until(VmHandedOut)
        machine = one.host.machine("vm-1")
        machine.set_wall_clock(times.now_ns())
        yield one, times, machine
        one.actor.stop("enough")
        nursery.cancel_scope.cancel()


def off_s(machine: Machine, times: Times) -> float:
    return round((machine.wall_clock_ns - times.now_ns()) / S, 3)


@in_virtual_time
async def test_a_guest_that_has_lost_time_is_set_with_the_next_check() -> None:
    async with leased(vigil=Vigil(interval_s=60.0)) as (_, times, machine):
        await trio.sleep(1.0)
        machine.lose_time(7 * S)
        assert off_s(machine, times) == -7.0
        with structlog.testing.capture_logs() as logs:
            await trio.sleep(60.0)
        assert off_s(machine, times) == 0.0
        assert [(entry["vm"], entry["off_s"]) for entry in logs] == [("vm-1", -7.0)]


@in_virtual_time
async def test_a_clock_that_is_right_is_left_alone() -> None:
    async with leased(vigil=Vigil(interval_s=60.0)) as (_, times, machine):
        machine.lose_time(S // 4)
        await trio.sleep(300.0)
        assert off_s(machine, times) == -0.25


@in_virtual_time
async def test_a_clock_that_somebody_in_the_guest_has_set_is_theirs() -> None:
    async with leased(vigil=Vigil(interval_s=60.0)) as (_, times, machine):
        machine.move_clock(-30 * 365 * 86400 * S)
        times.slept_ns += 3600 * S
        await trio.sleep(300.0)
        assert off_s(machine, times) == -30 * 365 * 86400 - 3600


@pytest.mark.parametrize("interval_s", [60.0, float("inf")])
@in_virtual_time
async def test_after_the_host_has_slept_no_check_is_waited_for(interval_s: float) -> None:
    async with leased(vigil=Vigil(interval_s=interval_s)) as (_, times, machine):
        await trio.sleep(5.0)
        times.slept_ns += 8 * 3600 * S
        assert off_s(machine, times) == -8 * 3600
        await trio.sleep(2.0)
        assert off_s(machine, times) == 0.0


@in_virtual_time
async def test_a_host_whose_clock_was_set_back_sets_its_guests_back() -> None:
    async with leased(vigil=Vigil(interval_s=60.0)) as (_, times, machine):
        times.slept_ns -= 90 * S
        await trio.sleep(2.0)
        assert off_s(machine, times) == 0.0


@in_virtual_time
async def test_a_jump_while_the_guest_is_being_asked_is_not_missed() -> None:
    async with leased(vigil=Vigil(interval_s=60.0, answer_limit_s=10.0)) as (_, times, machine):
        await trio.sleep(30.0)
        machine.power(Power.PAUSED)
        await trio.sleep(31.0)
        times.slept_ns += 3600 * S
        await trio.sleep(15.0)
        machine.power(Power.RUNNING)  # the check is over, unanswered
        await trio.sleep(2.0)
        assert off_s(machine, times) == 0.0


@in_virtual_time
async def test_silence_after_jumps_counts_no_check() -> None:
    """Else a host whose clock is set again and again would end a VM that is merely busy."""
    async with leased(vigil=Vigil(interval_s=600.0, silence_limit_s=1.0, answer_limit_s=1.0)) as (one, times, machine):
        machine.hang()
        for _ in range(100):
            times.slept_ns += 3600 * S
            await trio.sleep(5.0)
        assert one.kinds() == ["VmReady", "VmHandedOut"]


@in_virtual_time
async def test_a_guest_that_refuses_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: SimulatedAgent, _wall_clock_ns: int) -> None:
        raise AgentRequestError(request="prepare", code="EPERM", message="Operation not permitted")

    monkeypatch.setattr(SimulatedAgent, "set_clock", refuse)
    async with leased(vigil=Vigil(interval_s=60.0)) as (one, _, machine):
        machine.lose_time(7 * S)
        with structlog.testing.capture_logs() as logs:
            await trio.sleep(300.0)
        assert [entry["log_level"] for entry in logs] == ["warning"]
        assert one.kinds() == ["VmReady", "VmHandedOut"], "it answers"


@in_virtual_time
async def test_an_agent_of_an_earlier_version_is_not_asked_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: SimulatedAgent) -> object:
        await trio.lowlevel.checkpoint()
        return GUEST_INFO

    monkeypatch.setattr(SimulatedAgent, "ping", answer)
    async with leased(vigil=Vigil(interval_s=60.0)) as (_, times, machine):
        machine.lose_time(7 * S)
        await trio.sleep(300.0)
        assert off_s(machine, times) == -7.0
