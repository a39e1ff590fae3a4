"""A caller's own configuration: a page that is opened for it, and closed when nothing is left on it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from pool.ledger.effects import RefusalCode
from pool.ledger.news import ProfileChange, ProfileNews
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from pool.ledger.profile import ProfilePage
from pool.ledger.records import Claim
from tests.properties.ledger.world import World
from tests.unit.ledger.test_succession import leased
from tests.unit.ledger.told import answered, granted, pool, refusal, refused
from vmm.words.life import VmState

OWN = PoolPolicy(size=0, on_empty=OnEmpty.BOOT, memory_mib=256)


def ask(world: World, *, uid: int = 1000) -> int:
    return world.acquire("own", uid=uid, on_empty=None, opens=OWN)


def test_it_is_booted_and_served() -> None:
    world = pool(size=1)
    request = ask(world)
    world.run_undisturbed()
    assert granted(world, request).profile == "own"
    assert not granted(world, request).terms.was_ready


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


def test_what_befalls_it_is_told_to_its_caller_and_not_to_everybody() -> None:
    """Everybody may watch, and the last words of its kernel may be in the reason."""
    world = World({"p": PoolPolicy(size=0)})
    requests = [ask(world) for _ in range(OWN.breaker_threshold)]
    world.process()
    for vm_id in world.in_state(VmState.PRODUCING):
        world.die(vm_id, said="its kernel panicked: xyzzy")
    world.process()
    assert all("xyzzy" in refusal(world, request).message for request in requests)
    changes = [news.change for news in world.record.news if isinstance(news, ProfileNews)]
    assert changes == [ProfileChange.CIRCUIT]
    assert "xyzzy" not in str(world.record.news)


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


def test_its_name_is_of_no_use_to_who_does_not_have_the_configuration() -> None:
    world = pool(size=1)
    first = world.acquire("own", uid=1, key="k", on_empty=None, opens=OWN)
    world.run_undisturbed()
    assert granted(world, first)
    by_name = world.acquire("own", uid=2, on_empty=OnEmpty.BOOT)
    by_key_of_another = world.acquire("own", uid=2, key="k", on_empty=OnEmpty.BOOT)
    by_another_key = world.acquire("own", uid=1, key="l", on_empty=OnEmpty.BOOT)
    world.process()
    requests = (by_name, by_key_of_another, by_another_key)
    assert {refused(world, request) for request in requests} == {RefusalCode.UNKNOWN_PROFILE}


def test_who_has_a_lease_on_it_or_waits_for_one_finds_that_again_by_its_key() -> None:
    world = pool(size=1)
    first = world.acquire("own", key="k", on_empty=None, opens=OWN)
    world.process()
    while_it_boots = world.acquire("own", key="k", on_empty=None)
    world.run_undisturbed()
    when_it_is_leased = world.acquire("own", key="k", on_empty=None)
    world.run_undisturbed()
    assert granted(world, first) == granted(world, while_it_boots) == granted(world, when_it_is_leased)


def test_it_is_no_profile_to_administer() -> None:
    world = pool(size=1)
    ask(world)
    requests = [world.resize("own", 3), world.drain("own"), world.reset("own"), world.evict(profile="own")]
    world.run_undisturbed()
    assert {refused(world, request) for request in requests} == {RefusalCode.UNKNOWN_PROFILE}


def test_a_generation_that_comes_when_it_is_closed_is_of_no_interest() -> None:
    """Its producer said so before it knew."""
    world = pool(size=1)
    world.walk_away(ask(world))
    world.run_undisturbed()
    assert world.record.closed == ["own"]
    world.change_generation("own")
    world.process()
    assert len(world.ledger.views(now=world.now)) == 1


def test_no_shells_are_kept_for_it() -> None:
    world = pool(size=1)
    request = world.acquire("own", on_empty=None, opens=PoolPolicy(size=0, on_empty=OnEmpty.BOOT, shells=1))
    world.run_undisturbed()
    assert world.in_state(VmState.SHELL) == []
    world.release(granted(world, request).lease_id, uid=1000)
    world.run_undisturbed()
    assert world.record.closed == ["own"]


def test_what_it_takes_is_known_again_after_a_restart() -> None:
    """A lease that is found opens the page, but only whoever asks knows the configuration."""
    world = World(
        {"p": PoolPolicy(size=0)}, ServicePolicy(memory_budget_mib=2048), found=(leased(profile="own", memory_mib=256),)
    )
    request = ask(world)
    world.run_undisturbed()
    assert [vm.memory_mib for vm in world.ledger.vms() if vm.vm_id == granted(world, request).vm_id] == [256]


# -- how many there may be -----------------------------------------------------------------------------------------


def based(max_vms: int, *, size: int = 0, **policy: Any) -> World:
    world = World({"p": PoolPolicy(size=size, max_vms=max_vms, **policy)})
    world.run_undisturbed()
    return world


def ask_for(world: World, name: str, *, uid: int = 1000) -> int:
    policy = world.policies["p"]
    opens = PoolPolicy(size=0, on_empty=OnEmpty.BOOT, memory_mib=256, within="p", max_vms=policy.max_vms)
    return world.acquire(name, uid=uid, on_empty=None, opens=opens, patience_s=60.0)


def test_all_configurations_together_have_no_more_vms_than_the_profile_that_they_are_based_on() -> None:
    """However different they are: each has a page of its own."""
    world = based(2)
    requests = [ask_for(world, name) for name in ("own-1", "own-2", "own-3")]
    by_name = world.acquire("p", on_empty=OnEmpty.BOOT, patience_s=60.0)
    world.process()
    for vm_id in world.busy() * 2:
        world.progress(vm_id)
        world.process()
    assert [answered(world, request) for request in (*requests, by_name)] == [True, True, False, False]
    world.advance(60.0)
    assert refused(world, requests[2]) is refused(world, by_name) is RefusalCode.DEADLINE
    assert "max_vms (2) is reached" in refusal(world, requests[2]).message
    assert world.ledger.views(now=world.now)[0].leased == 0


def test_when_one_ends_there_is_room_for_whose_turn_it_is() -> None:
    world = based(1)
    first, second = ask_for(world, "own-1"), world.acquire("p", on_empty=OnEmpty.BOOT)
    third = ask_for(world, "own-2")
    order = []
    for _ in range(3):
        world.process()
        while busy := world.busy():
            world.progress(busy[0])
            world.process()
        (lease,) = world.ledger.leases()
        order += [request for request in (first, second, third) if world.record.requests[request].answer == lease]
        world.release(lease.lease_id, uid=1000)
    assert order == [first, second, third]


def test_idle_vms_of_the_profile_make_room_for_who_waits_for_his_own() -> None:
    """Or nobody could ever have one where the pool fills the profile."""
    world = based(2, size=2)
    request = ask_for(world, "own-1")
    world.run_undisturbed()
    lease = granted(world, request)
    assert world.ledger.views(now=world.now)[0].ready == 1
    world.release(lease.lease_id, uid=1000)
    world.run_undisturbed()
    assert world.ledger.views(now=world.now)[0].ready == 2


def test_leases_of_an_earlier_run_are_counted_from_the_start() -> None:
    """Though only who asks for the same knows more of the configuration than what it is based on."""
    found = attrs.evolve(leased(profile="own-1", memory_mib=256), within="p")
    world = World({"p": PoolPolicy(size=1, max_vms=1)}, found=(found,))
    request = ask_for(world, "own-2")
    world.advance(60.0)
    assert refused(world, request) is RefusalCode.DEADLINE
    assert world.ledger.views(now=world.now)[0].ready == 0


def test_many_that_wait_are_looked_at_a_few_times_for_an_event_and_not_once_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or one user's hundred would make each event of everybody's take a hundred times as long."""
    looks = 0
    look = ProfilePage.next_to_serve

    def counted(page: ProfilePage) -> Claim | None:
        nonlocal looks
        looks += 1
        return look(page)

    world = World({"p": PoolPolicy(size=0, max_vms=1)}, only=())
    for number in range(50):
        ask_for(world, f"own-{number}")
    world.process()
    monkeypatch.setattr(ProfilePage, "next_to_serve", counted)
    world.walk_away(world.acquire("p"))
    world.process(1)
    assert 0 < looks <= 5 * 51


def test_a_profile_that_is_drained_has_no_vms_of_such_configurations_either() -> None:
    world = based(4)
    leased_one, waits = ask_for(world, "own-1"), ask_for(world, "own-2")
    world.process()
    for vm_id in [world.in_state(VmState.PRODUCING)[0]] * 2:
        world.progress(vm_id)
        world.process()
    drain = world.drain("p")
    world.process()
    again, another = ask_for(world, "own-1"), ask_for(world, "own-3")
    world.run_undisturbed()
    assert granted(world, leased_one)
    assert answered(world, drain)
    for request in (waits, again, another):
        assert refused(world, request) is RefusalCode.DRAINED
        assert refusal(world, request).message.startswith("profile p is drained; undrain it with `vmpool undrain p`")
    world.undrain("p")
    resumed = ask_for(world, "own-1")
    world.run_undisturbed()
    assert granted(world, resumed)
