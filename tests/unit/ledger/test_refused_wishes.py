"""A wish that a guest refuses costs its caller's VM, and nobody anything else."""

from __future__ import annotations

import pytest

from pool.ledger.effects import RefusalCode
from pool.ledger.news import VmNews
from pool.ledger.policy import OnEmpty, PoolPolicy
from pool.ledger.reasons import StopReason
from pool.ledger.views import CircuitState
from tests.properties.ledger.world import World
from tests.unit.ledger.told import answered, granted, pool, refusal, refused, view
from vmm.words.facts import Obstacle
from vmm.words.life import VmState


def refuse_wish(world: World, *, obstacle: Obstacle = Obstacle.REQUEST) -> None:
    [vm_id] = world.in_state(VmState.HANDING_OUT)
    world.refuse_wish(vm_id, obstacle=obstacle)
    world.process()


@pytest.mark.parametrize("on_empty", OnEmpty)
def test_the_claim_is_refused_at_once_and_for_good(on_empty: OnEmpty) -> None:
    world = pool(size=3)
    request = world.acquire("p", on_empty=on_empty)
    world.process()
    refuse_wish(world)
    assert refused(world, request) is RefusalCode.WISH_REFUSED
    assert refusal(world, request).message == "files[0].path: profile p: ENOENT; correct it, or leave it out"


@pytest.mark.parametrize(
    ("obstacle", "code"),
    [
        (Obstacle.REQUEST, RefusalCode.WISH_REFUSED),
        (Obstacle.EXHAUSTED, RefusalCode.WISH_TOO_MUCH),
        (Obstacle.UNABLE, RefusalCode.WISH_UNSUPPORTED),
    ],
)
def test_the_refusal_says_what_stood_in_the_way(obstacle: Obstacle, code: RefusalCode) -> None:
    world = pool()
    request = world.acquire("p")
    world.process()
    refuse_wish(world, obstacle=obstacle)
    assert refused(world, request) is code


def test_what_was_wished_is_told_to_its_caller_alone() -> None:
    """Everybody may watch VMs; the refusal names the caller's files, in the guest's words."""
    world = pool()
    world.acquire("p")
    world.process()
    refuse_wish(world)
    [told] = [news for news in world.record.news if isinstance(news, VmNews) and news.reason is StopReason.WISH]
    assert told.detail == "its guest refused what its caller wished"


def test_it_costs_one_vm_which_is_replaced() -> None:
    world = pool(size=3)
    world.acquire("p")
    world.process()
    refuse_wish(world)
    assert (view(world).ready, view(world).stopping) == (2, 1)
    world.run_undisturbed()
    assert (view(world).ready, view(world).stopping) == (3, 0)


def test_however_often_it_says_nothing_about_the_pool() -> None:
    """No back-off, no circuit, no last error, no failed hand-out; and who comes next is served."""
    world = World({"p": PoolPolicy(size=1, breaker_threshold=1)})
    world.run_undisturbed()
    before = view(world)
    for _ in range(12):
        world.acquire("p")
        world.process()
        refuse_wish(world)
        assert view(world).circuit is CircuitState.CLOSED
        assert (view(world).failures_in_a_row, view(world).retry_in_s, view(world).last_error) == (0, 0.0, "")
        world.run_undisturbed()
    assert view(world).counters.hand_out_failures == before.counters.hand_out_failures
    assert view(world).counters.refused == before.counters.refused + 12
    request = world.acquire("p", on_empty=OnEmpty.FAIL)
    world.run_undisturbed()
    assert granted(world, request)


def test_who_waits_behind_it_is_served() -> None:
    world = pool(size=1)
    world.acquire("p")
    world.process()
    behind = world.acquire("p")
    world.process()
    refuse_wish(world)
    world.run_undisturbed()
    assert granted(world, behind)


def test_all_who_asked_with_the_same_key_are_refused() -> None:
    world = pool()
    requests = [world.acquire("p", key="k") for _ in range(2)]
    world.process()
    refuse_wish(world)
    assert [refused(world, request) for request in requests] == [RefusalCode.WISH_REFUSED] * 2


def test_a_caller_who_went_away_meanwhile_is_not_answered() -> None:
    world = pool()
    request = world.acquire("p")
    world.process()
    world.walk_away(request)
    refuse_wish(world)
    assert not answered(world, request)
    world.run_undisturbed()
    assert view(world).ready == 1


def test_a_vm_that_dies_after_it_refused_is_no_failure_either() -> None:
    world = pool()
    world.acquire("p")
    world.process()
    [vm_id] = world.in_state(VmState.HANDING_OUT)
    world.refuse_wish(vm_id)
    world.die(vm_id)
    world.process()
    assert (view(world).failures_in_a_row, view(world).counters.hand_out_failures) == (0, 0)
