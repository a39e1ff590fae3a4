"""What is on its way while the coordinator is busy: facts and orders cross, and neither does harm."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pool.core.requests import RefusedError
from pool.ledger.effects import RefusalCode
from tests.examples import examples
from tests.properties.actors.service import OWNER, PROFILE, Service, running_service
from tests.unit.actors.stage import ORDER, story
from tests.virtual_time import in_virtual_time
from vmm.errors import VmExitedError
from vmm.simulated import SimulatedVm
from vmm.words.facts import VmLost, VmReady
from vmm.words.processes import ExitReport

KILLED = ExitReport(signal=9)


async def ask_for_nonsense(service: Service) -> None:
    with pytest.raises(RefusedError) as caught:
        await service.coordinator.acquire(profile="no-such-profile", owner=OWNER)
    assert caught.value.refusal.code is RefusalCode.UNKNOWN_PROFILE


@examples(40)
@given(before=st.integers(0, 60), after=st.integers(0, 60), wait=st.integers(0, 5), order=st.random_module())
@in_virtual_time
async def test_a_vm_dies_behind_a_crowd_of_requests(before: int, after: int, wait: int, order: object) -> None:
    """It is gone when the ledger, which has not read of it yet, hands it out: the client gets another one."""

    async with running_service(size=1) as service:
        await service.quiet()
        (vm_id,) = service.host.alive
        vm = service.vm(vm_id)
        async with trio.open_nursery() as nursery:
            for _ in range(before):
                nursery.start_soon(ask_for_nonsense, service)
            for _ in range(wait):
                await trio.lowlevel.checkpoint()
            vm.crash(KILLED)
            nursery.start_soon(service.hold)
            for _ in range(after):
                nursery.start_soon(ask_for_nonsense, service)
        await service.quiet()
        service.check_at_rest()


@examples(20)
@given(order=st.random_module())
@in_virtual_time
async def test_a_vm_that_dies_as_its_order_comes_is_not_handed_out(order: object) -> None:
    """Whichever its actor notices first."""

    async with story() as one:
        await one.until(VmReady)
        vm = one.actor.vm
        assert isinstance(vm, SimulatedVm)
        await trio.sleep(1.0)
        one.actor.hand_out(ORDER)
        vm.crash(KILLED)
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]
    lost = one.facts[1]
    assert isinstance(lost, VmLost)
    assert "signal 9" in lost.reason


@in_virtual_time
async def test_orders_to_a_vm_that_is_gone_have_no_effect() -> None:
    """The same, step by step: its actor has ended when the order comes."""

    async with running_service(size=1) as service:
        await service.quiet()
        (vm_id,) = service.host.alive
        actor = service.coordinator._actors[vm_id]
        vm = service.vm(vm_id)
        async with trio.open_nursery() as nursery:
            for _ in range(900):
                nursery.start_soon(ask_for_nonsense, service)
            await trio.lowlevel.checkpoint()
            vm.crash(KILLED)
            nursery.start_soon(service.hold)
            while service.host.alive:
                await trio.lowlevel.checkpoint()
            assert service.coordinator.views()[0].ready == 1, "the ledger has read of it already"
            with pytest.raises(VmExitedError):
                _ = actor.vm
        await service.quiet()
        service.check_at_rest()


@in_virtual_time
async def test_a_lease_ends_with_its_vm() -> None:
    """Its owner learns why; until the ledger has read of it, the VM itself says that it is gone."""

    async with running_service(size=1) as service:
        lease = await service.coordinator.acquire(profile=PROFILE, owner=OWNER)
        vm = service.coordinator.vm_of(lease.lease_id, owner=OWNER)
        service.vm(lease.vm_id).crash(KILLED)
        await vm.wait_exited()
        await trio.sleep(0.1)
        with pytest.raises(RefusedError, match=r"has already ended \(vm_lost: .*signal 9.*acquire another VM"):
            service.coordinator.vm_of(lease.lease_id, owner=OWNER)
        with pytest.raises(RefusedError):
            await service.coordinator.release(lease.lease_id, owner=OWNER)
        await service.quiet()
        service.check_at_rest()


@in_virtual_time
async def test_the_deadline_is_kept_to_the_instant() -> None:
    async with running_service(size=1, boot_s=10.0) as service:
        began = trio.current_time()
        with pytest.raises(RefusedError) as caught:
            await service.hold(patience_s=2.5)
        assert trio.current_time() == began + 2.5
        assert caught.value.refusal.code is RefusalCode.DEADLINE
