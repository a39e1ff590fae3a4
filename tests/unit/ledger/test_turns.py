"""Users take turns: whoever comes waits for one claim of each other user, however many those have asked for."""

from __future__ import annotations

import pytest

from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from pool.ledger.records import Lease
from tests.properties.ledger.world import World
from tests.unit.ledger.told import answered, pool, refusal
from vmm.words.life import VmState


def served(world: World) -> list[int]:
    """Whose requests were granted since, one VM after the other."""
    order: list[int] = []
    requests = world.record.requests
    waiting = [request for request in world.open_requests() if not requests[request].answers]
    while busy := world.busy():
        world.progress(busy[0])
        world.process()
        order += [requests[request].owner.uid for request in waiting if isinstance(requests[request].answer, Lease)]
        waiting = [request for request in waiting if not requests[request].answers]
        for lease in world.ledger.leases():
            world.release(lease.lease_id, uid=0)
        world.process()
    return order


def ask(world: World, *uids: int, profile: str = "p", on_empty: OnEmpty = OnEmpty.WAIT) -> list[int]:
    requests = [world.acquire(profile, uid=uid, on_empty=on_empty) for uid in uids]
    world.process()
    return requests


def test_many_of_one_user_keep_another_waiting_for_one_of_them() -> None:
    world = pool(size=1, full=False)
    ask(world, 1, 1, 1, 1, 2, 2, 3)
    assert served(world) == [1, 2, 3, 1, 2, 1, 1]


def test_who_comes_is_in_the_round_that_is_served() -> None:
    world = pool(size=1, full=False)
    ask(world, 1, 1, 1)
    (first,) = world.busy()
    for _ in range(2):  # it is made and handed out
        world.progress(first)
        world.process()
    ask(world, 2, 2)
    assert served(world) == [1, 2, 1, 2]


def test_of_one_user_who_came_first_is_served_first() -> None:
    world = pool(size=1, full=False)
    requests = ask(world, 1, 2, 1, 2, 1)
    got = []
    while busy := world.busy():
        world.progress(busy[0])
        world.process()
        got += [r for r in requests if answered(world, r) and r not in got]
        for lease in world.ledger.leases():
            world.release(lease.lease_id, uid=0)
        world.process()
    assert got == requests


@pytest.mark.parametrize("given_up", [0, 1, 2])
def test_who_gives_up_one_claim_loses_no_turn_of_his_others(given_up: int) -> None:
    """Or a client that asks anew after each time limit would come last for good."""
    world = pool(size=1, full=False)
    mine = ask(world, 1, 1, 1)
    ask(world, 2, 2)
    world.walk_away(mine[given_up])
    world.process()
    ask(world, 1)
    assert served(world) == [1, 2, 1, 2, 1]


def test_who_would_boot_takes_turns_too() -> None:
    world = World({"p": PoolPolicy(size=0)}, ServicePolicy(boots_at_once=1))
    ask(world, 1, 1, 1, 2, on_empty=OnEmpty.BOOT)
    assert served(world) == [1, 2, 1, 1]


def test_boots_are_shared_by_users_over_all_profiles() -> None:
    world = World({"p": PoolPolicy(size=0), "q": PoolPolicy(size=0)}, ServicePolicy(boots_at_once=1))
    ask(world, 1, 1, 1, 1, on_empty=OnEmpty.BOOT)
    ask(world, 2, 2, profile="q", on_empty=OnEmpty.BOOT)
    assert served(world) == [1, 2, 1, 2, 1, 1]


def test_who_asks_for_one_after_another_elsewhere_does_not_overtake_for_ever() -> None:
    world = World({"p": PoolPolicy(size=0), "q": PoolPolicy(size=0)}, ServicePolicy(boots_at_once=1))
    ask(world, 1, 1, 1, 1, on_empty=OnEmpty.BOOT)
    order: list[int] = []
    for _ in range(20):
        if not any(request.owner.uid == 2 and not request.answers for request in world.record.requests.values()):
            ask(world, 2, profile="q", on_empty=OnEmpty.BOOT)
        world.progress(world.busy()[0])
        world.process()
        for lease in world.ledger.leases():
            order.append(lease.owner.uid)
            world.release(lease.lease_id, uid=0)
        world.process()
    assert order.count(1) >= order.count(2) - 1 >= 2


def test_a_claim_whose_hand_out_failed_is_where_it_was() -> None:
    world = pool(size=1, full=False)
    ask(world, 1, 1, 2)
    (vm_id,) = world.busy()
    world.progress(vm_id)
    world.process()
    world.die(*world.in_state(VmState.HANDING_OUT))
    world.process()
    world.advance(60.0)
    assert served(world) == [1, 2, 1]


def test_many_claims_that_end_at_once_are_all_told() -> None:
    world = pool(size=1, full=False)
    requests = [world.acquire("p", uid=uid, patience_s=5.0) for uid in (1, 2, 3) for _ in range(20)]
    world.process()
    world.advance(5.0)
    assert all(refusal(world, request) for request in requests)
