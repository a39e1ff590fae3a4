"""Turns: few at a time, in order, and nobody holds up all others."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from actors.turns import Turns
from tests.virtual_time import in_virtual_time

MANY = 1000


@attrs.define(eq=False, kw_only=True)
class Crowd:
    """Takes turns, each of which lasts a second."""

    turns: Turns
    lasts_s: float = 1.0
    began: list[str] = attrs.field(factory=list)
    there: int = 0
    peak: int = 0

    async def one(self, name: str) -> None:
        async with self.turns.turn(name):
            self.began.append(name)
            self.there += 1
            self.peak = max(self.peak, self.there)
            await trio.sleep(self.lasts_s)
            self.there -= 1

    async def all(self, names: list[str], nursery: trio.Nursery) -> None:
        """They ask in this order."""
        for name in names:
            nursery.start_soon(self.one, name)
            await trio.testing.wait_all_tasks_blocked()


NAMES = [f"vm-{number}" for number in range(6)]


@in_virtual_time
async def test_few_at_a_time_in_the_order_of_asking() -> None:
    crowd = Crowd(turns=Turns(at_once=2))
    async with trio.open_nursery() as nursery:
        await crowd.all(NAMES, nursery)
    assert (crowd.began, crowd.peak) == (NAMES, 2)
    assert trio.current_time() == 3.0


@in_virtual_time
async def test_who_is_hurried_comes_next() -> None:
    crowd = Crowd(turns=Turns(at_once=1))
    async with trio.open_nursery() as nursery:
        await crowd.all(NAMES, nursery)
        crowd.turns.hurry("vm-4")
        crowd.turns.hurry("who never asked")
    assert crowd.began == ["vm-0", "vm-4", "vm-1", "vm-2", "vm-3", "vm-5"]


@in_virtual_time
async def test_one_that_takes_too_long_makes_room_for_the_next() -> None:
    crowd = Crowd(turns=Turns(at_once=2, patience_s=5.0), lasts_s=100.0)
    async with trio.open_nursery() as nursery:
        await crowd.all(NAMES, nursery)
        await trio.sleep(4.9)
        assert crowd.began == NAMES[:2]
        await trio.sleep(0.2)
        assert crowd.began == NAMES[:4]
        await trio.sleep(5.0)
        assert crowd.began == NAMES


@in_virtual_time
async def test_who_goes_away_leaves_no_gap() -> None:
    crowd = Crowd(turns=Turns(at_once=1))
    async with trio.open_nursery() as nursery:
        await crowd.all(NAMES[:1], nursery)
        with trio.CancelScope() as impatient:
            async with trio.open_nursery() as others:
                await crowd.all(NAMES[1:3], others)
                impatient.cancel()
        await crowd.all(NAMES[3:], nursery)
    assert crowd.began == [NAMES[0], *NAMES[3:]]


@in_virtual_time
async def test_a_turn_that_fails_is_over() -> None:
    turns = Turns(at_once=1)
    with pytest.raises(RuntimeError):
        async with turns.turn("vm-1"):
            raise RuntimeError
    async with turns.turn("vm-1"):
        pass


@in_virtual_time
async def test_who_is_cancelled_already_has_no_turn() -> None:
    crowd = Crowd(turns=Turns(at_once=1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await crowd.one("vm-1")
    assert crowd.began == []


@in_virtual_time
async def test_many_take_their_turns() -> None:
    crowd = Crowd(turns=Turns(at_once=4))
    async with trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(crowd.one, f"vm-{number}")
    assert (len(crowd.began), crowd.peak) == (MANY, 4)
    assert trio.current_time() == MANY / 4
