"""Care for idle VMs: their agents are asked now and then, the old ones are replaced, and all of it few at a time."""

from __future__ import annotations

import math

import pytest

from pool.ledger.events import GenerationChanged
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from tests.properties.ledger.world import World
from tests.unit.ledger.told import granted, view
from vmm.words.backoff import Backoff
from vmm.words.life import VmState

EVERY_S = 10.0


def checked(*, size: int = 4, checks_at_once: int = 2, check_interval_s: float = EVERY_S) -> World:
    world = World(
        {"p": PoolPolicy(size=size, production_limit=size, check_interval_s=check_interval_s)},
        ServicePolicy(checks_at_once=checks_at_once),
    )
    world.run_undisturbed()
    return world


def answer_checks(world: World) -> None:
    for vm_id in sorted(world.checking):
        world.progress(vm_id)
    world.process()


# -- checks --------------------------------------------------------------------------------------------------------


def test_nobody_is_asked_unless_it_is_wished_for() -> None:
    world = checked(check_interval_s=math.inf)
    assert world.ledger.next_wakeup() == math.inf
    world.advance(1_000.0)
    assert not world.checking


def test_vms_that_became_ready_together_are_not_asked_together() -> None:
    world = checked(size=8, checks_at_once=8)
    asked_at: list[float] = []
    while len(asked_at) < 8:
        world.advance(world.ledger.next_wakeup() - world.now)
        asked_at += [world.now] * len(world.checking)
        answer_checks(world)
    assert len(set(asked_at)) == 8
    assert all(EVERY_S / 2 <= at <= EVERY_S for at in asked_at)


def test_each_is_asked_again_and_again() -> None:
    world = checked(size=1)
    for _ in range(3):
        world.advance(EVERY_S)
        assert len(world.checking) == 1
        answer_checks(world)
        assert world.ledger.next_wakeup() == world.now + EVERY_S


def test_few_are_asked_at_a_time() -> None:
    world = checked(size=4, checks_at_once=2)
    world.advance(EVERY_S)
    assert len(world.checking) == 2
    assert world.ledger.next_wakeup() == math.inf, "the next is asked when one has answered"
    world.progress(min(world.checking))
    world.process()
    assert len(world.checking) == 2


def test_one_that_is_being_asked_is_handed_out_last() -> None:
    """Whoever got it would have to wait for its answer."""
    world = checked(size=2, checks_at_once=1)
    world.advance(EVERY_S)
    (asked,) = world.checking
    requests = [world.acquire("p", on_empty=OnEmpty.FAIL) for _ in range(2)]
    world.process()
    world.run_undisturbed()
    assert [granted(world, request).vm_id == asked for request in requests] == [False, True]


def test_an_answer_that_comes_when_it_is_somebodys_is_of_no_interest() -> None:
    world = checked(size=1)
    world.advance(EVERY_S)
    (asked,) = world.checking
    world.progress(asked)
    request = world.acquire("p")
    world.inbox.rotate()  # it was asked for before the answer was read
    world.run_undisturbed()
    assert granted(world, request).vm_id == asked


def test_one_that_does_not_answer_goes_and_is_replaced() -> None:
    world = checked(size=2)
    world.advance(EVERY_S)
    silent = min(world.checking)
    world.die(silent)
    world.process()
    assert view(world).counters.lost_idle == 1
    assert view(world).producing == 1
    world.run_undisturbed()
    assert view(world).ready == 2
    assert silent not in world.living


def test_the_budget_is_that_of_all_profiles_together() -> None:
    policy = PoolPolicy(size=2, check_interval_s=EVERY_S)
    world = World({"p": policy, "q": policy}, ServicePolicy(checks_at_once=1))
    world.run_undisturbed()
    world.advance(EVERY_S)
    assert len(world.checking) == 1


def test_nobody_is_asked_while_the_service_ends() -> None:
    world = checked()
    world.stall(EVERY_S)
    world.hand_over()
    world.process()
    assert not world.checking
    assert world.ledger.next_wakeup() == math.inf


# -- age -----------------------------------------------------------------------------------------------------------


def aging(*, size: int = 4, min_ready: int = 2) -> World:
    world = World({"p": PoolPolicy(size=size, min_ready=min_ready, production_limit=1, max_age_s=60.0)})
    world.run_undisturbed()
    return world


def test_vms_that_idled_for_too_long_are_replaced_few_at_a_time() -> None:
    world = aging()
    old = set(world.in_state(VmState.READY))
    world.advance(59.9)
    assert view(world).stale == 0
    world.advance(0.1)
    assert (view(world).ready, view(world).stale, view(world).producing) == (3, 3, 1)
    world.run_undisturbed()
    assert not old & set(world.in_state(VmState.READY))
    assert (view(world).ready, view(world).stale, view(world).counters.rolled) == (4, 0, 4)


def test_the_only_one_is_replaced_before_it_goes() -> None:
    world = aging(size=1, min_ready=1)
    (old,) = world.in_state(VmState.READY)
    world.advance(60.0)
    assert world.in_state(VmState.READY) == [old]
    assert view(world).producing == 1
    world.run_undisturbed()
    assert old not in world.living
    assert view(world).ready == 1


@pytest.mark.parametrize(
    ("policy", "service"),
    [
        (PoolPolicy(size=1, max_vms=2, max_age_s=60.0), ServicePolicy()),
        (PoolPolicy(size=1, memory_mib=256, max_age_s=60.0), ServicePolicy(memory_budget_mib=512)),
    ],
    ids=["max_vms", "memory"],
)
def test_the_only_one_waits_for_its_replacement_where_that_takes_the_last_room(
    policy: PoolPolicy, service: ServicePolicy
) -> None:
    world = World({"p": policy}, service=service)
    world.run_undisturbed()
    (old,) = world.in_state(VmState.READY)
    world.advance(60.0)
    world.resize("p", 1)  # nothing new, but one more decision
    assert (world.in_state(VmState.READY), view(world).producing) == ([old], 1)
    world.run_undisturbed()
    assert old not in world.living
    assert (view(world).ready, view(world).stale) == (1, 0)


def test_the_only_one_goes_first_where_there_is_no_room_for_two() -> None:
    world = World({"p": PoolPolicy(size=1, max_vms=1, max_age_s=60.0)})
    world.run_undisturbed()
    (old,) = world.in_state(VmState.READY)
    world.advance(60.0)
    assert old not in world.in_state(VmState.READY)
    world.run_undisturbed()
    assert (view(world).ready, view(world).stale) == (1, 0)


def test_an_old_vm_is_better_than_none() -> None:
    world = aging(size=1, min_ready=1)
    (old,) = world.in_state(VmState.READY)
    world.advance(60.0)
    request = world.acquire("p", on_empty=OnEmpty.FAIL)
    world.run_undisturbed()
    assert granted(world, request).vm_id == old


def test_a_younger_one_is_preferred() -> None:
    world = aging(size=2, min_ready=2)
    world.advance(30.0)
    world.evict(vm_id=world.in_state(VmState.READY)[0])
    world.run_undisturbed()
    old, young = world.ledger._moves.fleet.pages["p"].ready
    world.advance(30.0)
    request = world.acquire("p", on_empty=OnEmpty.FAIL)
    world.run_undisturbed()
    assert granted(world, request).vm_id == young != old


def test_what_is_somebodys_is_never_too_old() -> None:
    world = aging(size=1)
    request = world.acquire("p")
    world.run_undisturbed()
    world.advance(600.0)
    world.run_undisturbed()
    assert world.living[granted(world, request).vm_id] is VmState.LEASED


def test_a_generation_that_comes_back_makes_nobody_younger() -> None:
    backoff = Backoff(initial_s=1e4, maximum_s=1e4, jitter=0.0)
    world = World({"p": PoolPolicy(size=1, min_ready=1, max_age_s=60.0, backoff=backoff)})
    world.run_undisturbed()
    world.inbox.append(GenerationChanged(profile="p", generation="other"))
    world.process()
    world.die(*world.in_state(VmState.PRODUCING))  # so that it is not replaced
    world.process()
    world.advance(60.0)
    world.inbox.append(GenerationChanged(profile="p", generation=""))
    world.process()
    assert (view(world).ready, view(world).stale) == (1, 1)
