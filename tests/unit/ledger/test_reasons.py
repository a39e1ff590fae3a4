"""Why a VM is ended, as one word: in what watchers see, in the order to its actor, and in the counters."""

from __future__ import annotations

import math

import pytest

from pool.ledger.demand import AdaptiveSize
from pool.ledger.news import LeaseChange, LeaseNews, VmNews
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from pool.ledger.reasons import EVICTIONS, LOSSES, OF_CAUSE, OF_LEASE, REPLACEMENTS, StopReason
from pool.ledger.records import EndReason
from tests.properties.ledger.world import World
from tests.unit.ledger.told import granted, pool
from vmm.words.facts import LossCause
from vmm.words.life import VmState


def reasons(world: World) -> list[StopReason]:
    return [news.reason for news in world.record.news if isinstance(news, VmNews) and news.reason is not None]


def counted(world: World, profile: str = "p") -> dict[StopReason, int]:
    return next(dict(view.counters.stopped) for view in world.ledger.views(now=world.now) if view.name == profile)


def leased() -> tuple[World, str, str]:
    """With the ids of lease and VM."""
    world = pool()
    request = world.acquire("p")
    world.run_undisturbed()
    lease = granted(world, request)
    return world, lease.lease_id, lease.vm_id


# -- the pool has no use for it --------------------------------------------------------------------------------------


def test_a_drain() -> None:
    world = pool(size=2)
    world.drain("p")
    world.run_undisturbed()
    assert reasons(world) == [StopReason.DRAIN] * 2
    assert counted(world) == {StopReason.DRAIN: 2}


def test_a_resize() -> None:
    world = pool(size=3)
    world.resize("p", 1)
    world.run_undisturbed()
    assert reasons(world) == [StopReason.RESIZE] * 2


def test_less_demand() -> None:
    world = World({"p": PoolPolicy(size=0, adaptive=AdaptiveSize(minimum=0, maximum=4), production_limit=4)})
    for _ in range(3):
        world.acquire("p", patience_s=1000.0)
    world.run_undisturbed()
    for lease in world.leases_in_hand():
        world.release(lease.lease_id, uid=1000)
    world.run_undisturbed()
    assert counted(world) == {StopReason.RELEASED: 3, StopReason.DEMAND: 3}


def test_a_number_that_is_reached_without_it() -> None:
    """Booted for a caller who went away meanwhile. That the pool was made smaller once is no reason any more."""
    world = pool(size=1)
    world.resize("p", 0)
    world.run_undisturbed()
    request = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    world.walk_away(request)
    world.run_undisturbed()
    assert reasons(world) == [StopReason.RESIZE, StopReason.SURPLUS]


def test_memory_that_a_claim_needs() -> None:
    policies = {"p": PoolPolicy(size=4, memory_mib=256), "q": PoolPolicy(size=0, memory_mib=512)}
    world = World(policies, ServicePolicy(memory_budget_mib=1024))
    world.run_undisturbed()
    world.acquire("q", on_empty=OnEmpty.BOOT)
    world.process()
    assert reasons(world) == [StopReason.MEMORY] * 2
    assert counted(world) == {StopReason.MEMORY: 2}


def test_memory_that_the_host_needs() -> None:
    world = pool()
    world.host_memory(low=True)
    world.process()
    assert reasons(world) == [StopReason.MEMORY]
    (told,) = [news for news in world.record.news if isinstance(news, VmNews) and news.reason]
    assert told.detail == "the host's memory is low: little is left"


def test_an_administrator() -> None:
    world = pool()
    world.evict(vm_id=world.in_state(VmState.READY)[0])
    world.process()
    assert reasons(world) == [StopReason.ADMIN]


# -- another one takes its place -------------------------------------------------------------------------------------


def test_an_older_generation() -> None:
    world = pool(size=2)
    world.change_generation("p")
    world.run_undisturbed()
    assert reasons(world) == [StopReason.STALE] * 2


def test_age() -> None:
    world = World({"p": PoolPolicy(size=1, max_age_s=100.0)})
    world.run_undisturbed()
    world.advance(100.0)
    world.run_undisturbed()
    assert StopReason.AGE in reasons(world)


def test_a_replacement_that_was_asked_for() -> None:
    world = pool(size=2)
    world.evict(profile="p")
    world.run_undisturbed()
    assert reasons(world) == [StopReason.REPLACED] * 2


# -- it is of no use to anybody --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", LossCause)
def test_an_idle_vm_that_is_lost(cause: LossCause) -> None:
    world = pool()
    world.die(world.in_state(VmState.READY)[0], cause=cause)
    world.process()
    assert reasons(world) == [OF_CAUSE[cause]]
    assert reasons(world)[0].value == cause.value


def test_a_leased_vm_that_is_lost_and_what_its_lease_says() -> None:
    world, _, vm_id = leased()
    world.die(vm_id, cause=LossCause.MUTE)
    world.process()
    assert reasons(world) == [StopReason.MUTE]
    (end,) = [n for n in world.record.news if isinstance(n, LeaseNews) and n.change is LeaseChange.ENDED]
    assert end.reason is EndReason.VM_LOST


def test_a_production_and_a_hand_out_that_fail() -> None:
    world = pool(full=False)
    world.die(world.in_state(VmState.PRODUCING)[0])
    world.run_undisturbed()
    world.acquire("p")
    world.process()
    world.die(world.in_state(VmState.HANDING_OUT)[0])
    world.process()
    assert reasons(world) == [StopReason.PRODUCTION, StopReason.HAND_OUT]


# -- its caller does not get it, or has it no more -------------------------------------------------------------------


def test_a_wish_that_its_guest_refuses() -> None:
    world = pool()
    world.acquire("p")
    world.process()
    world.refuse_wish(world.in_state(VmState.HANDING_OUT)[0])
    world.process()
    assert reasons(world) == [StopReason.WISH]


@pytest.mark.parametrize(("leaves", "reason"), [(True, StopReason.ABANDONED), (False, StopReason.DEADLINE)])
def test_a_caller_who_does_not_wait_for_the_hand_out(leaves: bool, reason: StopReason) -> None:
    world = pool()
    request = world.acquire("p", patience_s=math.inf if leaves else 1.0)
    world.process()
    if leaves:
        world.walk_away(request)
    world.advance(1.0)
    world.process()
    assert reasons(world) == [reason]


def test_a_lease_that_is_released_or_expires() -> None:
    world, lease_id, _ = leased()
    world.release(lease_id, uid=1000)
    world.run_undisturbed()
    world.acquire("p", ttl_s=5.0)
    world.process()
    world.progress(world.in_state(VmState.HANDING_OUT)[0])
    world.process()
    world.advance(5.0)
    world.process()
    assert reasons(world) == [StopReason.RELEASED, StopReason.EXPIRED]


# -- the service ends ------------------------------------------------------------------------------------------------


def test_a_shutdown_and_a_hand_over() -> None:
    ends, hands_over = pool(), pool()
    ends.shut_down()
    hands_over.hand_over()
    ends.process()
    hands_over.process()
    assert reasons(ends) == [StopReason.SHUTDOWN]
    assert reasons(hands_over) == [StopReason.HANDED_OVER]


def test_each_reason_is_of_one_kind() -> None:
    kinds = [EVICTIONS, REPLACEMENTS.keys(), LOSSES, OF_LEASE.values()]
    assert len(frozenset().union(*kinds)) == sum(len(kind) for kind in kinds)
