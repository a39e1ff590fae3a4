"""The record of a VM is on disk if and only if a later run of the service may adopt the VM."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from actors.record import VmRecord
from tests.unit.actors.stage import (
    BOOT_ID,
    BOOTED_S,
    ORDER,
    TERMS,
    VMS,
    OneVm,
    Story,
    Wrapped,
    direct,
    make_actor,
    paused_vm,
    simulated_journal,
    story,
    wanting,
)
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.simulated import AgentGoesMute, BootHangs, Exits, Moment, PrepareIsSlow, SimulatedHost, SimulatedVm, StopIsSlow
from vmm.simulated.disk import DiskFault, SimulatedDisk, Step
from vmm.words.facts import VmGone, VmHandedOut, VmLost, VmReady
from vmm.words.kinds import BackendKind, ProducerKind
from vmm.words.life import VmState
from vmm.words.processes import ExitReport, ProcessIdentity
from vmm.words.wishes import GuestFile

NS = 10**9
FILE = GuestFile(path="/tmp/x", data=b"x")


def full_from(first: int) -> SimulatedDisk:
    """A disk that takes so many records and is full then."""
    written = 0

    def plan(_number: int, step: Step) -> DiskFault | None:
        nonlocal written
        if step is Step.WRITE_REST:
            written += 1
            if written > first:
                return DiskFault.NO_SPACE
        return None

    return SimulatedDisk(faults=plan)


async def handed_out(one: Story) -> VmHandedOut:
    await one.until(VmReady)
    one.actor.hand_out(ORDER)
    fact = await one.until(VmHandedOut)
    assert isinstance(fact, VmHandedOut)
    return fact


# -- what is written when ------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_base_vm_is_recorded_before_it_is_told_of() -> None:
    async with story(boot_s=2.0) as one:
        await trio.sleep(1.0)
        assert one.recorded() is None
        await one.until(VmReady)
        assert one.on_disk["VmReady"] == VmRecord(
            vm_id="vm-1",
            profile="default",
            generation="generation-1",
            made_by=ProducerKind.DIRECT,
            backend=BackendKind.SIMULATED,
            process=ProcessIdentity(pid=0, start_time=1),
            boot_id=BOOT_ID,
            made_at_ns=(BOOTED_S + 2) * NS,
            lease=None,
        )
        one.actor.stop("enough")


@in_virtual_time
async def test_a_lease_is_recorded_before_it_is_told_of() -> None:
    async with story() as one:
        fact = await handed_out(one)
        base, leased = one.on_disk["VmReady"], one.on_disk["VmHandedOut"]
        assert base is not None
        assert leased is not None
        assert leased.lease is not None
        assert attrs.evolve(leased, lease=None) == base
        assert attrs.asdict(leased.lease, recurse=False) == {
            "terms": TERMS,
            "granted_at_ns": (BOOTED_S + 1) * NS,
            "expires_at_ns": (BOOTED_S + 601) * NS,
            "report": fact.report,
            "timings": fact.timings,
        }
        one.actor.stop("enough")


@in_virtual_time
async def test_a_vm_that_is_being_handed_out_has_no_record_before_anything_is_done_to_it() -> None:
    host = SimulatedHost()
    seen: list[VmRecord | None] = []

    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery)

        async def resume() -> None:
            seen.append(one.recorded())
            await vm.resume()

        return Wrapped(vm, resume=resume)

    async with story(producer=OneVm(answer=answer)) as one:
        await handed_out(one)
        assert seen == [None]
        one.actor.stop("enough")
    assert not host.alive


@in_virtual_time
async def test_a_renewal_is_recorded_at_once() -> None:
    async with story() as one:
        await handed_out(one)
        await trio.sleep(100.0)
        for expires_in_s, expires_at_ns in [(50.0, (BOOTED_S + 151) * NS), (math.inf, None)]:
            assert one.actor.renew(expires_in_s)
            record = one.recorded()
            assert record is not None
            assert record.lease is not None
            assert record.lease.granted_at_ns == (BOOTED_S + 1) * NS
            assert record.lease.expires_at_ns == expires_at_ns
        one.actor.stop("enough")
        assert not one.actor.renew(50.0)


@in_virtual_time
async def test_what_is_not_leased_is_not_renewed() -> None:
    async with story() as one:
        assert not one.actor.renew(50.0)
        await one.until(VmReady)
        assert not one.actor.renew(50.0)
        assert one.recorded() == one.on_disk["VmReady"]
        one.actor.stop("enough")


# -- what is erased when -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leased", [False, True])
@in_virtual_time
async def test_when_stop_returns_the_record_is_gone(leased: bool) -> None:
    """Whatever happens next: a slow end, a service that is killed."""
    async with story(StopIsSlow(delay_s=5.0)) as one:
        await (handed_out(one) if leased else one.until(VmReady))
        one.actor.stop("enough")
        assert one.recorded() is None
        assert one.actor.state is (VmState.LEASED if leased else VmState.READY), "the actor has not even run"


@in_virtual_time
async def test_an_end_that_crosses_the_end_of_a_hand_out_is_not_undone_by_it() -> None:
    """The order to stop comes when the guest's answer is there and the actor has yet to run."""
    host = SimulatedHost()

    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery)

        async def put_file(*_: object, **__: object) -> None:
            await trio.lowlevel.checkpoint()
            one.actor.stop("its caller went away")  # the last thing that the procedure awaits, and it returns

        return Wrapped(vm, agent=Wrapped(vm.agent, put_file=put_file))

    async with story(producer=OneVm(answer=answer)) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(hostname="guest-1", files=(FILE,)))
    assert one.kinds() == ["VmReady", "VmGone"]
    assert not host.alive


@in_virtual_time
async def test_an_end_that_crosses_the_end_of_a_production_is_not_undone_by_it() -> None:
    host = SimulatedHost()

    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery)
        one.actor.stop("the pool wants fewer VMs")
        return vm

    async with story(producer=OneVm(answer=answer)) as one:
        pass
    assert one.kinds() == ["VmGone"]
    assert not host.alive


@pytest.mark.parametrize("leased", [False, True])
@in_virtual_time
async def test_a_vm_that_died_has_no_record_when_that_is_told(leased: bool) -> None:
    async with story() as one:
        await (handed_out(one) if leased else one.until(VmReady))
        vm = one.actor.vm
        assert isinstance(vm, SimulatedVm)
        vm.crash(ExitReport(signal=9))
        await one.until(VmLost)
        assert one.on_disk["VmLost"] is None


@in_virtual_time
async def test_a_hand_out_that_fails_leaves_no_record() -> None:
    async with story(AgentGoesMute(when=Moment.PAUSED)) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await one.until(VmLost)
        assert one.on_disk["VmLost"] is None


@in_virtual_time
async def test_a_vm_that_is_cancelled_with_its_service_leaves_no_record() -> None:
    host, journal = SimulatedHost(), simulated_journal()
    producer, one = direct(host), Story(host=host, journal=journal)
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        nursery.start_soon(make_actor(one, producer).run)
        await one.until(VmReady)
        nursery.cancel_scope.cancel()
    assert one.on_disk == {"VmReady": one.on_disk["VmReady"], "VmGone": None}
    assert not host.alive


# -- what is not recorded is not promised --------------------------------------------------------------------------


@in_virtual_time
async def test_a_base_vm_that_cannot_be_recorded_is_lost() -> None:
    async with story(disk=full_from(0)) as one:
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert lost.reason.startswith("the record of vm-1 cannot be written")
        assert "No space left on device" in lost.reason
    assert one.kinds() == ["VmLost", "VmGone"]


@in_virtual_time
async def test_a_lease_that_cannot_be_recorded_is_no_lease() -> None:
    async with story(disk=full_from(1)) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert "cannot be written" in lost.reason
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


@in_virtual_time
async def test_a_renewal_that_cannot_be_recorded_leaves_the_lease_as_it_was() -> None:
    async with story(disk=full_from(2)) as one:
        await handed_out(one)
        assert not one.actor.renew(5000.0)
        assert one.recorded() == one.on_disk["VmHandedOut"]
        assert one.actor.state is VmState.LEASED
        one.actor.stop("enough")


def fails_at(step: Step, *, from_time: int = 1) -> SimulatedDisk:
    seen = 0

    def plan(_number: int, this: Step) -> DiskFault | None:
        nonlocal seen
        seen += this is step
        return DiskFault.IO_ERROR if this is step and seen == from_time else None

    return SimulatedDisk(faults=plan)


@in_virtual_time
async def test_a_record_that_only_the_end_of_the_host_could_undo_is_written() -> None:
    """No record outlives that; and a later run of the service finds it, whatever would be said of it here."""
    async with story(disk=fails_at(Step.SYNC_DIRECTORY)) as one:
        await one.until(VmReady)
        assert one.on_disk["VmReady"] is not None
        one.actor.stop("enough")


@in_virtual_time
async def test_a_vm_whose_record_cannot_be_erased_is_not_handed_out() -> None:
    async with story(disk=fails_at(Step.UNLINK)) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert lost.reason.startswith("the record of vm-1 cannot be erased")
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


@in_virtual_time
async def test_a_record_that_could_not_be_erased_is_tried_again_until_the_vm_is_gone() -> None:
    async with story(StopIsSlow(delay_s=5.0), disk=fails_at(Step.UNLINK)) as one:
        await one.until(VmReady)
        one.actor.stop("enough")
        assert one.recorded() is not None, "the disk did not do it"
        await trio.testing.wait_all_tasks_blocked()
        assert one.recorded() is None


# -- what has no place to be recorded ------------------------------------------------------------------------------


HOME = VMS / "vm-1"
NO_RECORD = "VM leased without a record; no later run of the service will adopt it"


@in_virtual_time
async def test_a_vm_whose_directory_was_removed_is_handed_out_and_renewed_without_a_record() -> None:
    """It runs, and its service will live for long; that no later run adopts it is told once."""
    disk = SimulatedDisk()
    async with story(disk=disk) as one:
        await one.until(VmReady)
        disk.lose_directory(HOME)
        with capture_logs() as logs:
            await handed_out(one)
            assert one.actor.renew(50.0)
            assert one.actor.renew(math.inf)
        assert [line["event"] for line in logs if line["log_level"] == "warning"] == [NO_RECORD]
        assert one.recorded() is None
        one.actor.stop("enough")
        assert not one.actor.renew(50.0)
    assert one.kinds() == ["VmReady", "VmHandedOut", "VmGone"]


@in_virtual_time
async def test_a_lease_whose_vms_directory_was_removed_is_renewed_without_a_record() -> None:
    disk = SimulatedDisk()
    async with story(disk=disk) as one:
        await handed_out(one)
        disk.lose_directory(HOME)
        with capture_logs() as logs:
            assert one.actor.renew(50.0)
            assert one.actor.renew(math.inf)
        assert [line["event"] for line in logs] == [NO_RECORD]
        one.actor.stop("enough")


@in_virtual_time
async def test_a_lease_without_a_record_is_not_let_go_but_ended() -> None:
    """The next run would not know that it is one."""
    disk = SimulatedDisk()
    async with story(disk=disk) as one:
        await one.until(VmReady)
        disk.lose_directory(HOME)
        await handed_out(one)
        one.actor.detach("another service takes over")
        assert await one.until(VmGone) == VmGone(vm_id="vm-1")


# -- letting go ----------------------------------------------------------------------------------------------------


async def until_ready(one: Story) -> None:
    await one.until(VmReady)


async def until_leased(one: Story) -> None:
    await handed_out(one)


@pytest.mark.parametrize("state", [until_ready, until_leased], ids=["ready", "leased"])
@in_virtual_time
async def test_a_vm_that_may_be_adopted_is_let_go(state: Callable[[Story], object]) -> None:
    async with story() as one:
        await state(one)  # type: ignore[misc]
        vm, record = one.actor.vm, one.recorded()
        assert record is not None
        one.actor.detach("another service takes over")
        assert await one.until(VmGone) == VmGone(vm_id="vm-1", let_go=True)
        assert one.actor.state is VmState.GONE
        assert not one.actor.renew(5000.0), "the record is another's now"
        assert (one.host.alive, one.recorded()) == (frozenset({"vm-1"}), record)
        assert "VmLost" not in one.kinds()
        await vm.stop()
        one.journal.erase("vm-1")


@in_virtual_time
async def test_a_vm_in_production_is_not_let_go_but_stopped() -> None:
    async with story(BootHangs()) as one:
        await trio.sleep(1.0)
        one.actor.detach("another service takes over")
    assert one.facts == [VmGone(vm_id="vm-1")]


@in_virtual_time
async def test_a_vm_half_handed_out_is_not_let_go_but_stopped() -> None:
    async with story(PrepareIsSlow(delay_s=3.0)) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await trio.sleep(1.0)
        one.actor.detach("another service takes over")
        assert await one.until(VmGone) == VmGone(vm_id="vm-1")


@in_virtual_time
async def test_a_vm_that_is_released_while_it_is_let_go_is_stopped() -> None:
    async with story() as one:
        await handed_out(one)
        one.actor.detach("another service takes over")
        one.actor.stop("its lease was released")
        assert await one.until(VmGone) == VmGone(vm_id="vm-1")


@in_virtual_time
async def test_a_vm_that_is_stopped_is_not_let_go_any_more() -> None:
    async with story() as one:
        await handed_out(one)
        one.actor.stop("its lease was released")
        one.actor.detach("another service takes over")
        assert await one.until(VmGone) == VmGone(vm_id="vm-1")


@in_virtual_time
async def test_a_vm_that_dies_while_it_is_let_go_is_lost() -> None:
    async with story(Exits(when=Moment.RESUMED, after_s=10.0)) as one:
        await handed_out(one)
        await one.until(VmLost)
        one.actor.detach("another service takes over")
        assert await one.until(VmGone) == VmGone(vm_id="vm-1")
