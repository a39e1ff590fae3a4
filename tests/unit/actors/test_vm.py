"""The life story of a VM actor: its facts, in their order, whatever happens; and VmGone always last."""

from __future__ import annotations

import attrs
import pytest
import trio

from actors.handout import HAND_OUT_TIMEOUT_S
from tests.unit.actors.stage import ORDER, OneVm, Wrapped, one_vm, paused_vm, story
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.simulated import (
    AgentGoesMute,
    BootFails,
    BootHangs,
    Exits,
    Moment,
    PrepareIsSlow,
    SimulatedHost,
    SimulatedVm,
    StopIsSlow,
)
from vmm.words.facts import VmGone, VmHandedOut, VmLost, VmReady
from vmm.words.life import VmState
from vmm.words.preparation import RESEED_BYTES
from vmm.words.processes import ExitReport

KILLED = ExitReport(signal=9, stderr_tail="killed")


# -- the life that goes well ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_whole_life() -> None:
    async with story(boot_s=2.0) as one:
        assert one.state() is VmState.PRODUCING
        ready = await one.until(VmReady)
        assert ready == VmReady(vm_id="vm-1", pid=0, production_s=2.0, generation="generation-1")
        assert one.state() is VmState.READY
        one.actor.hand_out(ORDER)
        assert await one.until(VmHandedOut)
        assert one.state() is VmState.LEASED
        one.actor.stop("the lease has ended")
        assert await one.until(VmGone) == VmGone(vm_id="vm-1")
    assert one.actor.state is VmState.GONE
    assert one.kinds() == ["VmReady", "VmHandedOut", "VmGone"]


@in_virtual_time
async def test_the_hand_out_makes_the_vm_unique_and_right() -> None:
    """It is reseeded, its clock is set, it has its name; and it says what it cost."""
    async with story() as one:
        await one.until(VmReady)
        vm = one.actor.vm
        assert isinstance(vm, SimulatedVm)
        one.actor.hand_out(ORDER)
        fact = await one.until(VmHandedOut)
        assert isinstance(fact, VmHandedOut)
        assert fact.report.reseeded
        assert fact.report.hostname == "guest-1"
        assert fact.report.wall_clock_ns == 42
        assert vm.machine.entropy[-1] == bytes(RESEED_BYTES)
        assert fact.timings.total_s >= max(fact.timings.resume_s, fact.timings.prepare_s) >= 0
        one.actor.stop("enough")


@in_virtual_time
async def test_resume_and_prepare_are_measured_apart() -> None:
    """A slow resume does not count as the guest's time."""
    host = SimulatedHost()

    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery)

        async def resume() -> None:
            await vm.resume()
            await trio.sleep(3.0)

        return Wrapped(vm, resume=resume)

    async with story(producer=OneVm(answer=answer)) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        fact = await one.until(VmHandedOut)
        assert isinstance(fact, VmHandedOut)
        assert (fact.timings.resume_s, fact.timings.prepare_s, fact.timings.total_s) == (3.0, 0.0, 3.0)
        one.actor.stop("enough")
    assert not host.alive


# -- stop in each state --------------------------------------------------------------------------------------------


@in_virtual_time
async def test_stop_before_it_began() -> None:
    host = SimulatedHost()
    async with story(producer=one_vm(host)) as one:
        one.actor.stop("never mind")
    assert one.kinds() == ["VmGone"]
    assert not host.alive


@in_virtual_time
async def test_stop_in_production() -> None:
    async with story(BootHangs()) as one:
        await trio.sleep(1.0)
        assert one.host.alive
        one.actor.stop("the pool wants fewer VMs")
    assert one.kinds() == ["VmGone"]


@in_virtual_time
async def test_stop_while_ready() -> None:
    async with story() as one:
        await one.until(VmReady)
        one.actor.stop("the pool wants fewer VMs")
    assert one.kinds() == ["VmReady", "VmGone"]


@in_virtual_time
async def test_stop_while_handing_out() -> None:
    async with story(AgentGoesMute(when=Moment.PAUSED)) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await trio.sleep(1.0)
        assert one.actor.state is VmState.HANDING_OUT
        one.actor.stop("its caller went away")
    assert one.kinds() == ["VmReady", "VmGone"]


@in_virtual_time
async def test_stop_while_it_stops() -> None:
    """Twice is once, and the end is told when it is there, not before."""
    async with story(StopIsSlow(delay_s=5.0)) as one:
        await one.until(VmReady)
        began = trio.current_time()
        one.actor.stop("once")
        await trio.sleep(1.0)
        assert one.actor.state is VmState.STOPPING
        assert "VmGone" not in one.kinds()
        one.actor.stop("twice")
        await one.until(VmGone)
        assert trio.current_time() == began + 5.0
    assert one.kinds() == ["VmReady", "VmGone"]


# -- death in each state -------------------------------------------------------------------------------------------


@in_virtual_time
async def test_production_fails() -> None:
    async with story(BootFails(reason="no such kernel")) as one:
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert "no such kernel" in lost.reason
    assert one.kinds() == ["VmLost", "VmGone"]


@pytest.mark.parametrize(
    "fault",
    [Exits(when=Moment.PAUSED, after_s=1.0), Exits(when=Moment.READY, after_s=5.0)],
    ids=["soon", "later"],
)
@in_virtual_time
async def test_death_while_ready(fault: Exits) -> None:
    async with story(fault) as one:
        await one.until(VmReady)
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert "killed by signal 11" in lost.reason
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


@in_virtual_time
async def test_death_while_handing_out() -> None:
    """The agent's error and the process's death are one loss, told once."""
    async with story(AgentGoesMute(when=Moment.PAUSED), Exits(when=Moment.RESUMED, after_s=1.0)) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await one.until(VmLost)
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


@in_virtual_time
async def test_death_while_leased() -> None:
    async with story(Exits(when=Moment.RESUMED, after_s=10.0)) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await one.until(VmLost)
    assert one.kinds() == ["VmReady", "VmHandedOut", "VmLost", "VmGone"]


@in_virtual_time
async def test_death_while_it_stops_is_no_loss() -> None:
    async with story(StopIsSlow(delay_s=5.0)) as one:
        await one.until(VmReady)
        vm = one.actor.vm
        assert isinstance(vm, SimulatedVm)
        one.actor.stop("enough")
        await trio.sleep(1.0)
        vm.crash(KILLED)
    assert one.kinds() == ["VmReady", "VmGone"]


@in_virtual_time
async def test_a_guest_that_is_slow_by_nature_is_given_its_time() -> None:
    async with story(PrepareIsSlow(delay_s=20.0)) as one:
        one.actor.procedure = attrs.evolve(one.actor.procedure, timeout_s=25.0)
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        handed_out = await one.until(VmHandedOut)
        assert isinstance(handed_out, VmHandedOut)
        assert handed_out.timings.total_s == 20.0
        one.actor.stop("enough")


@in_virtual_time
async def test_a_mute_agent_costs_the_vm_after_the_time_limit() -> None:
    async with story(AgentGoesMute(when=Moment.PAUSED)) as one:
        await one.until(VmReady)
        began = trio.current_time()
        one.actor.hand_out(ORDER)
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert trio.current_time() == began + HAND_OUT_TIMEOUT_S
        assert f"hand-out not done within {HAND_OUT_TIMEOUT_S:g} s" in lost.reason
