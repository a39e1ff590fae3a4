"""Files in a guest: what may be done to them, and how each wrong request is refused."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import AsyncIterator

import attrs
import pytest
import trio

from tests.agents import Narrow
from tests.files import all_records, listed, read, read_tree, refused, write, write_tree
from vmm.contract import Vm
from vmm.contract.files import GuestFiles
from vmm.errors import AgentRequestError
from vmm.words.files import (
    Copy,
    FileChange,
    FileChangeKind,
    FileKind,
    FileWrite,
    Link,
    MakeDirectory,
    Move,
    Remove,
    SetAttributes,
    TreeSummary,
    TreeWrite,
    WriteMode,
)

TOP = b"/tmp/contract"
FILE = TOP + b"/file"


@pytest.fixture
async def files(vm: Vm) -> AsyncIterator[GuestFiles]:
    """With an empty directory at TOP."""
    await vm.agent.files.edit(MakeDirectory(path=TOP, mode=0o777))
    yield vm.agent.files
    await vm.agent.files.edit(Remove(path=TOP, recursive=True))


async def put(files: GuestFiles, data: bytes, *, path: bytes = FILE) -> None:
    await write(files, FileWrite(path=path), data)


@pytest.mark.parametrize("size", [0, 1, 300_000])
async def test_what_is_written_is_read(files: GuestFiles, size: int) -> None:
    data = os.urandom(size)
    info = await write(files, FileWrite(path=FILE), data)
    assert (info.path, info.kind, info.size, info.mode, info.user, info.links) == (
        FILE,
        FileKind.REGULAR,
        size,
        0o644,
        "root",
        1,
    )
    assert await read(files, FILE) == data
    assert await files.stat(FILE) == info


async def test_a_path_may_go_back(files: GuestFiles) -> None:
    await write(files, FileWrite(path=TOP + b"/a/../b", parents=True), b"x")
    assert await read(files, TOP + b"/b") == b"x"
    assert sorted(info.path for info in await listed(files, TOP, depth=9)) == [TOP + b"/a", TOP + b"/b"]


async def test_commands_and_put_and_get_see_the_same_files(vm: Vm, files: GuestFiles) -> None:
    await vm.agent.put_file(FILE.decode(), b"put")
    assert await read(files, FILE) == b"put"
    await put(files, b"written")
    assert await vm.agent.get_file(FILE.decode()) == b"written"


async def test_a_part_of_a_file_is_read(files: GuestFiles) -> None:
    await put(files, b"0123456789")
    assert await read(files, FILE, offset=3, length=4) == b"3456"
    assert await read(files, FILE, offset=8) == b"89"
    assert await read(files, FILE, offset=100, length=1) == b""


async def test_pieces_are_no_larger_than_the_room(files: GuestFiles) -> None:
    await put(files, bytes(100_000))
    reader = await files.read(FILE, room=Narrow())
    sizes = []
    while piece := await reader.receive():
        sizes.append(len(piece))
    await reader.aclose()
    assert sum(sizes) == 100_000
    assert max(sizes) <= Narrow.window


@pytest.mark.parametrize(
    ("how", "after"),
    [
        (WriteMode.REPLACE, b"new"),
        (WriteMode.TRUNCATE, b"new"),
        (WriteMode.UPDATE, b"01new56789"),
        (WriteMode.APPEND, b"0123456789new"),
    ],
)
async def test_ways_to_write(files: GuestFiles, how: WriteMode, after: bytes) -> None:
    wanted = FileWrite(path=FILE, how=how, offset=2 if how is WriteMode.UPDATE else 0)
    await put(files, b"0123456789")
    await files.edit(SetAttributes(path=FILE, mode=0o600))
    info = await write(files, wanted, b"new")
    assert (info.mode, info.size) == (0o600, len(after))
    assert await read(files, FILE) == after
    made = await write(files, attrs.evolve(wanted, path=TOP + b"/other"), b"new")
    assert made.mode == 0o644
    assert await read(files, TOP + b"/other") == (b"\0\0new" if how is WriteMode.UPDATE else b"new")


async def test_a_file_that_must_be_new(files: GuestFiles) -> None:
    wanted = FileWrite(path=FILE, how=WriteMode.CREATE, mode=0o755)
    assert (await write(files, wanted, b"1")).mode == 0o755
    with refused(errno.EEXIST):
        await write(files, wanted, b"2")
    assert await read(files, FILE) == b"1"


async def test_a_write_that_is_given_up_replaces_nothing(files: GuestFiles) -> None:
    await put(files, b"old")
    writer = await files.write(FileWrite(path=FILE))
    await writer.send(b"new")
    await writer.aclose()
    assert await read(files, FILE) == b"old"


async def test_missing_directories_are_made_on_request_only(files: GuestFiles) -> None:
    path = TOP + b"/a/b/file"
    with refused(errno.ENOENT):
        await write(files, FileWrite(path=path), b"x")
    with refused(errno.ENOENT):
        await files.edit(MakeDirectory(path=TOP + b"/a/b"))
    await write(files, FileWrite(path=path, parents=True), b"x")
    assert (await files.stat(TOP + b"/a")).mode == 0o755


async def test_a_list_has_what_is_in_a_directory_and_further_down(files: GuestFiles) -> None:
    for name in (b"/a/file", b"/a/b/c", b"/d"):
        await write(files, FileWrite(path=TOP + name, parents=True), b"x")
    await files.edit(Link(path=TOP + b"/link", target=b"a"))
    assert {info.path for info in await listed(files, TOP)} == {TOP + name for name in (b"/a", b"/d", b"/link")}
    everything = [info.path for info in await listed(files, TOP, depth=5)]
    assert len(everything) == 6
    assert everything.index(TOP + b"/a") < everything.index(TOP + b"/a/b") < everything.index(TOP + b"/a/b/c")
    with refused(errno.ENOTDIR):
        await files.list(TOP + b"/d")


async def test_names_need_not_be_utf8(files: GuestFiles) -> None:
    await put(files, b"x", path=TOP + b"/\xff\n")
    assert [info.path for info in await listed(files, TOP)] == [TOP + b"/\xff\n"]


async def test_links_are_followed_unless_they_are_asked_for(files: GuestFiles) -> None:
    await put(files, b"content")
    await files.edit(Link(path=TOP + b"/soft", target=b"file"))
    hard = await files.edit(Link(path=TOP + b"/hard", target=FILE, hard=True))
    assert hard is not None
    assert hard.links == 2
    assert (await files.stat(TOP + b"/soft")).size == 7
    itself = await files.stat(TOP + b"/soft", follow=False)
    assert (itself.kind, itself.target) == (FileKind.SYMLINK, b"file")
    await write(files, FileWrite(path=TOP + b"/soft", how=WriteMode.TRUNCATE), b"through")
    assert await read(files, TOP + b"/hard") == b"through"


async def test_files_are_moved_copied_and_removed(files: GuestFiles) -> None:
    await write(files, FileWrite(path=TOP + b"/a/file", parents=True, mode=0o640), b"x")
    copied = await files.edit(Copy(path=TOP + b"/a", target=TOP + b"/b", recursive=True))
    assert copied is not None
    assert copied.path == TOP + b"/b"
    assert (await files.stat(TOP + b"/b/file")).mode == 0o640
    moved = await files.edit(Move(path=TOP + b"/a/file", target=FILE))
    assert moved is not None
    assert await read(files, FILE) == b"x"
    with refused(errno.EEXIST):
        await files.edit(Move(path=TOP + b"/b/file", target=FILE, replace=False))
    with refused(errno.EISDIR):
        await files.edit(Copy(path=TOP + b"/b", target=TOP + b"/c"))
    with refused(errno.EISDIR):
        await files.edit(Move(path=FILE, target=TOP + b"/b"))
    with refused(errno.EISDIR):
        await files.edit(Remove(path=TOP + b"/b"))
    assert await files.edit(Remove(path=TOP + b"/b", recursive=True)) is None
    with refused(errno.ENOENT):
        await files.edit(Remove(path=TOP + b"/b"))
    await files.edit(Remove(path=TOP + b"/b", missing_ok=True))
    assert {info.path for info in await listed(files, TOP)} == {FILE, TOP + b"/a"}


async def test_attributes_are_set(files: GuestFiles) -> None:
    await write(files, FileWrite(path=TOP + b"/a/file", parents=True), b"x")
    wanted = SetAttributes(path=TOP + b"/a", mode=0o700, owner="nobody", modified_ns=1_234_567_890, recursive=True)
    info = await files.edit(wanted)
    assert info is not None
    assert (info.mode, info.user, info.modified_ns) == (0o700, "nobody", 1_234_567_890)
    assert (await files.stat(TOP + b"/a/file")).uid == info.uid != 0


async def test_changes_are_told_in_order(files: GuestFiles) -> None:
    await files.edit(MakeDirectory(path=TOP + b"/inner"))
    watch = await files.watch(TOP, recursive=True)
    await put(files, b"x", path=TOP + b"/inner/file")
    await files.edit(Move(path=TOP + b"/inner/file", target=FILE))
    await files.edit(Remove(path=FILE))
    told: list[FileChange] = []
    with trio.fail_after(30):
        while not any(change.kind is FileChangeKind.REMOVED for change in told):
            told += await watch.receive()
    await watch.aclose()
    assert told[-2:] == [
        FileChange(kind=FileChangeKind.MOVED, path=TOP + b"/inner/file", target=FILE),
        FileChange(kind=FileChangeKind.REMOVED, path=FILE),
    ]


async def test_a_watch_ends_with_what_is_watched(files: GuestFiles) -> None:
    await put(files, b"x")
    watch = await files.watch(FILE)
    await files.edit(Remove(path=FILE))
    with trio.fail_after(30), refused(errno.ENOENT):
        await all_records(watch)


async def test_a_tree_comes_back(files: GuestFiles) -> None:
    for name in (b"/a/b/file", b"/a/empty"):
        await write(files, FileWrite(path=TOP + name, parents=True, mode=0o4755), name)
    await files.edit(Link(path=TOP + b"/a/hard", target=TOP + b"/a/empty", hard=True))
    await files.edit(Link(path=TOP + b"/a/soft\xff", target=b"\xfe"))
    await files.edit(SetAttributes(path=TOP + b"/a/b/file", modified_ns=987_654_321_987_654_321))
    stream = await read_tree(files, TOP + b"/a")
    summary = await write_tree(files, TreeWrite(path=TOP + b"/c", parents=True), stream)
    assert summary.members == 6
    before = {info.path.removeprefix(TOP + b"/a"): info for info in await listed(files, TOP + b"/a", depth=9)}
    after = {info.path.removeprefix(TOP + b"/c"): info for info in await listed(files, TOP + b"/c", depth=9)}
    assert before.keys() == after.keys()
    for name, info in before.items():
        assert attrs.evolve(after[name], path=info.path, inode=info.inode) == info
    assert after[b"/hard"].inode == after[b"/empty"].inode


async def test_a_tree_that_leaves_its_directory_is_refused(files: GuestFiles) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    with refused(errno.EINVAL, part="data"):
        await write_tree(files, TreeWrite(path=TOP), stream.getvalue())
    good = io.BytesIO()
    with tarfile.open(fileobj=good, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("inside"))
    assert await write_tree(files, TreeWrite(path=TOP), good.getvalue()) == TreeSummary(members=1, size=0)
    with refused(errno.ENOENT):
        await write_tree(files, TreeWrite(path=TOP + b"/none"), good.getvalue())


async def test_a_user_may_do_what_its_rights_allow(files: GuestFiles) -> None:
    await write(files, FileWrite(path=FILE, mode=0o600), b"secret")
    for attempt in (
        read(files, FILE, user="nobody"),
        write(files, FileWrite(path=FILE), b"x", user="nobody"),
        write(files, FileWrite(path=b"/etc/x"), b"x", user="65534"),
        files.edit(MakeDirectory(path=b"/root/x"), user="nobody"),
    ):
        with refused(errno.EACCES):
            await attempt
    assert (await write(files, FileWrite(path=TOP + b"/own"), b"x", user="nobody")).user == "nobody"
    with refused(errno.EPERM):
        await files.edit(SetAttributes(path=TOP + b"/own", owner="root"), user="nobody")
    with refused(errno.EINVAL, part="user"):
        await files.stat(FILE, user="nosuch")
    with refused(errno.EINVAL, part="owner"):
        await write(files, FileWrite(path=FILE, owner="nosuch"), b"")


async def test_what_cannot_be_is_refused(files: GuestFiles) -> None:
    await put(files, b"x")
    await files.edit(Link(path=TOP + b"/loop", target=b"loop"))
    for path, code in (
        (b"relative", errno.EINVAL),
        (b"/with\0nul", errno.EINVAL),
        (TOP + b"/loop", errno.ELOOP),
        (TOP + b"/none", errno.ENOENT),
        (FILE + b"/x", errno.ENOTDIR),
        (TOP + b"/" + b"n" * 256, errno.ENAMETOOLONG),
        (TOP + b"/x" * 2100, errno.ENAMETOOLONG),
    ):
        with pytest.raises(AgentRequestError) as refusal:
            await files.stat(path)
        assert refusal.value.code == errno.errorcode[code], path
    for attempt in (read(files, TOP), write(files, FileWrite(path=TOP), b"x")):
        with refused(errno.EISDIR):
            await attempt
