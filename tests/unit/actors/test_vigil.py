"""The watch over a leased VM: what is told of a guest that is silent, and when its VM is given up."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from actors.vigil import TOLD_AFTER, Vigil
from tests.unit.actors.stage import ORDER, OneVm, Story, Wrapped, asking, paused_vm, story
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.errors import AgentUnreachableError, QmpConnectionError, VmExitedError
from vmm.simulated import AgentGoesMute, Moment, SimulatedHost
from vmm.simulated.machine import Machine, Power
from vmm.words.facts import VmGone, VmHandedOut, VmLost, VmReady, VmSilent
from vmm.words.life import VmState
from vmm.words.processes import ExitReport

VIGIL = Vigil(interval_s=60.0, silence_limit_s=300.0)


async def leased(one: Story, *, vigil: Vigil = VIGIL) -> Machine:
    one.actor.vigil = vigil
    await one.until(VmReady)
    one.actor.hand_out(ORDER)
    await one.until(VmHandedOut)
    return one.host.machine("vm-1")


def silences(one: Story) -> list[str]:
    return [fact.detail for fact in one.facts if isinstance(fact, VmSilent)]


@in_virtual_time
async def test_of_a_guest_that_answers_nothing_is_told() -> None:
    async with story() as one:
        await leased(one)
        await trio.sleep(10_000.0)
        assert one.actor.state is VmState.LEASED
        one.actor.stop("enough")
    assert one.kinds() == ["VmReady", "VmHandedOut", "VmGone"]


@in_virtual_time
async def test_a_qemu_that_hangs_is_given_up_after_the_limit() -> None:
    async with story() as one:
        machine = await leased(one)
        machine.hang()
        began = trio.current_time()
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert "neither QEMU nor its guest has answered 5 checks in a row" in lost.reason
        # An answer of either is waited for, ten seconds each.
        assert 300.0 <= trio.current_time() - began <= 5 * 80.0
        await one.until(VmGone)
    assert [bool(silence) for silence in silences(one)] == [True]
    assert "QEMU does not answer either" in silences(one)[0]


@pytest.mark.parametrize("how", ["mute", "paused"])
@in_virtual_time
async def test_a_guest_that_is_silent_is_told_of_and_its_lease_goes_on(how: str) -> None:
    """It may be busy beyond measure, or somebody has stopped it on purpose: that is its owner's affair."""
    async with story() as one:
        machine = await leased(one)
        if how == "mute":
            machine.mute()
        else:
            machine.power(Power.PAUSED)
        await trio.sleep(10_000.0)
        state = "running" if how == "mute" else "paused"
        assert silences(one) == [f"its guest has not answered {TOLD_AFTER} checks in a row; QEMU reports {state}"]
        assert one.actor.state is VmState.LEASED
        if how == "paused":
            machine.power(Power.RUNNING)
            await trio.sleep(60.0)
            assert silences(one)[1:] == [""]
        one.actor.stop("enough")


@in_virtual_time
async def test_a_qemu_that_hangs_after_its_guest_fell_silent_is_told_of_before_it_is_given_up() -> None:
    async with story() as one:
        machine = await leased(one)
        machine.mute()
        await trio.sleep(1000.0)
        assert "QEMU reports running" in silences(one)[0]
        machine.hang()
        await one.until(VmLost)
        assert len(silences(one)) == 2
        assert "QEMU does not answer either" in silences(one)[1]


@in_virtual_time
async def test_a_qemu_that_goes_on_in_time_was_not_gone() -> None:
    async with story() as one:
        machine = await leased(one)
        for _ in range(3):
            machine.hang()
            await trio.sleep(4 * 60.0)
            machine.hang(hung=False)
            await trio.sleep(2 * 60.0)
        assert one.actor.state is VmState.LEASED
        assert [bool(silence) for silence in silences(one)] == [True, False] * 3
        one.actor.stop("enough")


@in_virtual_time
async def test_a_vm_that_dies_is_lost_for_that() -> None:
    async with story() as one:
        machine = await leased(one)
        machine.hang()
        await trio.sleep(290.0)
        machine.exit(ExitReport(signal=9))
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert "killed by signal 9" in lost.reason
    assert one.kinds().count("VmLost") == 1


def test_time_in_which_the_service_itself_stood_still_counts_for_nothing() -> None:
    """It is checks that count: an hour in which nobody asked is one that was not answered, at most."""

    async def stand_still(clock: trio.testing.MockClock) -> None:
        async with story() as one:
            machine = await leased(one)
            machine.hang()
            await trio.sleep(65.0)  # a check is under way
            clock.jump(3600.0)
            await trio.sleep(1.0)
            machine.hang(hung=False)
            await trio.sleep(1000.0)
            assert one.actor.state is VmState.LEASED
            assert silences(one) == []
            one.actor.stop("enough")

    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(stand_still, clock, clock=clock)


@pytest.mark.parametrize("vigil", [Vigil(interval_s=math.inf), Vigil(silence_limit_s=math.inf)])
@in_virtual_time
async def test_it_may_be_left_out(vigil: Vigil) -> None:
    async with story() as one:
        machine = await leased(one, vigil=vigil)
        machine.hang()
        await trio.sleep(10_000.0)
        assert one.actor.state is VmState.LEASED
        one.actor.stop("enough")


@in_virtual_time
async def test_however_long_the_interval_several_answers_must_be_missing() -> None:
    assert Vigil(interval_s=3600.0, silence_limit_s=1.0).checks == TOLD_AFTER
    assert Vigil(interval_s=1.0, silence_limit_s=300.0).checks == 300


@pytest.mark.parametrize(
    ("says", "kinds"),
    [
        (QmpConnectionError("closed"), ["VmReady", "VmHandedOut", "VmSilent", "VmLost", "VmGone"]),
        (VmExitedError(vm_id="vm-1", reason="no main thread"), ["VmReady", "VmHandedOut", "VmLost", "VmGone"]),
    ],
)
@in_virtual_time
async def test_a_qemu_that_cannot_be_asked_is_silent_and_one_without_a_main_thread_is_gone(
    says: Exception, kinds: list[str]
) -> None:
    host = SimulatedHost()

    async def fail(*_: object) -> None:
        raise says

    async def refuse(*_: object) -> None:
        raise AgentUnreachableError("closed")

    async def produce(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery)
        return Wrapped(vm, agent=Wrapped(vm.agent, ping=refuse), run_state=fail)

    async with story(producer=OneVm(answer=produce)) as one:
        one.actor.vigil = VIGIL
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await one.until(VmLost)
    assert one.kinds() == kinds


@in_virtual_time
async def test_nobody_asks_a_vm_that_is_given_away() -> None:
    async with story(AgentGoesMute(when=Moment.PAUSED)) as one:
        one.actor.vigil = VIGIL
        await one.until(VmReady)
        one.actor.hand_out(asking(bare=True))
        await one.until(VmHandedOut)
        await trio.sleep(10_000.0)
        one.actor.stop("enough")
    assert silences(one) == []
