"""Who comes first: one user's claims are served as they came over all profiles; who needs much is not passed by."""

from __future__ import annotations

import pytest

from pool.ledger.effects import RefusalCode
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from tests.properties.ledger.world import World
from tests.unit.ledger.told import answered, granted, refused
from vmm.words.life import VmState


def profile(size: int = 1, *, memory_mib: int = 256) -> PoolPolicy:
    return PoolPolicy(size=size, memory_mib=memory_mib)


def world_of(service: ServicePolicy, **profiles: PoolPolicy) -> World:
    world = World(profiles, service)
    world.run_undisturbed()
    return world


def lease_of(world: World, profile: str, *, on_empty: OnEmpty = OnEmpty.BOOT) -> int:
    request = world.acquire(profile, on_empty=on_empty)
    world.run_undisturbed()
    assert granted(world, request)
    return request


def make_one(world: World) -> None:
    """What boots becomes ready, and is somebody's if there is somebody."""
    (vm_id,) = world.in_state(VmState.PRODUCING)
    for _ in range(2):
        if vm_id in world.busy():
            world.progress(vm_id)
            world.process()


# -- one boot at a time --------------------------------------------------------------------------------------------


def test_boots_are_in_the_order_of_arrival_over_all_profiles() -> None:
    world = world_of(ServicePolicy(boots_at_once=1), p=profile(0), q=profile(0), r=profile(0))
    for name in ("q", "r", "p", "q"):
        world.acquire(name, on_empty=OnEmpty.BOOT)
    world.process()
    order = []
    while productions := world.in_state(VmState.PRODUCING):
        order += [world.record.vms[vm_id].profile for vm_id in productions]
        make_one(world)
    assert order == ["q", "r", "p", "q"]


@pytest.mark.parametrize(
    ("on_empty", "size"), [(OnEmpty.BOOT, 0), (OnEmpty.WAIT, 1)], ids=["who boots", "who waits for the pool"]
)
def test_many_who_come_later_for_another_profile_keep_nobody_waiting(on_empty: OnEmpty, size: int) -> None:
    world = world_of(ServicePolicy(boots_at_once=1), p=profile(0), q=profile(size))
    if size:
        world.acquire("q")  # what was ready
        world.process()
    earlier = [world.acquire("p", on_empty=OnEmpty.BOOT) for _ in range(2)]
    world.process()
    for vm_id in world.in_state(VmState.HANDING_OUT):
        world.progress(vm_id)
    request = world.acquire("q", on_empty=on_empty)
    world.process()
    for _ in range(len(earlier) + 1):
        world.acquire("p", on_empty=OnEmpty.BOOT)
        make_one(world)
    assert granted(world, request)


# -- memory --------------------------------------------------------------------------------------------------------


def test_small_claims_that_came_later_for_another_profile_do_not_starve_a_big_one() -> None:
    world = world_of(ServicePolicy(memory_budget_mib=1024), p=profile(1), q=profile(0))
    small = [lease_of(world, "q") for _ in range(3)]
    big = world.acquire("p", memory_mib=768)
    world.process()
    later = [world.acquire("q", on_empty=OnEmpty.BOOT) for _ in range(2)]
    for request in small[:2]:
        assert not answered(world, big)
        world.release(granted(world, request).lease_id, uid=1000)
        world.run_undisturbed()
    assert granted(world, big)
    assert not any(answered(world, request) for request in later)


def test_of_two_who_need_all_of_it_the_first_gets_it() -> None:
    """Each could keep what the other one waits for."""
    world = world_of(ServicePolicy(memory_budget_mib=1024), p=profile(1), q=profile(1))
    first, second = world.acquire("p", memory_mib=1024), world.acquire("q", memory_mib=1024)
    world.run_undisturbed()
    assert granted(world, first)
    assert not answered(world, second)
    world.release(granted(world, first).lease_id, uid=1000)
    world.run_undisturbed()
    assert granted(world, second)


@pytest.mark.parametrize("memory_mib", [None, 512], ids=["behind one who wants more", "wanting more himself"])
def test_who_would_not_wait_is_told_so_where_he_would_have_to(memory_mib: int | None) -> None:
    """A VM is ready, but the memory is not there for whoever is first in the queue."""
    world = world_of(ServicePolicy(memory_budget_mib=512), p=profile(1), q=profile(0))
    lease_of(world, "q")
    if memory_mib is None:
        world.acquire("p", memory_mib=512)
        world.process()
    request = world.acquire("p", on_empty=OnEmpty.FAIL, memory_mib=memory_mib)
    world.process()
    assert refused(world, request) is RefusalCode.NOTHING_READY
