"""Watching files: what is told, and under which names."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.agents import Narrow
from tests.files import raw, refused
from vmm.contract.streams import RecordSource
from vmm.guest.client import AgentClient
from vmm.words.files import FileChange, FileChangeKind

Told = tuple[FileChangeKind, str, str]
"""What, where, and where to: paths below the watched one."""

CREATED, MODIFIED, WRITTEN = FileChangeKind.CREATED, FileChangeKind.MODIFIED, FileChangeKind.WRITTEN
ATTRIBUTES, REMOVED, MOVED = FileChangeKind.ATTRIBUTES, FileChangeKind.REMOVED, FileChangeKind.MOVED


class Watch:
    def __init__(self, source: RecordSource[FileChange], top: Path) -> None:
        self.source = source
        self._top = top
        self.told: list[Told] = []

    async def until(self, enough: Callable[[list[Told]], bool]) -> list[Told]:
        """Receives until it is enough; what was received is forgotten."""
        with trio.fail_after(20):
            while not enough(self.told):
                self.told += [self._short(change) for change in await self.source.receive()]
        told, self.told = self.told, []
        return told

    async def until_told(self, kind: FileChangeKind, path: str) -> list[Told]:
        return await self.until(lambda told: any(change[:2] == (kind, path) for change in told))

    def _short(self, change: FileChange) -> Told:
        path, target = (os.path.relpath(name, raw(self._top)) if name else b"" for name in (change.path, change.target))
        return change.kind, os.fsdecode(path), os.fsdecode(target)


@asynccontextmanager
async def watching(client: AgentClient, path: Path, *, recursive: bool = False) -> AsyncIterator[Watch]:
    source = await client.files.watch(raw(path), recursive=recursive)
    yield Watch(source, path)
    await source.aclose()


async def test_what_happens_to_a_file_in_a_directory(client: AgentClient, tmp_path: Path) -> None:
    async with watching(client, tmp_path) as watch:
        path = tmp_path / "file"
        path.write_bytes(b"x")
        assert await watch.until_told(WRITTEN, "file") == [
            (CREATED, "file", ""),
            (MODIFIED, "file", ""),
            (WRITTEN, "file", ""),
        ]
        path.chmod(0o600)
        assert await watch.until_told(ATTRIBUTES, "file") == [(ATTRIBUTES, "file", "")]
        path.rename(tmp_path / "other")
        assert await watch.until_told(MOVED, "file") == [(MOVED, "file", "other")]
        (tmp_path / "other").unlink()
        assert await watch.until_told(REMOVED, "other") == [(REMOVED, "other", "")]


async def test_a_move_over_the_border_is_one_half(client: AgentClient, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "leaves").touch()
    (tmp_path / "arrives").touch()
    async with watching(client, tmp_path / "in") as watch:
        (tmp_path / "in" / "leaves").rename(tmp_path / "left")
        assert await watch.until_told(REMOVED, "leaves") == [(REMOVED, "leaves", "")]
        (tmp_path / "arrives").rename(tmp_path / "in" / "arrived")
        assert await watch.until_told(CREATED, "arrived") == [(CREATED, "arrived", "")]


async def test_what_is_further_down_is_told_on_request_only(client: AgentClient, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    async with watching(client, tmp_path) as flat, watching(client, tmp_path, recursive=True) as deep:
        (tmp_path / "a" / "b" / "file").touch()
        (tmp_path / "last").touch()
        assert (CREATED, "a/b/file", "") in await deep.until_told(WRITTEN, "last")
        assert all("/" not in path for _, path, _ in await flat.until_told(WRITTEN, "last"))


async def test_directories_made_later_are_watched_and_nothing_in_them_is_missed(
    client: AgentClient, tmp_path: Path
) -> None:
    async with watching(client, tmp_path, recursive=True) as watch:
        for number in range(100):
            (tmp_path / f"{number}" / "deep").mkdir(parents=True)
            (tmp_path / f"{number}" / "deep" / "file").write_bytes(b"x")
        (tmp_path / "last").touch()
        wanted = {f"{n}{suffix}" for n in range(100) for suffix in ("", "/deep", "/deep/file")} | {"last"}

        def created(told: list[Told]) -> list[str]:
            return [path for kind, path, _ in told if kind is CREATED]

        told = await watch.until(lambda told: set(created(told)) >= wanted)
        assert sorted(created(told)) == sorted(wanted), "each is told once"
        (tmp_path / "7" / "deep" / "file").unlink()
        assert (REMOVED, "7/deep/file", "") in await watch.until_told(REMOVED, "7/deep/file")


async def test_what_is_in_a_moved_directory_has_its_new_name(client: AgentClient, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    async with watching(client, tmp_path, recursive=True) as watch:
        (tmp_path / "a").rename(tmp_path / "c")
        await watch.until_told(MOVED, "a")
        (tmp_path / "c" / "b" / "file").touch()
        assert (CREATED, "c/b/file", "") in await watch.until_told(CREATED, "c/b/file")


async def test_a_directory_is_watched_under_its_last_name_however_fast_it_changes(
    client: AgentClient, tmp_path: Path
) -> None:
    async with watching(client, tmp_path, recursive=True) as watch:
        for number in range(30):
            (tmp_path / "new" / "deep").mkdir(parents=True)
            (tmp_path / "new").rename(tmp_path / f"{number}")
        await watch.until(lambda told: (MOVED, "new", "29") in told)
        for number in range(30):
            (tmp_path / f"{number}" / "deep" / "file").touch()
        await watch.until(
            lambda told: {f"{n}/deep/file" for n in range(30)} <= {path for kind, path, _ in told if kind is CREATED}
        )


async def test_what_was_moved_away_is_not_watched_any_more(client: AgentClient, tmp_path: Path) -> None:
    (tmp_path / "in" / "a" / "b").mkdir(parents=True)
    async with watching(client, tmp_path / "in", recursive=True) as watch:
        (tmp_path / "in" / "a").rename(tmp_path / "out")
        await watch.until_told(REMOVED, "a")
        (tmp_path / "out" / "b" / "unseen").touch()
        (tmp_path / "in" / "last").touch()
        assert {path for _, path, _ in await watch.until_told(WRITTEN, "last")} == {"last"}


@pytest.mark.parametrize("end", ["unlink", "rename", "replace"])
async def test_it_ends_when_the_path_itself_is_gone(client: AgentClient, tmp_path: Path, end: str) -> None:
    path = tmp_path / "file"
    path.touch()
    (tmp_path / "new").touch()
    with path.open() as held:
        async with watching(client, path) as watch:
            if end == "unlink":
                path.unlink()
            elif end == "rename":
                path.rename(tmp_path / "elsewhere")
            else:
                (tmp_path / "new").rename(path)
                held.close()
            with trio.fail_after(20), refused(errno.ENOENT):
                while await watch.source.receive():
                    pass


async def test_it_ends_when_the_directory_is_removed(client: AgentClient, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    async with watching(client, tmp_path / "a", recursive=True) as watch:
        (tmp_path / "a" / "b").rmdir()
        (tmp_path / "a").rmdir()
        told: list[FileChange] = []
        with trio.fail_after(20), refused(errno.ENOENT):
            while changes := await watch.source.receive():
                told += changes
        assert FileChange(kind=REMOVED, path=raw(tmp_path / "a" / "b"), directory=True) in told


def most_changes() -> int:
    """That the kernel keeps for a watch."""
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


async def test_changes_that_nobody_reads_are_told_to_be_lost(client: AgentClient, tmp_path: Path) -> None:
    source = await client.files.watch(raw(tmp_path), room=Narrow())
    for number in range(most_changes() // 2 + 500):
        path = tmp_path / f"{number % 50}"
        path.touch()
        path.unlink()
    (tmp_path / "last").touch()
    with trio.fail_after(30):
        while not any(change.kind is FileChangeKind.OVERFLOW for change in await source.receive()):
            pass
    await source.aclose()


async def test_what_is_not_there_is_not_watched(client: AgentClient, tmp_path: Path) -> None:
    with refused(errno.ENOENT):
        await client.files.watch(raw(tmp_path / "none"))
