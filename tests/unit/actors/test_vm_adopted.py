"""A VM actor that begins with what an earlier run of the service left: a base VM, or a leased one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from actors.adoption import ADOPT_TIMEOUT_S, ATTEMPT_S, Adoption
from actors.parking import CHECK_TIMEOUT_S
from actors.record import VmRecord
from tests.unit.actors.stage import ORDER, Story, Wrapped, direct, make_actor, simulated_journal, told
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.errors import AgentProtocolError, AgentUnreachableError, VmExitedError
from vmm.simulated import Exits, Fault, Moment, SimulatedHost, SimulatedVm, StopIsSlow, scripted
from vmm.simulated.disk import SimulatedDisk
from vmm.simulated.machine import Power
from vmm.words.facts import LeaseAdopted, VmGone, VmHandedOut, VmHealthy, VmLost, VmReady
from vmm.words.kinds import ProducerKind
from vmm.words.life import VmState
from vmm.words.processes import ExitReport, ProcessIdentity


@asynccontextmanager
async def service_killed(*faults: Fault, leased: bool, in_turn: bool = True) -> AsyncIterator[Story]:
    """A VM whose service was killed, and the actor that is to adopt it: it runs once it is told to."""
    host = SimulatedHost(boot_s=1.0, faults=scripted({0: faults}))
    disk = SimulatedDisk()
    producer = direct(host)
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        before = Story(host=host, journal=simulated_journal(disk))
        before.actor = make_actor(before, producer)
        nursery.start_soon(before.actor.run)
        await before.until(VmReady)
        if leased:
            before.actor.hand_out(ORDER)
            await before.until(VmHandedOut)
        host.kill_service()
        after = Story(host=host, journal=simulated_journal(disk.after_kill()))
        nursery.cancel_scope.cancel()
    assert host.alive == {"vm-1"}
    record = after.recorded()
    assert record is not None
    after.actor = adopting(after, record, in_turn=in_turn)
    yield after


def adopting(one: Story, record: VmRecord, *, in_turn: bool = True, **replaced: Any) -> Any:
    """Its turn has come, unless it is told otherwise."""
    adoption = Adoption(record=record, adopt=replaced.pop("adopt", one.host.adopt))
    actor = make_actor(one, direct(one.host), adoption=adoption, **replaced)
    if in_turn:
        actor.reach()
    return actor


@asynccontextmanager
async def adopted(*faults: Fault, leased: bool, in_turn: bool = True) -> AsyncIterator[Story]:
    """Runs the actor; in the end it must be over, with nothing left."""
    async with service_killed(*faults, leased=leased, in_turn=in_turn) as one, trio.open_nursery() as nursery:
        async with told(one, nursery):
            yield one
        assert not one.host.alive
        assert one.recorded() is None


# -- a base VM -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_base_vm_is_ready_again_once_it_has_answered() -> None:
    async with adopted(leased=False) as one:
        assert one.state() is VmState.ADOPTING
        ready = await one.until(VmReady)
        assert ready == VmReady(
            vm_id="vm-1",
            pid=0,
            production_s=0.0,
            generation="generation-1",
            made_by=ProducerKind.DIRECT,
            adopted=True,
        )
        assert one.state() is VmState.READY
        assert one.host.machine("vm-1").state.value.power is Power.PAUSED
        assert one.on_disk["VmReady"] is not None
        one.actor.stop("enough")
    assert one.kinds() == ["VmReady", "VmGone"]


@in_virtual_time
async def test_an_adopted_base_vm_is_handed_out_and_recorded_like_any_other() -> None:
    async with adopted(leased=False) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await one.until(VmHandedOut)
        assert isinstance(one.actor.vm, SimulatedVm)
        base, leased = one.on_disk["VmReady"], one.on_disk["VmHandedOut"]
        assert base is not None
        assert leased is not None
        assert (base.lease, attrs.evolve(leased, lease=None)) == (None, base)
        assert leased.lease is not None
        assert leased.lease.terms.lease_id == "lease-1"
        one.actor.stop("enough")
    assert one.kinds() == ["VmReady", "VmHandedOut", "VmGone"]


@in_virtual_time
async def test_who_has_one_that_was_handed_out_before_it_was_asked_uses_it_at_once() -> None:
    async with adopted(leased=False) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await one.until(VmHandedOut)
        with trio.fail_after(1.0):
            assert await one.actor.wait_reached() is one.actor.vm
        one.actor.stop("enough")


@in_virtual_time
async def test_a_base_vm_that_was_found_running_is_paused() -> None:
    """The service was killed while it looked whether the VM was still good."""
    async with adopted(leased=False) as one:
        one.host.machine("vm-1").power(Power.RUNNING)
        await one.until(VmReady)
        assert one.host.machine("vm-1").state.value.power is Power.PAUSED
        one.actor.stop("enough")


@in_virtual_time
async def test_a_base_vm_waits_for_its_turn_with_its_record_and_its_guest_asleep() -> None:
    async with adopted(leased=False, in_turn=False) as one:
        await trio.sleep(10 * ADOPT_TIMEOUT_S)
        assert (one.actor.state, one.kinds()) == (VmState.ADOPTING, [])
        assert one.recorded() is not None
        one.actor.reach()
        ready = await one.until(VmReady)
        assert isinstance(ready, VmReady)
        assert ready.production_s == 0.0, "from its turn on"
        one.actor.stop("enough")
    assert one.kinds() == ["VmReady", "VmGone"]


@in_virtual_time
async def test_its_guest_is_not_woken_before_somebody_asks_it() -> None:
    async with adopted(leased=False) as one:
        machine = one.host.machine("vm-1")
        woken = trio.Event()

        async def look() -> None:
            await machine.state.wait_value(lambda state: state.power is Power.RUNNING)
            woken.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await one.until(VmReady)
            await trio.testing.wait_all_tasks_blocked()
            assert not woken.is_set()
            one.actor.check()
            await one.until(VmHealthy)
            assert woken.is_set()
        one.actor.stop("enough")


class Hung(Wrapped):
    """Its QEMU takes no commands."""

    async def hold(self, *, nursery: trio.Nursery) -> Vm:
        del nursery
        await trio.sleep_forever()
        raise AssertionError


@in_virtual_time
async def test_a_base_vm_whose_qemu_hangs_is_lost_after_the_time_limit_from_its_turn_on() -> None:
    async with service_killed(leased=False) as one:
        record = one.recorded()
        assert record is not None

        async def adopt(*arguments: Any, **named: Any) -> Any:
            return Hung(await one.host.adopt(*arguments, **named))

        one.actor = adopting(one, record, adopt=adopt, in_turn=False)
        async with trio.open_nursery() as nursery, told(one, nursery):
            await trio.sleep(60.0)
            one.actor.reach()
            began = trio.current_time()
            lost = await one.until(VmLost)
            assert isinstance(lost, VmLost)
            assert trio.current_time() == began + ADOPT_TIMEOUT_S
            assert "QEMU did not answer within 10 s of the VM's adoption" in lost.reason
            assert one.on_disk["VmLost"] is None
    assert one.kinds() == ["VmLost", "VmGone"]


@in_virtual_time
async def test_a_base_vm_whose_agent_is_mute_is_lost_when_it_is_asked() -> None:
    """It has more time the first time: its agent is to be connected to."""
    async with adopted(leased=False) as one:
        one.host.machine("vm-1").mute()
        await one.until(VmReady)
        began = trio.current_time()
        one.actor.check()
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert trio.current_time() == began + ADOPT_TIMEOUT_S
        assert "did not answer a check within 10 s" in lost.reason
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


@in_virtual_time
async def test_once_it_has_answered_it_is_a_vm_like_any_other() -> None:
    async with adopted(leased=False) as one:
        await one.until(VmReady)
        one.actor.check()
        await one.until(VmHealthy)
        one.host.machine("vm-1").mute()
        began = trio.current_time()
        one.actor.check()
        await one.until(VmLost)
        assert trio.current_time() == began + CHECK_TIMEOUT_S


@in_virtual_time
async def test_a_base_vm_that_dies_before_its_turn_is_lost_at_once() -> None:
    async with adopted(leased=False, in_turn=False) as one:
        machine = one.host.machine("vm-1")
        await trio.sleep(1.0)
        machine.exit(ExitReport(signal=9))
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert "killed by signal 9" in lost.reason
        assert one.on_disk["VmLost"] is None
    assert one.kinds() == ["VmLost", "VmGone"]


# -- a leased VM ---------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_leased_vm_is_leased_at_once_and_usable_when_its_agent_answers() -> None:
    async with adopted(leased=True) as one:
        assert await one.until(LeaseAdopted) == LeaseAdopted(vm_id="vm-1", pid=0)
        assert one.actor.state is VmState.LEASED
        await trio.testing.wait_all_tasks_blocked()
        assert (await one.actor.vm.agent.ping()).kernel_release == "simulated"
        record = one.recorded()
        assert record is not None
        assert record == one.on_disk["LeaseAdopted"]
        one.actor.stop("its lease was released")
        assert one.recorded() is None
    assert one.kinds() == ["LeaseAdopted", "VmGone"]


@in_virtual_time
async def test_a_lease_is_never_given_up_for_an_agent_that_is_busy() -> None:
    async with adopted(leased=True) as one:
        machine = one.host.machine("vm-1")
        machine.mute()
        await one.until(LeaseAdopted)
        await trio.sleep(100 * ATTEMPT_S)
        with pytest.raises(AgentUnreachableError, match=r"vm-1: its guest has not answered since .* release the lease"):
            _ = one.actor.vm
        assert one.actor.state is VmState.LEASED
        assert one.actor.renew(600.0)
        assert "Linux version" in (await one.actor.console(limit=1024) or ""), "the console tells why"

        machine.state.value = attrs.evolve(machine.state.value, mute=False)
        await trio.sleep(2 * ATTEMPT_S)
        assert await one.actor.vm.agent.ping()
        one.actor.stop("enough")
    assert one.kinds() == ["LeaseAdopted", "VmGone"]


async def garbage() -> None:
    await trio.lowlevel.checkpoint()
    raise AgentProtocolError("the guest agent sent garbage")


@pytest.mark.parametrize("fail", [garbage, trio.sleep_forever])
@in_virtual_time
async def test_a_connection_that_fails_is_tried_again(fail: Callable[[], Awaitable[None]]) -> None:
    failures = 3

    class Stubborn(Wrapped):
        async def connect(self, *, nursery: trio.Nursery) -> Vm:
            nonlocal failures
            if failures:
                failures -= 1
                await fail()
            vm: Vm = await self._vm.connect(nursery=nursery)
            return vm

    async with service_killed(leased=True) as one:
        record = one.recorded()
        assert record is not None

        async def adopt(*arguments: Any, **named: Any) -> Any:
            return Stubborn(await one.host.adopt(*arguments, **named))

        one.actor = adopting(one, record, adopt=adopt)
        async with trio.open_nursery() as nursery, told(one, nursery):
            await one.until(LeaseAdopted)
            await trio.sleep(10 * ATTEMPT_S)
            assert failures == 0
            assert await one.actor.vm.agent.ping()
            one.actor.stop("enough")
    assert one.kinds() == ["LeaseAdopted", "VmGone"]


@pytest.mark.parametrize("mute", [False, True])
@in_virtual_time
async def test_the_death_of_an_adopted_leased_vm_is_noticed_at_once(mute: bool) -> None:
    async with adopted(leased=True) as one:
        machine = one.host.machine("vm-1")
        if mute:
            machine.mute()
        await one.until(LeaseAdopted)
        await trio.sleep(5.0)
        machine.exit(ExitReport(signal=9))
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert "killed by signal 9" in lost.reason
        assert one.on_disk["VmLost"] is None
    assert one.kinds() == ["LeaseAdopted", "VmLost", "VmGone"]


@in_virtual_time
async def test_a_fault_strikes_whoever_has_the_machine_then() -> None:
    async with adopted(Exits(when=Moment.RESUMED, after_s=50.0), leased=True) as one:
        began = trio.current_time()
        await one.until(VmLost)
        assert trio.current_time() == began + 50.0


# -- what is not there any more ------------------------------------------------------------------------------------


@pytest.mark.parametrize("leased", [False, True])
@in_virtual_time
async def test_a_process_that_has_gone_is_a_lost_vm(leased: bool) -> None:
    async with adopted(leased=leased) as one:
        one.host.machine("vm-1").exit(ExitReport(signal=9))
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert "no longer running" in lost.reason
        assert one.on_disk["VmLost"] is None
    assert one.kinds() == ["VmLost", "VmGone"]


@pytest.mark.parametrize("leased", [False, True])
@in_virtual_time
async def test_a_process_with_the_same_pid_is_not_the_vm(leased: bool) -> None:
    async with service_killed(leased=leased) as one:
        record = one.recorded()
        assert record is not None
        younger = ProcessIdentity(pid=record.process.pid, start_time=record.process.start_time + 1)
        one.actor = adopting(one, attrs.evolve(record, process=younger))
        async with trio.open_nursery() as nursery, told(one, nursery):
            await one.until(VmLost)
        assert one.recorded() is None
    assert one.kinds() == ["VmLost", "VmGone"]


# -- the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leased", [False, True])
@in_virtual_time
async def test_stopped_before_it_began_it_is_ended_all_the_same(leased: bool) -> None:
    async with adopted(StopIsSlow(delay_s=5.0), leased=leased) as one:
        one.actor.stop("its profile is no more")
        assert one.recorded() is None
    assert one.kinds() == ["VmGone"]


@in_virtual_time
async def test_stopped_while_it_is_adopted() -> None:
    async with adopted(leased=False, in_turn=False) as one:
        await trio.sleep(1.0)
        assert one.actor.state is VmState.ADOPTING
        one.actor.stop("the pool wants fewer VMs")
    assert one.kinds() == ["VmGone"]


@in_virtual_time
async def test_an_end_that_crosses_the_end_of_an_adoption_is_not_undone_by_it() -> None:
    async with service_killed(leased=False) as one:
        record = one.recorded()
        assert record is not None

        class Stopping(Wrapped):
            async def hold(self, *, nursery: trio.Nursery) -> Any:
                vm = await self._vm.hold(nursery=nursery)
                one.actor.stop("the pool wants fewer VMs")
                return vm

        async def adopt(*arguments: Any, **named: Any) -> Any:
            return Stopping(await one.host.adopt(*arguments, **named))

        one.actor = adopting(one, record, adopt=adopt)
        async with trio.open_nursery() as nursery, told(one, nursery):
            pass
        assert not one.host.alive
    assert one.kinds() == ["VmGone"]


async def at_once(one: Story) -> None:
    await trio.lowlevel.checkpoint()


async def while_it_waits_for_its_turn(one: Story) -> None:
    await trio.sleep(1.0)


async def while_it_waits_for_the_agent(one: Story) -> None:
    one.host.machine("vm-1").mute()
    await trio.sleep(1.0)


async def when_it_has_answered(one: Story) -> None:
    await trio.sleep(1.0)
    assert one.actor.vm


@pytest.mark.parametrize("leased", [False, True])
@pytest.mark.parametrize(
    "when", [at_once, while_it_waits_for_its_turn, while_it_waits_for_the_agent, when_it_has_answered]
)
@in_virtual_time
async def test_let_go_again_it_can_be_adopted_again(when: Callable[[Story], Awaitable[None]], leased: bool) -> None:
    async with service_killed(leased=leased, in_turn=when is not while_it_waits_for_its_turn) as one:
        record = one.recorded()
        assert record is not None
        async with trio.open_nursery() as nursery, told(one, nursery):
            await when(one)
            one.actor.detach("another service takes over")
            assert await one.until(VmGone) == VmGone(vm_id="vm-1", let_go=True)
        assert "VmLost" not in one.kinds()
        assert (one.host.alive, one.recorded()) == (frozenset({"vm-1"}), record)
        machine = one.host.machine("vm-1")
        machine.state.value = attrs.evolve(machine.state.value, mute=False)

        again = Story(host=one.host, journal=one.journal)
        again.actor = adopting(again, record)
        async with trio.open_nursery() as nursery, told(again, nursery):
            await again.until(LeaseAdopted if leased else VmReady)
            again.actor.stop("enough")
        assert not one.host.alive


@in_virtual_time
async def test_there_is_no_vm_while_it_is_adopted() -> None:
    async with adopted(leased=False, in_turn=False) as one:
        with pytest.raises(VmExitedError):
            _ = one.actor.vm
        one.actor.stop("enough")


@in_virtual_time
async def test_a_lease_can_be_renewed_before_its_vm_is_found() -> None:
    async with service_killed(leased=True) as one:
        assert one.actor.state is VmState.ADOPTING
        assert one.actor.renew(1200.0)
        record = one.recorded()
        assert record is not None
        assert record.lease is not None
        assert record.lease.expires_at_ns == one.journal.now_ns() + 1200 * 10**9
