"""What the service looks after while it runs, and when it gives up."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from pool.host.endpoint import EndpointError, ServiceRunningError, open_endpoint
from pool.host.premises import LOOK_EACH_S, LOOKS, Premises
from pool.host.runtime import open_vms_directory
from tests.virtual_time import in_virtual_time

ANOTHER = ServiceRunningError(lock=Path("vms.lock"), pid="7")
UNDER_WAY = EndpointError("cannot set up s.sock: No such file or directory")


@attrs.define(eq=False)
class Place:
    """An endpoint or a directory of VMs, which the test finds in disorder for a while."""

    path: Path = Path("s.sock")
    wrong: EndpointError = ANOTHER
    wrong_for: int = 0
    moves: list[bool] = attrs.field(factory=list)
    looks: int = 0

    def look_after(self) -> bool:
        self.looks += 1
        if self.wrong_for:
            self.wrong_for -= 1
            raise self.wrong
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
@pytest.mark.parametrize("wrong", [ANOTHER, UNDER_WAY])
async def test_what_is_in_order_in_a_moment_does_not_make_it_leave(wrong: EndpointError) -> None:
    """Another service is about to be refused, or the removal is still under way."""
    stage = Stage(vms=Place(wrong=wrong, wrong_for=LOOKS - 1))
    premises = stage.premises()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(premises.run)
        with capture_logs() as logs:
            await trio.sleep((LOOKS + 0.5) * LOOK_EACH_S)
        assert [line["error"] for line in logs] == [str(wrong)] * (LOOKS - 1)
        premises.leave()


@in_virtual_time
@pytest.mark.parametrize("wrong", [ANOTHER, UNDER_WAY])
async def test_what_stays_does(wrong: EndpointError) -> None:
    with pytest.raises(type(wrong)):
        await Stage(vms=Place(wrong=wrong, wrong_for=LOOKS)).premises().run()
    assert trio.current_time() == LOOKS * LOOK_EACH_S


@in_virtual_time
async def test_calls_are_taken_anew_though_the_rest_was_not_in_order_at_once() -> None:
    stage = Stage(endpoint=Place(moves=[True]), vms=Place(wrong=UNDER_WAY, wrong_for=1))
    premises = stage.premises()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(premises.run)
        await trio.sleep(2.5 * LOOK_EACH_S)
        assert stage.moved == 1
        premises.leave()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to a group that it is not in")
@in_virtual_time
async def test_the_sockets_group_still_reaches_it_when_all_was_removed(vm_home: Path, leak_check: None) -> None:
    """The VMs' directory is below the socket's, and is nobody's business."""
    group, socket_path = 65534, vm_home / "run" / "s.sock"

    async def nobody_listens() -> None: ...

    with open_endpoint(socket_path, group=group) as endpoint, open_vms_directory(socket_path.parent) as vms:
        premises = Premises(endpoint=endpoint, vms=vms, moved=nobody_listens)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(premises.run)
            shutil.rmtree(socket_path.parent)
            await trio.sleep((LOOKS + 0.5) * LOOK_EACH_S)
            premises.leave()
        status = socket_path.parent.stat()
        assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (group, 0o710)
        assert stat.S_IMODE(vms.path.stat().st_mode) == 0o700
