"""Migrations that do not get through, with a QEMU of which a test decides what it says."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from tests.virtual_time import in_virtual_time
from vmm.errors import SnapshotError
from vmm.qemu.instance import Instance
from vmm.qemu.qmp.messages import Event
from vmm.qemu.snapshot import LOAD_LIMIT_S, load


class Qemu:
    """Says these migration states, one after the other, and then nothing."""

    def __init__(self, *statuses: str) -> None:
        self._statuses = statuses

    async def execute(self, command: str, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return {"error-desc": "the disk is full"} if command == "query-migrate" else {}

    @contextlib.contextmanager
    def subscribe(self, *_: str) -> Iterator[AsyncIterator[Event]]:
        yield self._events()

    async def _events(self) -> AsyncIterator[Event]:
        for status in self._statuses:
            await trio.lowlevel.checkpoint()
            yield Event(name="MIGRATION", data={"status": status}, time_s=0.0)
        await trio.sleep_forever()


async def outcome(tmp_path: Path, *statuses: str) -> str:
    (tmp_path / "state").touch()
    with pytest.raises(SnapshotError) as error:
        await load(cast("Instance", Qemu(*statuses)), state=tmp_path / "state")
    return str(error.value)


@in_virtual_time
async def test_deviation_a_limit_is_told_in_the_unit_that_it_is_in(tmp_path: Path) -> None:
    """Kata says that it waited for 5000000000 seconds."""
    assert await outcome(tmp_path, "setup", "active") == "cloning failed: not done within 30 s"
    assert trio.current_time() >= LOAD_LIMIT_S


@in_virtual_time
async def test_deviation_a_migration_that_failed_is_noticed_at_once(tmp_path: Path) -> None:
    began = trio.current_time()
    assert await outcome(tmp_path, "setup", "failed") == "cloning failed: failed: the disk is full"
    assert trio.current_time() == began
