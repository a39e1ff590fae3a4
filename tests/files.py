"""What the tests of a guest's files share: whole files, lists and trees, and what a tree is made of."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import attrs
import pytest

from vmm.contract.files import GuestFiles
from vmm.contract.streams import ByteSource, RecordSource
from vmm.errors import AgentRequestError
from vmm.words.files import FileInfo, FileWrite, TreeSummary, TreeWrite

Record = TypeVar("Record")

PIECE = 64 * 1024

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


async def everything(source: ByteSource) -> bytes:
    """All that comes, to the end."""
    parts = []
    try:
        while data := await source.receive():
            parts.append(data)
    finally:
        await source.aclose()
    return b"".join(parts)


async def all_records(source: RecordSource[Record]) -> list[Record]:
    found: list[Record] = []
    try:
        while records := await source.receive():
            found += records
    finally:
        await source.aclose()
    return found


async def read(files: GuestFiles, path: bytes, *, user: str = "", offset: int = 0, length: int | None = None) -> bytes:
    return await everything(await files.read(path, user=user, offset=offset, length=length))


async def write(files: GuestFiles, write: FileWrite, data: bytes, *, user: str = "") -> FileInfo:
    writer = await files.write(write, user=user)
    try:
        for start in range(0, len(data), PIECE):
            await writer.send(data[start : start + PIECE])
        return await writer.finish()
    finally:
        await writer.aclose()


async def listed(files: GuestFiles, path: bytes, *, depth: int = 1, user: str = "") -> list[FileInfo]:
    return await all_records(await files.list(path, depth=depth, user=user))


async def read_tree(files: GuestFiles, path: bytes, *, user: str = "") -> bytes:
    return await everything(await files.read_tree(path, user=user))


async def write_tree(files: GuestFiles, write: TreeWrite, stream: bytes, *, user: str = "") -> TreeSummary:
    writer = await files.write_tree(write, user=user)
    try:
        for start in range(0, len(stream), PIECE):
            await writer.send(stream[start : start + PIECE])
        return await writer.finish()
    finally:
        await writer.aclose()


@attrs.frozen(kw_only=True)
class Seen:
    """One file, as the host's kernel tells of it."""

    mode: str
    owner: tuple[int, int]
    modified_ns: int
    content: bytes
    """Of a link: its target."""
    device: int
    has_holes: bool


@attrs.frozen(kw_only=True)
class SeenTree:
    files: dict[bytes, Seen]
    """By path in the tree; the tree itself is "."."""
    linked: frozenset[frozenset[bytes]]
    """Names of the same file."""


def seen(path: Path) -> SeenTree:
    """All of a tree."""
    files: dict[bytes, Seen] = {}
    names: dict[int, set[bytes]] = {}
    for inner in (path, *path.rglob("*")):
        status = inner.lstat()
        name = os.fsencode(inner.relative_to(path))
        is_link, is_regular = stat.S_ISLNK(status.st_mode), stat.S_ISREG(status.st_mode)
        files[name] = Seen(
            mode=oct(status.st_mode),
            owner=(status.st_uid, status.st_gid),
            modified_ns=status.st_mtime_ns,
            content=os.fsencode(inner.readlink()) if is_link else inner.read_bytes() if is_regular else b"",
            device=status.st_rdev,
            has_holes=is_regular and status.st_blocks * 512 < status.st_size,
        )
        if not stat.S_ISDIR(status.st_mode):
            names.setdefault(status.st_ino, set()).add(name)
    return SeenTree(files=files, linked=frozenset(frozenset(same) for same in names.values() if len(same) > 1))


@contextlib.contextmanager
def refused(code: int, *, part: str = "") -> Iterator[None]:
    with pytest.raises(AgentRequestError) as refusal:
        yield
    assert (refusal.value.code, refusal.value.part) == (errno.errorcode[code], part)


def raw(path: Path) -> bytes:
    return os.fsencode(path)


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def grow(top: Path) -> None:
    """A tree of everything that this user may make."""
    (top / "directory" / "empty").mkdir(parents=True)
    (top / "directory" / "file").write_bytes(os.urandom(100_000))
    os.link(top / "directory" / "file", top / "hard link")
    (top / "link").symlink_to("nowhere\udcff")
    os.mkfifo(top / "fifo", 0o640)
    with (top / "holes").open("wb") as file:
        file.seek(2**20)
        file.write(b"data")
        file.truncate(2**22)
    (top / "directory").chmod(0o1750)
    os.utime(top / "holes", ns=(0, 987654321987654321))
    if os.geteuid() == 0:
        os.chown(top / "hard link", 1234, 4321)
        os.mknod(top / "device", 0o20600, os.makedev(1, 3))
    for path in (top / "directory", top):
        os.utime(path, ns=(0, 1_000_000_007))
