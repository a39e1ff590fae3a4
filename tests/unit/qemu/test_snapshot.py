"""Migrations that do not get through, with a QEMU of which a test decides what it says."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from tests.virtual_time import in_virtual_time
from vmm.errors import SnapshotError
from vmm.qemu.instance import Instance
from vmm.qemu.qmp.messages import Event
from vmm.qemu.snapshot import LOAD_LIMIT_S, load, save


class Qemu:
    """Says these migration states, one after the other, and then nothing."""

    def __init__(self, *statuses: str, version: tuple[int, int, int] = (7, 2, 0)) -> None:
        self._statuses = statuses
        self.qemu_version = version
        self.asked: list[str] = []

    async def execute(self, command: str, *, fds: Sequence[int] = (), **arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append(" ".join([command, *(str(value) for value in arguments.values())]))
        if command == "add-fd":
            return {"fdset-id": 7, "fd": 20}
        return {"error-desc": "the disk is full"} if command == "query-migrate" else {}

    @contextlib.contextmanager
    def subscribe(self, *_: str) -> Iterator[AsyncIterator[Event]]:
        yield Events(self._statuses)


class Events(AsyncIterator[Event]):
    """Not a generator: the rest is left once the last state has come."""

    def __init__(self, statuses: Sequence[str]) -> None:
        self._statuses = iter(statuses)

    async def __anext__(self) -> Event:
        await trio.lowlevel.checkpoint()
        for status in self._statuses:
            return Event(name="MIGRATION", data={"status": status}, time_s=0.0)
        await trio.sleep_forever()
        raise AssertionError("it sleeps for ever")


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


@pytest.mark.parametrize(
    ("version", "way"),
    [
        ((7, 2, 0), ["getfd vmpool-state", "migrate fd:vmpool-state"]),
        ((9, 0, 99), ["getfd vmpool-state", "migrate fd:vmpool-state"]),
        ((9, 1, 0), ["add-fd", "migrate file:/dev/fdset/7", "remove-fd 7"]),
        ((11, 1, 2), ["add-fd", "migrate file:/dev/fdset/7", "remove-fd 7"]),
    ],
)
async def test_a_file_is_passed_in_the_way_that_the_version_takes(
    tmp_path: Path, version: tuple[int, int, int], way: list[str]
) -> None:
    qemu = Qemu("setup", "completed", version=version)
    await save(cast("Instance", qemu), state=tmp_path / "state")
    assert qemu.asked[1:] == way
