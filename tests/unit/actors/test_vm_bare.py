"""A VM that is given away: let go of, marked, and from then on its taker's."""

from __future__ import annotations

import pytest
import trio

from actors.handout import UNPREPARED
from actors.journal import GivenAway, Journal
from tests.unit.actors.stage import Story, asking, story
from tests.virtual_time import in_virtual_time
from vmm.simulated import SimulatedVm
from vmm.simulated.disk import DiskFault, SimulatedDisk, Step
from vmm.words.facts import VmGone, VmHandedOut, VmLost, VmReady
from vmm.words.life import VmState
from vmm.words.processes import ExitReport

BARE = asking(bare=True)


def marked(journal: Journal) -> bool:
    return GivenAway(vm_id="vm-1") in journal.read_all()


async def offered(one: Story) -> SimulatedVm:
    await one.until(VmReady)
    vm = one.actor.vm
    assert isinstance(vm, SimulatedVm)
    one.actor.hand_out(BARE)
    fact = await one.until(VmHandedOut)
    assert isinstance(fact, VmHandedOut)
    assert fact.report == UNPREPARED
    return vm


@in_virtual_time
async def test_its_guest_is_left_alone_and_it_is_marked_before_that_is_told() -> None:
    async with story() as one:
        vm = await offered(one)
        assert marked(one.journal)
        assert one.on_disk["VmHandedOut"] is None, "no later run adopts it"
        assert len(vm.machine.entropy) == 1, "that of the rehearsal"
        assert vm.machine.state.value.power.value == "paused"
        one.actor.stop("enough")


@in_virtual_time
async def test_one_that_reached_nobody_is_ended_and_its_mark_goes_first() -> None:
    async with story() as one:
        await offered(one)
        one.actor.stop("its taker went away")
        assert not marked(one.journal)
        assert await one.until(VmGone) == VmGone(vm_id="vm-1")


@pytest.mark.parametrize("order", ["stop", "detach"])
@in_virtual_time
async def test_one_that_is_its_takers_is_not_ended_by_any_order(order: str) -> None:
    async with story() as one:
        vm = await offered(one)
        one.actor.disown()
        getattr(one.actor, order)("whatever")
        assert await one.until(VmGone) == VmGone(vm_id="vm-1", let_go=True)
        assert one.actor.state is VmState.GONE
        assert one.host.alive == {"vm-1"}
        assert marked(one.journal)
        vm.crash(ExitReport(signal=9))  # its taker ends it
    assert one.kinds() == ["VmReady", "VmHandedOut", "VmGone"]


@in_virtual_time
async def test_what_it_leaves_is_cleared_away_when_it_has_ended() -> None:
    async with story() as one:
        vm = await offered(one)
        one.actor.disown()
        one.actor.stop("it is given away")
        await one.until(VmGone)
        vm.crash(ExitReport(signal=9))
    assert not one.host.alive


@in_virtual_time
async def test_a_service_that_is_cancelled_leaves_it() -> None:
    with trio.CancelScope() as scope:
        async with story() as one:
            vm = await offered(one)
            one.actor.disown()
            scope.cancel()
            await trio.sleep_forever()
    assert one.host.alive == {"vm-1"}
    assert vm.machine.exit_report is None
    assert one.kinds() == ["VmReady", "VmHandedOut", "VmGone"]
    assert marked(one.journal)


@in_virtual_time
async def test_one_that_dies_before_it_is_in_a_hand_is_lost_and_leaves_no_mark() -> None:
    async with story() as one:
        vm = await offered(one)
        vm.crash(ExitReport(signal=9))
        await one.until(VmLost)
        assert not marked(one.journal)
        one.actor.disown()
        assert await one.until(VmGone) == VmGone(vm_id="vm-1")


@in_virtual_time
async def test_one_that_was_ordered_to_stop_is_nobodys() -> None:
    async with story() as one:
        await offered(one)
        one.actor.stop("the service stops")
        one.actor.disown()
        assert await one.until(VmGone) == VmGone(vm_id="vm-1")


@in_virtual_time
async def test_one_that_cannot_be_marked_is_lost() -> None:
    disk = SimulatedDisk()
    async with story(disk=disk) as one:
        await one.until(VmReady)
        disk.faults = lambda _, step: DiskFault.NO_SPACE if step is Step.CREATE else None
        one.actor.hand_out(BARE)
        fact = await one.until(VmLost)
        assert isinstance(fact, VmLost)
        assert "the record of vm-1 cannot be marked as given away" in fact.reason
