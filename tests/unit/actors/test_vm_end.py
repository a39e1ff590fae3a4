"""How a VM actor ends: the end is verified or told not to be, the evidence goes along, and a bug costs one VM."""

from __future__ import annotations

import pytest
import trio

from actors.vm import VmActor
from tests.unit.actors.stage import ORDER, OneVm, direct, one_vm, simulated_journal, story
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.errors import BootError, StopError, VmExitedError
from vmm.simulated import BootFails, SimulatedHost, StopIsSlow
from vmm.words.facts import VmGone, VmLost, VmReady
from vmm.words.preparation import Preparation
from vmm.words.processes import BootStage, ExitReport

# -- evidence ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_evidence_goes_along() -> None:
    async def answer(_nursery: trio.Nursery) -> Vm:
        error = BootError(stage=BootStage.GUEST, reason="panic")
        error.add_note("end of guest console: Kernel panic")
        raise error

    async with story(producer=OneVm(answer=answer)) as one:
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert lost.evidence == "end of guest console: Kernel panic"
        assert "\n" not in lost.reason


# -- the end is verified -------------------------------------------------------------------------------------------


@in_virtual_time
@pytest.mark.logs_error("VM could not be ended")
async def test_an_end_that_cannot_be_verified_is_told_so() -> None:
    host = SimulatedHost()

    async def stop() -> ExitReport:
        raise StopError(pid=7, limit_s=5.0, state="D (disk sleep)")

    async with story(producer=one_vm(host, stop=stop)) as one:
        await one.until(VmReady)
        one.actor.stop("enough")
        gone = await one.until(VmGone)
        assert isinstance(gone, VmGone)
        assert gone.error is not None
        assert "process 7 still exists" in gone.error


@in_virtual_time
@pytest.mark.logs_error("VM could not be ended")
async def test_a_bug_in_stop_does_not_pass_for_an_end() -> None:
    host = SimulatedHost()

    async def stop() -> ExitReport:
        raise OSError("no such directory")

    async with story(producer=one_vm(host, stop=stop)) as one:
        await one.until(VmReady)
        one.actor.stop("enough")
        assert await one.until(VmGone) == VmGone(vm_id="vm-1", error="no such directory")


@in_virtual_time
async def test_a_production_that_could_not_take_back_its_process_is_told_so() -> None:
    async def answer(_nursery: trio.Nursery) -> Vm:
        raise StopError(pid=7, limit_s=5.0, state="D (disk sleep)")

    async with story(producer=OneVm(answer=answer)) as one:
        gone = await one.until(VmGone)
        assert isinstance(gone, VmGone)
        assert gone.error is not None
        assert "process 7 still exists" in gone.error
    assert one.kinds() == ["VmLost", "VmGone"]


@pytest.mark.parametrize("after_s", [0.5, 1.5], ids=["in production", "while ready"])
@in_virtual_time
async def test_cancelled_from_outside_it_ends_its_vm_first(after_s: float) -> None:
    """As when the whole service goes down: the slow end is waited for."""
    host = SimulatedHost(boot_s=1.0, faults=lambda _number: [StopIsSlow(delay_s=5.0)])
    facts: list[object] = []
    producer = direct(host)
    async with trio.open_nursery() as outer:
        await outer.start(producer.run)
        with trio.move_on_after(after_s):
            await VmActor(
                vm_id="vm-1", profile="default", producer=producer, report=facts.append, journal=simulated_journal()
            ).run()
        assert not host.alive
        assert facts[-1] == VmGone(vm_id="vm-1")
        assert trio.current_time() == (after_s if after_s < 1 else after_s + 5.0)
        outer.cancel_scope.cancel()


# -- what is a bug costs one VM ------------------------------------------------------------------------------------


class BrokenAgent:
    async def prepare(self, preparation: Preparation) -> None:
        raise ZeroDivisionError("a bug")

    async def wait_broken(self) -> None:
        await trio.sleep_forever()


@in_virtual_time
@pytest.mark.logs_error("VM actor failed")
async def test_an_internal_error_costs_only_this_vm() -> None:
    host = SimulatedHost()
    async with story(producer=one_vm(host, agent=BrokenAgent())) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        lost = await one.until(VmLost)
        assert lost == VmLost(vm_id="vm-1", reason="internal error: a bug")
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]
    assert not host.alive


@in_virtual_time
@pytest.mark.logs_error("VM actor failed")
async def test_a_producer_with_a_bug_costs_only_this_vm() -> None:
    async def answer(_nursery: trio.Nursery) -> Vm:
        raise ZeroDivisionError("a bug")

    async with story(producer=OneVm(answer=answer)) as one:
        await one.until(VmGone)
    assert one.kinds() == ["VmLost", "VmGone"]


# -- asked at the wrong time ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_there_is_no_vm_before_production_and_none_after_the_end() -> None:
    async with story() as one:
        with pytest.raises(VmExitedError):
            _ = one.actor.vm
        await one.until(VmReady)
        assert one.actor.vm.id == "vm-1"
        one.actor.stop("enough")
        await one.until(VmGone)
        with pytest.raises(VmExitedError):
            _ = one.actor.vm


@in_virtual_time
async def test_orders_to_a_vm_that_has_ended_have_no_effect() -> None:
    async with story(BootFails()) as one:
        await one.until(VmGone)
        one.actor.hand_out(ORDER)
        one.actor.stop("enough")
    assert one.kinds() == ["VmLost", "VmGone"]
