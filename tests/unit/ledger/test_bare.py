"""Bare leases: VMs on their way out of the service, as they are."""

from __future__ import annotations

from pool.ledger.effects import RefusalCode
from pool.ledger.records import Lease
from tests.properties.ledger.world import World
from tests.unit.ledger.told import granted, pool, refusal, refused, view
from vmm.words.life import VmState


def bare() -> tuple[World, int, Lease]:
    world = pool(size=2)
    request = world.acquire("p", bare=True)
    world.run_undisturbed()
    return world, request, granted(world, request)


def test_a_bare_lease_is_granted_like_any_other_and_replaced() -> None:
    world, _, lease = bare()
    assert lease.request.bare
    assert (view(world).leased, view(world).ready) == (1, 2)


def test_a_vm_in_its_takers_hand_is_forgotten_and_lives_on() -> None:
    world, request, lease = bare()
    world.relinquish(request)
    world.process()
    assert world.ledger.leases() == ()
    assert lease.vm_id in world.detached
    world.run_undisturbed()
    assert lease.vm_id not in {vm.vm_id for vm in world.ledger.vms()}
    assert (view(world).leased, view(world).stopping, view(world).ready) == (0, 0, 2)
    release = world.release(lease.lease_id, uid=1000)
    world.process()
    assert refused(world, release) is RefusalCode.LEASE_ENDED
    assert "given_away: the VM was given away" in refusal(world, release).message


def test_a_vm_that_reached_nobody_is_stopped() -> None:
    world, request, lease = bare()
    world.return_undelivered(request)
    world.process()
    assert lease.vm_id in world.in_state(VmState.STOPPING)
    assert lease.vm_id not in world.detached


def test_a_drain_stops_what_nobody_has_and_not_what_somebody_has() -> None:
    world, request, lease = bare()
    other = world.acquire("p", bare=True)
    world.run_undisturbed()
    world.relinquish(request)
    world.shut_down()
    world.process()
    assert world.detached == {lease.vm_id}
    assert granted(world, other).vm_id in world.in_state(VmState.STOPPING)


def test_a_hand_over_stops_what_nobody_has_since_nobody_could_adopt_it() -> None:
    world, _, lease = bare()
    world.hand_over()
    world.process()
    assert lease.vm_id in world.in_state(VmState.STOPPING)
    assert lease.vm_id not in world.detached
    assert len(world.detached) == 2, "the idle ones"


def test_a_lease_that_has_ended_cannot_be_relinquished() -> None:
    world, request, lease = bare()
    world.release(lease.lease_id, uid=1000)
    world.relinquish(request)
    world.process()
    assert lease.vm_id not in world.detached
