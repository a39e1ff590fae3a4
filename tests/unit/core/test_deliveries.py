"""What a lease on its way to its caller holds up, and for how long."""

from __future__ import annotations

import trio
import trio.testing

from pool.core.deliveries import PATIENCE_S, Deliveries
from tests.unit.core.test_coordinator import ME, coordinating, until_ready
from tests.virtual_time import in_virtual_time
from vmm.simulated import SimulatedHost


async def waited_s(deliveries: Deliveries) -> float:
    began = trio.current_time()
    await deliveries.wait_none()
    return trio.current_time() - began


@in_virtual_time
async def test_nobody_waits_for_nothing() -> None:
    deliveries = Deliveries()
    with trio.testing.assert_no_checkpoints():
        await deliveries.wait_none()


@in_virtual_time
async def test_the_last_one_is_waited_for() -> None:
    deliveries = Deliveries()
    for lease_id in ("a", "b"):
        deliveries.begin(lease_id)

    async def end(lease_id: str, *, after_s: float) -> None:
        await trio.sleep(after_s)
        deliveries.end(lease_id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: end("a", after_s=PATIENCE_S / 4))
        nursery.start_soon(lambda: end("b", after_s=PATIENCE_S / 2))
        assert await waited_s(deliveries) == PATIENCE_S / 2


@in_virtual_time
async def test_one_that_never_ends_is_waited_for_once() -> None:
    deliveries = Deliveries()
    deliveries.begin("a")
    assert await waited_s(deliveries) == PATIENCE_S
    assert await waited_s(deliveries) == 0.0


@in_virtual_time
async def test_one_that_ends_twice_or_never_began_is_no_matter() -> None:
    deliveries = Deliveries()
    deliveries.begin("a")
    deliveries.end("a")
    deliveries.end("a")
    deliveries.end("b")
    assert await waited_s(deliveries) == 0.0


# -- the pool ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_replacement_is_begun_when_the_lease_is_delivered() -> None:
    host = SimulatedHost()
    async with coordinating(host, size=1) as coordinator:
        await until_ready(coordinator, 1)
        lease = await coordinator.acquire(profile="default", owner=ME)
        await trio.sleep(PATIENCE_S / 2)
        assert host.alive == {lease.vm_id}
        coordinator.delivered(lease)
        await trio.testing.wait_all_tasks_blocked()
        assert len(host.alive) == 2


@in_virtual_time
async def test_who_does_not_say_that_it_is_delivered_is_not_waited_for_long() -> None:
    host = SimulatedHost()
    async with coordinating(host, size=1) as coordinator:
        await until_ready(coordinator, 1)
        await coordinator.acquire(profile="default", owner=ME)
        await trio.sleep(PATIENCE_S * 1.5)
        assert len(host.alive) == 2


@in_virtual_time
async def test_a_lease_that_is_given_back_holds_nothing_up() -> None:
    host = SimulatedHost()
    async with coordinating(host, size=1) as coordinator:
        await until_ready(coordinator, 1)
        lease = await coordinator.acquire(profile="default", owner=ME)
        coordinator.give_back(lease)
        await trio.testing.wait_all_tasks_blocked()
        assert host.alive - {lease.vm_id}
