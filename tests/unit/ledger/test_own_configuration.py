"""A caller's own configuration: a page that is opened for it, and closed when nothing is left on it."""

from __future__ import annotations

from actors.life import VmState
from pool.ledger.effects import RefusalCode
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from tests.properties.ledger.world import World
from tests.unit.ledger.told import granted, pool, refusal, refused

OWN = PoolPolicy(size=0, on_empty=OnEmpty.BOOT, memory_mib=256)


def ask(world: World, *, uid: int = 1000) -> int:
    return world.acquire("own", uid=uid, on_empty=None, opens=OWN)


def test_it_is_booted_and_served() -> None:
    world = pool(size=1)
    request = ask(world)
    world.run_undisturbed()
    assert granted(world, request).profile == "own"
    assert not granted(world, request).was_ready


def test_nothing_is_kept_in_reserve_and_the_page_is_closed_in_the_end() -> None:
    world = pool(size=1)
    request = ask(world)
    world.run_undisturbed()
    lease = granted(world, request)
    assert world.record.closed == []
    world.release(lease.lease_id, uid=1000)
    world.process()
    assert world.record.closed == [], "its VM is still on its way out"
    world.run_undisturbed()
    assert world.record.closed == ["own"]
    assert len(world.living) == 1, "the profile's own"


def test_two_who_ask_for_the_same_share_the_page() -> None:
    world = pool(size=1)
    first, second = ask(world, uid=1), ask(world, uid=2)
    world.run_undisturbed()
    assert granted(world, first).vm_id != granted(world, second).vm_id
    world.release(granted(world, first).lease_id, uid=1)
    world.run_undisturbed()
    assert world.record.closed == []
    world.release(granted(world, second).lease_id, uid=2)
    world.run_undisturbed()
    assert world.record.closed == ["own"]


def test_it_can_be_opened_again() -> None:
    world = pool(size=1)
    for _ in range(2):
        request = ask(world)
        world.run_undisturbed()
        world.release(granted(world, request).lease_id, uid=1000)
        world.run_undisturbed()
    assert world.record.closed == ["own", "own"]


def test_a_boot_that_fails_is_told_and_the_page_is_closed() -> None:
    world = pool(size=1)
    request = ask(world)
    world.process()
    world.die(*world.in_state(VmState.PRODUCING))
    world.run_undisturbed()
    assert refused(world, request) is RefusalCode.PRODUCTION_FAILED
    assert world.record.closed == ["own"]


def test_who_goes_away_leaves_nothing_behind() -> None:
    world = pool(size=1)
    request = ask(world)
    world.process()
    world.walk_away(request)
    world.run_undisturbed()
    assert world.record.closed == ["own"]
    assert len(world.living) == 1


def test_who_is_refused_opens_no_page() -> None:
    world = World({"p": PoolPolicy(size=1)}, ServicePolicy(leases_per_uid=0))
    request = ask(world)
    world.process()
    assert refused(world, request) is RefusalCode.QUOTA
    assert world.record.closed == ["own"], "whoever keeps something for it is told to forget it"


def test_it_is_no_profile_that_others_see() -> None:
    world = pool(size=1)
    ask(world)
    unknown = world.acquire("nothing")
    world.process()
    assert [view.name for view in world.ledger.views(now=world.now)] == ["p"]
    assert refused(world, unknown) is RefusalCode.UNKNOWN_PROFILE
    assert refusal(world, unknown).message.endswith("configured: p")
