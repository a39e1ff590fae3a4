"""Trees, whatever is in them, come back as they were; files, however they are written, have what a model has."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.files import read, read_tree, seen, write, write_tree
from vmm.errors import AgentRequestError
from vmm.guest.client import AgentClient
from vmm.words.files import Copy, FileWrite, TreeWrite, WriteMode

_PROGRAM: Final = Path(__file__).parents[2] / "unit" / "guest" / "agent_process.py"
_ROOT: Final = Path(__file__).parents[3]

IS_ROOT: Final = os.geteuid() == 0


@contextlib.asynccontextmanager
async def agent_at_work() -> AsyncIterator[tuple[AgentClient, Path]]:
    """An agent on this host, and a directory for it."""
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory(prefix="vmpool-", dir="/dev/shm") as name, theirs:
        plugged = trio.Path(name, "plugged")
        await plugged.touch()
        process = await trio.lowlevel.open_process(
            [sys.executable, str(_PROGRAM), str(theirs.fileno()), str(plugged), "1000"],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin"},
        )
        theirs.close()
        ours.setblocking(False)
        async with trio.open_nursery() as nursery:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            client = await AgentClient.connect(stream, nursery=nursery)
            yield client, Path(name)
            await client.aclose()
        await process.wait()


# -- trees ---------------------------------------------------------------------------------------------------------

Maker = Callable[[Path], None]
"""Makes something at a path where nothing is."""


@attrs.frozen
class Entry:
    name: bytes
    make: Maker
    mode: int
    owner: tuple[int, int]
    modified_ns: int
    inner: Sequence[Entry] = ()
    is_link: bool = False


def regular(content: bytes) -> Maker:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


def with_holes(pieces: Sequence[tuple[int, bytes]], end: int) -> Maker:
    def make(path: Path) -> None:
        with path.open("xb") as file:
            for block, content in pieces:
                file.seek(block * 4096)
                file.write(content)
            file.truncate(max(end * 4096, file.seek(0, os.SEEK_END)))

    return make


def link(target: bytes) -> Maker:
    return lambda path: path.symlink_to(os.fsdecode(target))


names = st.binary(min_size=1, max_size=255).map(lambda name: name.translate(None, b"/\0")) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60
).map(str.encode)
sound_names = names.filter(lambda name: name not in {b"", b".", b".."} and len(name) <= 255)
times = st.integers(-(2**31), 2**33).flatmap(lambda s: st.integers(0, 10**9 - 1).map(lambda ns: s * 10**9 + ns))
owners = st.tuples(*[st.integers(0, 3) | st.integers(2**21 - 1, 2**21 + 1) | st.just(2**32 - 2)] * 2)
makers = st.one_of(
    st.binary(max_size=2000).map(regular),
    st.integers(60_000, 70_000).map(lambda size: regular(os.urandom(size))),
    st.builds(
        with_holes,
        st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=50)), max_size=5),
        st.integers(0, 50),
    ),
    st.just(os.mkfifo),
)


def entries(inner: st.SearchStrategy[Sequence[Entry]]) -> st.SearchStrategy[Sequence[Entry]]:
    modes = st.integers(0, 0o7777)
    entry = (
        st.builds(Entry, sound_names, makers, modes, owners, times)
        | st.builds(Entry, sound_names, st.just(Path.mkdir), modes, owners, times, inner)
        | st.builds(
            Entry,
            sound_names,
            st.binary(min_size=1, max_size=300).map(lambda target: link(target.replace(b"\0", b"/"))),
            st.just(0o777),
            owners,
            times,
            st.just(()),
            st.just(True),
        )
    )
    return st.lists(entry, max_size=5, unique_by=lambda entry: entry.name)


trees = st.recursive(st.just(()), entries, max_leaves=8)


def grow(path: Path, tree: Sequence[Entry]) -> None:
    for entry in tree:
        inner = path / os.fsdecode(entry.name)
        entry.make(inner)
        grow(inner, entry.inner)
        if IS_ROOT:
            os.chown(inner, *entry.owner, follow_symlinks=False)
        if not entry.is_link:
            inner.chmod(entry.mode if IS_ROOT else entry.mode | 0o700)
        os.utime(inner, ns=(0, entry.modified_ns), follow_symlinks=False)


def link_some(path: Path, count: int) -> None:
    """Gives regular files further names."""
    regulars = sorted(inner for inner in path.rglob("*") if inner.is_file() and not inner.is_symlink())
    for number, file in enumerate(regulars[:count]):
        os.link(file, path / f"link {number}")


async def check_trees(client: AgentClient, top: Path, tree: Sequence[Entry], links: int) -> None:
    for name in ("tree", "again", "copy"):
        shutil.rmtree(top / name, ignore_errors=True)
    (top / "tree").mkdir()
    grow(top / "tree", tree)
    link_some(top / "tree", links)
    before = seen(top / "tree")
    stream = await read_tree(client.files, os.fsencode(top / "tree"))
    await write_tree(client.files, TreeWrite(path=os.fsencode(top / "again"), parents=True), stream)
    assert seen(top / "again") == before
    path, target = os.fsencode(top / "tree"), os.fsencode(top / "copy")
    await client.files.edit(Copy(path=path, target=target, recursive=True))
    assert seen(top / "copy") == before


@given(found=st.lists(st.tuples(trees, st.integers(0, 3)), min_size=1, max_size=8))
@examples(15)
def test_a_tree_comes_back_as_it_was(found: Sequence[tuple[Sequence[Entry], int]]) -> None:
    async def run() -> None:
        async with agent_at_work() as (client, top):
            for tree, links in found:
                await check_trees(client, top, tree, links)

    trio.run(run)


# -- files ---------------------------------------------------------------------------------------------------------


def model(before: bytes | None, how: WriteMode, data: bytes, offset: int) -> bytes | None:
    """What the file then has; None if the write is refused."""
    old = before or b""
    match how:
        case WriteMode.REPLACE | WriteMode.TRUNCATE:
            return data
        case WriteMode.CREATE:
            return data if before is None else None
        case WriteMode.UPDATE:
            if not data:
                return old
            return old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]
        case WriteMode.APPEND:
            return old + data


writes = st.tuples(
    st.sampled_from(list(WriteMode)),
    st.binary(max_size=20) | st.integers(65_000, 140_000).map(os.urandom),
    st.integers(0, 30) | st.integers(60_000, 70_000),
)


@given(steps=st.lists(writes, min_size=1, max_size=12))
@examples(15)
def test_a_file_has_what_was_written(steps: Sequence[tuple[WriteMode, bytes, int]]) -> None:
    async def run() -> None:
        async with agent_at_work() as (client, top):
            path = os.fsencode(top / "file")
            content: bytes | None = None
            for how, data, offset in steps:
                after = model(content, how, data, offset)
                wanted = FileWrite(path=path, how=how, offset=offset)
                if after is None:
                    with pytest.raises(AgentRequestError, match="EEXIST"):
                        await write(client.files, wanted, data)
                    continue
                info = await write(client.files, wanted, data)
                assert info.size == len(after)
                content = after
                assert await read(client.files, path) == content
                assert await read(client.files, path, offset=offset, length=10) == content[offset : offset + 10]

    trio.run(run)
