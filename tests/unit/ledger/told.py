"""Asking a world what its ledger answered."""

from __future__ import annotations

from pool.ledger.effects import Refusal, RefusalCode
from pool.ledger.policy import PoolPolicy
from pool.ledger.records import Lease
from pool.ledger.views import ProfileView
from tests.properties.ledger.world import World


def pool(*, size: int = 1, production_limit: int = 2, full: bool = True) -> World:
    """A world with one profile, `p`."""
    world = World({"p": PoolPolicy(size=size, production_limit=production_limit)})
    if full:
        world.run_undisturbed()
    return world


def view(world: World) -> ProfileView:
    (only,) = world.ledger.views(now=world.now)
    return only


def answered(world: World, request_id: int) -> bool:
    return world.record.requests[request_id].answers > 0


def granted(world: World, request_id: int) -> Lease:
    answer = world.record.requests[request_id].answer
    assert isinstance(answer, Lease), answer
    return answer


def refused(world: World, request_id: int) -> RefusalCode:
    return refusal(world, request_id).code


def refusal(world: World, request_id: int) -> Refusal:
    answer = world.record.requests[request_id].answer
    assert isinstance(answer, Refusal), answer
    return answer
