"""What the service asks of the coordinator: whether it is alive, and to let go of its VMs."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from actors.journal import Recorded
from pool.core.coordinator import Coordinator, new_id
from pool.core.requests import RefusedError
from pool.ledger.book import Ledger
from pool.ledger.effects import RefusalCode
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from pool.ledger.records import Owner
from tests.unit.actors.stage import direct, simulated_journal
from tests.virtual_time import in_virtual_time
from vmm.simulated import BootHangs, SimulatedHost, scripted
from vmm.words.leases import LeaseRequest

ME = Owner(uid=1000)
YOU = Owner(uid=1001)


@asynccontextmanager
async def coordinating(
    host: SimulatedHost, *, size: int = 2, service: ServicePolicy | None = None
) -> AsyncIterator[Coordinator]:
    """A coordinator that runs until the end of the block, whatever becomes of its VMs."""
    producer = direct(host)
    coordinator = Coordinator(
        policies={"default": PoolPolicy(size=size, production_limit=size)},
        producers={"default": producer},
        journal=simulated_journal(),
        make_id=new_id,
        rng=random.Random(1),
        service=service or ServicePolicy(),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        await nursery.start(coordinator.run)
        yield coordinator
        nursery.cancel_scope.cancel(reason="the test is over")


async def until_ready(coordinator: Coordinator, count: int) -> None:
    while coordinator.views()[0].ready < count:
        await trio.sleep(0.1)


# -- is it alive? ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_it_is_alive_while_it_reads_events() -> None:
    async with coordinating(SimulatedHost()) as coordinator:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(coordinator.prove_alive)
        assert trio.current_time() == began


@in_virtual_time
async def test_it_is_alive_when_too_much_is_asked_of_it() -> None:
    service = coordinating(SimulatedHost(boot_s=1000), service=ServicePolicy(requests=1))
    async with service as coordinator, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: coordinator.acquire(profile="default", owner=ME))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RefusedError, match="requests are already waiting"):
            await coordinator.acquire(profile="default", owner=ME)
        await coordinator.prove_alive()
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_whatever_waits_is_no_obstacle_to_releases_renewals_and_administration() -> None:
    """Each of them was refused when a thousand acquisitions waited, whosever they were."""
    host = SimulatedHost(faults=lambda number: (BootHangs(),) if number else ())
    async with coordinating(host, size=1) as coordinator, trio.open_nursery() as nursery:
        await until_ready(coordinator, 1)
        lease = await coordinator.acquire(profile="default", owner=YOU)
        for _ in range(1_000):
            nursery.start_soon(lambda: coordinator.acquire(profile="default", owner=ME))
        await trio.testing.wait_all_tasks_blocked()
        assert coordinator.statistics().open_requests == 1_000
        await coordinator.renew(lease.lease_id, owner=YOU, ttl_s=60.0)
        await coordinator.release(lease.lease_id, owner=YOU)
        await coordinator.resize("default", 2)
        await coordinator.reset("default")
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_it_is_alive_while_it_drains() -> None:
    async with coordinating(SimulatedHost()) as coordinator:
        await until_ready(coordinator, 2)
        await coordinator.shut_down()
        await coordinator.prove_alive()


@in_virtual_time
async def test_one_that_reads_nothing_is_not_alive() -> None:
    async with coordinating(SimulatedHost()) as coordinator:
        pass
    with trio.move_on_after(60) as scope:
        await coordinator.prove_alive()
    assert scope.cancelled_caught


@in_virtual_time
async def test_who_asks_and_leaves_leaves_nothing() -> None:
    async with coordinating(SimulatedHost()) as coordinator:
        with trio.CancelScope() as scope:
            scope.cancel()
            await coordinator.prove_alive()
        await coordinator.prove_alive()
        assert coordinator._proofs == []


# -- failing -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_bug_costs_the_service_and_no_vm_that_the_next_one_can_adopt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kill would; a user's VM must not end because of a fault in how they are counted."""
    host = SimulatedHost(faults=scripted({3: (BootHangs(),)}))
    kept: set[str] = set()
    with pytest.RaisesGroup(pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug"))):
        async with coordinating(host, size=3) as coordinator:
            await until_ready(coordinator, 3)
            await coordinator.acquire(profile="default", owner=ME)
            await trio.testing.wait_all_tasks_blocked()
            kept = {vm.vm_id for vm in coordinator.snapshot().vms if vm.state.value in ("ready", "leased")}

            def fail(*_: object, **__: object) -> None:
                raise RuntimeError("a bug")

            monkeypatch.setattr(Ledger, "apply", fail)
            await coordinator.prove_alive()
    assert len(kept) == 3
    assert host.alive == kept
    assert {found.vm_id for found in coordinator.journal.read_all() if isinstance(found, Recorded)} == kept


# -- handing over ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_idle_and_leased_vms_are_let_go_with_their_records_and_the_rest_ends() -> None:
    host = SimulatedHost(faults=scripted({3: (BootHangs(),)}))
    async with coordinating(host, size=3) as coordinator:
        await until_ready(coordinator, 3)
        lease = await coordinator.acquire(profile="default", owner=ME)
        await trio.testing.wait_all_tasks_blocked()
        assert coordinator.views()[0].producing == 1
        kept = {vm.vm_id for vm in coordinator.snapshot().vms if vm.state.value in ("ready", "leased")}
        await coordinator.hand_over()
        assert host.alive == kept
        assert len(kept) == 3
        found = {entry.vm_id: entry.record for entry in coordinator.journal.read_all() if isinstance(entry, Recorded)}
        assert set(found) == kept
        record = found[lease.vm_id].lease
        assert record is not None
        assert record.terms.lease_id == lease.lease_id
        assert coordinator.statistics().actors == 0
    assert host.alive == kept, "they outlive the coordinator"


@in_virtual_time
async def test_who_waits_and_who_comes_while_it_hands_over_is_refused() -> None:
    async with coordinating(SimulatedHost(boot_s=1000), size=1) as coordinator:
        codes: list[RefusalCode] = []

        async def acquire(on_empty: OnEmpty) -> None:
            with pytest.raises(RefusedError) as refused:
                await coordinator.acquire(profile="default", owner=ME, on_empty=on_empty)
            codes.append(refused.value.refusal.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(acquire, OnEmpty.WAIT)
            nursery.start_soon(acquire, OnEmpty.BOOT)
            await trio.testing.wait_all_tasks_blocked()
            await coordinator.hand_over()
        await acquire(OnEmpty.BOOT)
        assert codes == [RefusalCode.SHUTTING_DOWN] * 3


@in_virtual_time
async def test_a_lease_that_a_call_holds_open_outlives_the_call() -> None:
    host = SimulatedHost()
    async with coordinating(host, size=1) as coordinator:
        lease = await coordinator.acquire(profile="default", owner=ME, request=LeaseRequest(bound=True))
        await coordinator.hand_over()
        coordinator.give_back(lease, detail="its call was ended")
        await coordinator.prove_alive()
        assert lease.vm_id in host.alive


@in_virtual_time
async def test_handing_over_twice_is_handing_over_once() -> None:
    host = SimulatedHost()
    async with coordinating(host, size=1) as coordinator:
        await until_ready(coordinator, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(coordinator.hand_over)
            nursery.start_soon(coordinator.hand_over)
        assert len(host.alive) == 1
