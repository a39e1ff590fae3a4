"""What the service looks after while it runs, and when it gives up."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from pool.endpoint import ServiceRunningError
from pool.premises import LOOK_EACH_S, LOOKS, Premises
from tests.virtual_time import in_virtual_time

ANOTHER = ServiceRunningError(lock=Path("vms.lock"), pid="7")


@attrs.define(eq=False)
class Place:
    """An endpoint or a directory of VMs, in which the test finds somebody else for a while."""

    path: Path = Path("s.sock")
    another_for: int = 0
    moves: list[bool] = attrs.field(factory=list)
    looks: int = 0

    def look_after(self) -> bool:
        self.looks += 1
        if self.another_for:
            self.another_for -= 1
            raise ANOTHER
        return self.moves.pop(0) if self.moves else False


@attrs.define(eq=False)
class Stage:
    endpoint: Place = attrs.field(factory=Place)
    vms: Place = attrs.field(factory=Place)
    moved: int = 0

    def premises(self) -> Premises:
        async def move() -> None:
            self.moved += 1

        return Premises(endpoint=cast("Any", self.endpoint), vms=cast("Any", self.vms), moved=move)


@in_virtual_time
async def test_calls_are_taken_where_it_listens_anew() -> None:
    stage = Stage(endpoint=Place(moves=[False, True]))
    premises = stage.premises()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(premises.run)
        await trio.sleep(1.5 * LOOK_EACH_S)
        assert (stage.vms.looks, stage.moved) == (1, 0)
        await trio.sleep(LOOK_EACH_S)
        assert (stage.vms.looks, stage.moved) == (2, 1)
        premises.leave()


@in_virtual_time
async def test_one_that_is_refused_in_a_moment_does_not_make_it_leave() -> None:
    stage = Stage(vms=Place(another_for=LOOKS - 1))
    premises = stage.premises()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(premises.run)
        with capture_logs() as logs:
            await trio.sleep((LOOKS + 0.5) * LOOK_EACH_S)
        assert [line["event"] for line in logs] == ["somebody else is in our place"] * (LOOKS - 1)
        assert stage.endpoint.looks == 1
        premises.leave()


@in_virtual_time
async def test_one_that_stays_does() -> None:
    with pytest.raises(ServiceRunningError):
        await Stage(vms=Place(another_for=LOOKS)).premises().run()
    assert trio.current_time() == LOOKS * LOOK_EACH_S
