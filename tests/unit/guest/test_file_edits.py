"""Files are made, moved, copied, removed, linked and changed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.files import grow, names_in, raw, refused, seen
from vmm.guest.client import AgentClient
from vmm.words.files import (
    Copy,
    FileKind,
    Link,
    MakeDirectory,
    Move,
    Remove,
    SetAttributes,
)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """On another file system, where there is one."""
    with tempfile.TemporaryDirectory(prefix="vmpool-", dir="/dev/shm") as name:
        yield Path(name)


async def test_directories_are_made(client: AgentClient, place: Path) -> None:
    made = await client.files.edit(MakeDirectory(path=raw(place / "a"), mode=0o2750))
    assert made is not None
    assert (made.kind, made.mode) == (FileKind.DIRECTORY, 0o2750)
    with refused(errno.EEXIST):
        await client.files.edit(MakeDirectory(path=raw(place / "a")))
    with refused(errno.ENOENT):
        await client.files.edit(MakeDirectory(path=raw(place / "x" / "y")))
    again = await client.files.edit(MakeDirectory(path=raw(place / "a"), parents=True, mode=0o700))
    assert again is not None
    assert again.mode == 0o2750, "one that exists is left alone"
    await client.files.edit(MakeDirectory(path=raw(place / "x" / "y"), parents=True, mode=0o700))
    assert [oct((place / name).stat().st_mode) for name in ("x", "x/y")] == ["0o40755", "0o40700"]


@pytest.mark.parametrize("far", [False, True], ids=["on one file system", "to another"])
async def test_a_move_takes_everything_along(client: AgentClient, place: Path, elsewhere: Path, *, far: bool) -> None:
    grow(place / "tree")
    before = seen(place / "tree")
    target = (elsewhere if far else place) / "moved"
    moved = await client.files.edit(Move(path=raw(place / "tree"), target=raw(target)))
    assert moved is not None
    assert moved.path == raw(target)
    assert not (place / "tree").exists()
    assert seen(target) == before
    assert names_in(target.parent) == {"moved"}


@pytest.mark.parametrize("far", [False, True], ids=["on one file system", "to another"])
async def test_a_move_replaces_a_file_unless_it_must_not(
    client: AgentClient, place: Path, elsewhere: Path, *, far: bool
) -> None:
    source, target = place / "source", (elsewhere if far else place) / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    with refused(errno.EEXIST):
        await client.files.edit(Move(path=raw(source), target=raw(target), replace=False))
    assert source.exists()
    await client.files.edit(Move(path=raw(source), target=raw(target)))
    assert target.read_bytes() == b"new"
    (target.parent / "directory" / "full").mkdir(parents=True)
    with refused(errno.EISDIR):
        await client.files.edit(Move(path=raw(target), target=raw(target.parent / "directory")))
    assert names_in(target.parent) == {"target", "directory"}


async def test_a_copy_is_the_same(client: AgentClient, place: Path) -> None:
    grow(place / "tree")
    with refused(errno.EISDIR):
        await client.files.edit(Copy(path=raw(place / "tree"), target=raw(place / "copy")))
    await client.files.edit(Copy(path=raw(place / "tree"), target=raw(place / "copy"), recursive=True))
    assert seen(place / "copy") == seen(place / "tree")
    with refused(errno.EEXIST):
        await client.files.edit(Copy(path=raw(place / "tree"), target=raw(place / "copy"), recursive=True))
    with refused(errno.EINVAL):
        await client.files.edit(Copy(path=raw(place / "tree"), target=raw(place / "tree" / "in"), recursive=True))


async def test_a_copied_file_replaces_another(client: AgentClient, place: Path) -> None:
    (place / "a").write_bytes(b"a")
    (place / "b").write_bytes(b"b")
    (place / "link").symlink_to("b")
    await client.files.edit(Copy(path=raw(place / "a"), target=raw(place / "link")))
    assert (place / "b").read_bytes() == b"a"
    assert (place / "link").is_symlink()
    with refused(errno.EINVAL):
        await client.files.edit(Copy(path=raw(place / "a"), target=raw(place / "a")))
    os.mkfifo(place / "fifo")
    with refused(errno.EINVAL):
        await client.files.edit(Copy(path=raw(place / "fifo"), target=raw(place / "c")))
    assert names_in(place) == {"a", "b", "link", "fifo"}


async def test_removal_takes_a_tree_on_request_only_and_never_follows_links(client: AgentClient, place: Path) -> None:
    (place / "kept").mkdir()
    (place / "kept" / "file").touch()
    (place / "tree" / "deep").mkdir(parents=True)
    (place / "tree" / "link").symlink_to(place / "kept")
    (place / "link").symlink_to(place / "kept")
    with refused(errno.EISDIR):
        await client.files.edit(Remove(path=raw(place / "tree")))
    assert await client.files.edit(Remove(path=raw(place / "tree"), recursive=True)) is None
    await client.files.edit(Remove(path=raw(place / "link"), recursive=True))
    with refused(errno.ENOENT):
        await client.files.edit(Remove(path=raw(place / "link")))
    await client.files.edit(Remove(path=raw(place / "link"), missing_ok=True))
    assert names_in(place) == {"kept"}
    assert (place / "kept" / "file").exists()


async def test_a_tree_deeper_than_any_path_is_removed(client: AgentClient, place: Path) -> None:
    (place / "deep").mkdir()
    at = os.open(place / "deep", os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d" * 20, dir_fd=at)
        inner = os.open("d" * 20, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    await client.files.edit(Remove(path=raw(place / "deep"), recursive=True))
    assert not names_in(place)


async def test_links_of_both_kinds(client: AgentClient, place: Path) -> None:
    (place / "file").write_bytes(b"x")
    soft = await client.files.edit(Link(path=raw(place / "soft"), target=b"any text"))
    assert soft is not None
    assert (soft.kind, soft.target) == (FileKind.SYMLINK, b"any text")
    hard = await client.files.edit(Link(path=raw(place / "hard"), target=raw(place / "file"), hard=True))
    assert hard is not None
    assert (hard.links, hard.inode) == (2, (place / "file").stat().st_ino)
    with refused(errno.EEXIST):
        await client.files.edit(Link(path=raw(place / "soft"), target=b"x"))
    with refused(errno.EINVAL, part="target"):
        await client.files.edit(Link(path=raw(place / "none"), target=b""))


async def test_attributes_of_one_and_of_all_below(client: AgentClient, place: Path) -> None:
    (place / "kept").touch(mode=0o600)
    (place / "tree" / "inner").mkdir(parents=True)
    (place / "tree" / "inner" / "file").touch()
    (place / "tree" / "link").symlink_to(place / "kept")
    changed = await client.files.edit(SetAttributes(path=raw(place / "tree"), mode=0o751, modified_ns=-5))
    assert changed is not None
    assert (changed.mode, changed.modified_ns) == (0o751, -5)
    await client.files.edit(SetAttributes(path=raw(place / "tree"), mode=0o700, modified_ns=123456789, recursive=True))
    for name in ("tree", "tree/inner", "tree/inner/file"):
        status = (place / name).stat()
        assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o700, 123456789), name
    assert (place / "kept").stat().st_mode & 0o777 == 0o600, "a link in the tree is not followed"
