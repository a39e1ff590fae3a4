"""Files over the agent's channel: the agent is a process on this host, and so are its workers."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import trio

from tests.agents import LocalAgent, Narrow
from tests.files import listed, read, seen, write
from vmm.errors import AgentRequestError
from vmm.guest.agent import wire
from vmm.guest.client import AgentClient
from vmm.words.files import (
    Copy,
    FileKind,
    FileWrite,
    Link,
    MakeDirectory,
    Move,
    Remove,
    SetAttributes,
    WriteMode,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

NOBODY = 65534


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that everybody may look into."""
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        directory.chmod(0o755)
    return tmp_path


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """On another file system, where there is one."""
    with tempfile.TemporaryDirectory(prefix="vmpool-", dir="/dev/shm") as name:
        yield Path(name)


@contextlib.contextmanager
def refused(code: int, *, part: str = "") -> Iterator[None]:
    with pytest.raises(AgentRequestError) as refusal:
        yield
    assert (refusal.value.code, refusal.value.part) == (errno.errorcode[code], part)


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def descriptors(pid: int) -> list[str]:
    return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]


def raw(path: Path) -> bytes:
    return os.fsencode(path)


# -- workers -------------------------------------------------------------------------------------------------------


def workers_of(agent: LocalAgent) -> list[psutil.Process]:
    return psutil.Process(agent.process.pid).children()


async def ended(process: psutil.Process) -> None:
    while process.is_running():
        await trio.sleep(0.01)


async def test_one_worker_does_one_request_after_another(client: AgentClient, local_agent: LocalAgent) -> None:
    for _ in range(5):
        await client.files.stat(b"/")
    [worker] = workers_of(local_agent)
    with refused(errno.ENOENT):
        await client.files.stat(b"/nowhere")
    assert workers_of(local_agent) == [worker], "an error does not cost it its life"


async def test_requests_at_once_have_a_worker_each_and_few_stay(client: AgentClient, local_agent: LocalAgent) -> None:
    readers = [await client.files.read(b"/proc/self/status") for _ in range(9)]
    assert len(workers_of(local_agent)) >= 1
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client.files.stat, b"/")
    for reader in readers:
        await reader.aclose()
    with trio.fail_after(10):
        while len(workers_of(local_agent)) > 4:
            await trio.sleep(0.01)


async def test_a_worker_has_no_descriptor_of_the_agent(client: AgentClient, local_agent: LocalAgent) -> None:
    watch = await client.files.watch(b"/tmp")
    [worker] = workers_of(local_agent)
    kept = descriptors(worker.pid)
    assert sum("eventpoll" in name for name in descriptors(local_agent.process.pid)) == 2
    assert not any("eventpoll" in name for name in kept)
    assert sum("inotify" in name for name in kept) == 1
    assert len(kept) == 6, kept
    await watch.aclose()


async def test_a_worker_that_is_killed_is_an_error_and_the_next_request_has_another(
    client: AgentClient, local_agent: LocalAgent
) -> None:
    watch = await client.files.watch(b"/tmp")
    [worker] = workers_of(local_agent)
    worker.kill()
    assert await watch.receive() == () or True
    await watch.aclose()
    await client.files.stat(b"/")


async def test_closing_ends_the_worker_even_if_it_is_stopped(client: AgentClient, local_agent: LocalAgent) -> None:
    watch = await client.files.watch(b"/tmp")
    [worker] = workers_of(local_agent)
    worker.send_signal(signal.SIGSTOP)
    await watch.aclose()
    with trio.fail_after(10):
        await ended(worker)


# -- read ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, wire.WINDOW, 3 * wire.WINDOW + 17])
async def test_a_file_comes_whole(client: AgentClient, place: Path, size: int) -> None:
    data = os.urandom(size)
    (place / "file").write_bytes(data)
    reader = await client.files.read(raw(place / "file"))
    assert (reader.info.size, reader.info.kind) == (size, FileKind.REGULAR)
    got = bytearray()
    while piece := await reader.receive():
        got += piece
    await reader.aclose()
    assert got == data


@pytest.mark.parametrize(("offset", "length"), [(0, 5), (3, 4), (8, 100), (10, 1), (500, 5), (0, 0)])
async def test_a_part_of_a_file(client: AgentClient, place: Path, offset: int, length: int) -> None:
    (place / "file").write_bytes(b"0123456789")
    got = await read(client.files, raw(place / "file"), offset=offset, length=length)
    assert got == b"0123456789"[offset : offset + length]


async def test_files_of_proc_are_read_to_their_end(client: AgentClient) -> None:
    assert b"Name:" in await read(client.files, b"/proc/self/status")
    assert len(await read(client.files, b"/proc/version")) > 10


async def test_a_file_may_grow_and_shrink_meanwhile(client: AgentClient, place: Path) -> None:
    path = place / "file"
    path.write_bytes(bytes(4 * wire.WINDOW))
    growing = await client.files.read(raw(path), room=Narrow())
    await growing.receive()
    with path.open("ab") as file:
        file.write(b"more")
    got = b""
    while piece := await growing.receive():
        got = piece
    await growing.aclose()
    assert got.endswith(b"more")

    shrinking = await client.files.read(raw(path), room=Narrow())
    size = len(await shrinking.receive())
    os.truncate(path, 10)
    while piece := await shrinking.receive():
        size += len(piece)
    await shrinking.aclose()
    assert size < 4 * wire.WINDOW


async def test_what_is_no_regular_file_is_not_read(client: AgentClient, place: Path) -> None:
    os.mkfifo(place / "fifo")
    with refused(errno.EISDIR):
        await read(client.files, raw(place))
    for path in (raw(place / "fifo"), b"/dev/zero"):
        with trio.fail_after(10), refused(errno.EINVAL):
            await read(client.files, path)


async def test_a_reader_that_leaves_early_leaves_the_channel_usable(client: AgentClient, place: Path) -> None:
    (place / "file").write_bytes(bytes(2**22))
    reader = await client.files.read(raw(place / "file"))
    await reader.receive()
    await reader.aclose()
    assert (await client.files.stat(raw(place / "file"))).size == 2**22


# -- write ---------------------------------------------------------------------------------------------------------


async def test_a_written_file_appears_whole_or_not_at_all(client: AgentClient, place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"old")
    writer = await client.files.write(FileWrite(path=raw(path)))
    await writer.send(bytes(2 * wire.WINDOW))
    assert path.read_bytes() == b"old"
    await writer.finish()
    await writer.aclose()
    assert path.read_bytes() == bytes(2 * wire.WINDOW)
    assert names_in(place) == {"file"}


async def test_a_write_that_is_given_up_leaves_nothing(client: AgentClient, place: Path) -> None:
    (place / "file").write_bytes(b"old")
    writer = await client.files.write(FileWrite(path=raw(place / "file")))
    await writer.send(bytes(2 * wire.WINDOW))
    await writer.aclose()
    with trio.fail_after(10):
        while len(names_in(place)) > 1:
            await trio.sleep(0.01)
    assert (place / "file").read_bytes() == b"old"


async def test_modes_of_new_and_old_files(client: AgentClient, place: Path) -> None:
    path = place / "file"
    assert (await write(client.files, FileWrite(path=raw(path)), b"")).mode == 0o644
    assert (await write(client.files, FileWrite(path=raw(path), mode=0o4711), b"")).mode == 0o4711
    for how in (WriteMode.REPLACE, WriteMode.TRUNCATE, WriteMode.UPDATE, WriteMode.APPEND):
        assert (await write(client.files, FileWrite(path=raw(path), how=how), b"x")).mode & 0o777 == 0o711


async def test_missing_directories_are_made_on_request_only(client: AgentClient, place: Path) -> None:
    path = place / "a" / "b" / "file"
    with refused(errno.ENOENT):
        await write(client.files, FileWrite(path=raw(path)), b"x")
    await write(client.files, FileWrite(path=raw(path), parents=True), b"x")
    assert path.read_bytes() == b"x"
    (place / "file").touch()
    with refused(errno.ENOTDIR):
        await write(client.files, FileWrite(path=raw(place / "file" / "c" / "d"), parents=True), b"x")


async def test_a_links_target_is_replaced(client: AgentClient, place: Path) -> None:
    (place / "directory").mkdir()
    (place / "link").symlink_to("directory/target")
    await write(client.files, FileWrite(path=raw(place / "link")), b"new")
    await write(client.files, FileWrite(path=raw(place / "link")), b"newer")
    assert (place / "link").is_symlink()
    assert (place / "directory" / "target").read_bytes() == b"newer"


async def test_what_is_no_regular_file_is_not_written(client: AgentClient, place: Path) -> None:
    os.mkfifo(place / "fifo")
    for how in (WriteMode.REPLACE, WriteMode.TRUNCATE, WriteMode.UPDATE, WriteMode.APPEND):
        with refused(errno.EISDIR):
            await write(client.files, FileWrite(path=raw(place), how=how), b"x")
        for path in (raw(place / "fifo"), b"/dev/null"):
            with trio.fail_after(10), refused(errno.EINVAL):
                await write(client.files, FileWrite(path=path, how=how), b"x")
    with refused(errno.EEXIST):
        await write(client.files, FileWrite(path=raw(place), how=WriteMode.CREATE), b"x")


async def test_owners_are_set_by_name_and_number(client: AgentClient, place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    wanted = FileWrite(path=raw(place / "file"), owner="nobody", group="1234", mode=0o4755)
    info = await write(client.files, wanted, b"")
    assert (info.uid, info.gid, info.user, info.group, info.mode) == (NOBODY, 1234, "nobody", "", 0o4755)
    info = await write(client.files, FileWrite(path=raw(place / "file")), b"again")
    assert (info.uid, info.gid) == (NOBODY, 1234), "a file that exists keeps its own"
    for field in ("owner", "group"):
        with refused(errno.EINVAL, part=field):
            await write(client.files, FileWrite(path=raw(place / "file"), **{field: "nosuch"}), b"")  # type: ignore[arg-type]


# -- rights --------------------------------------------------------------------------------------------------------


@as_root
async def test_a_user_may_do_what_its_rights_allow(client: AgentClient, place: Path) -> None:
    (place / "secret").write_bytes(b"secret")
    (place / "secret").chmod(0o600)
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    with refused(errno.EACCES):
        await read(client.files, raw(place / "secret"), user="nobody")
    with refused(errno.EACCES):
        await write(client.files, FileWrite(path=raw(place / "secret")), b"x", user="nobody")
    with refused(errno.EACCES):
        await write(client.files, FileWrite(path=raw(place / "new")), b"x", user=str(NOBODY))
    info = await write(client.files, FileWrite(path=raw(place / "open" / "new")), b"x", user="nobody")
    assert info.uid == NOBODY
    with refused(errno.EPERM):
        await client.files.edit(SetAttributes(path=raw(place / "open" / "new"), owner="root"), user="nobody")
    assert await read(client.files, raw(place / "secret")) == b"secret", "root is somebody else again"


async def test_an_unknown_user_is_refused(client: AgentClient) -> None:
    with refused(errno.EINVAL, part="user"):
        await client.files.stat(b"/", user="nosuch")
    await client.files.stat(b"/")


# -- paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [b"", b"relative", b"./x", b"/with\0nul"])
async def test_a_path_is_absolute_and_has_no_nul(client: AgentClient, path: bytes) -> None:
    with refused(errno.EINVAL, part="path"):
        await client.files.stat(path)
    with refused(errno.EINVAL, part="path"):
        await client.files.list(path)
    with refused(errno.EINVAL, part="path"):
        await client.files.edit(MakeDirectory(path=path))
    with refused(errno.EINVAL, part="target"):
        await client.files.edit(Move(path=b"/x", target=path))


async def test_what_the_kernel_says_of_a_path(client: AgentClient, place: Path) -> None:
    (place / "loop").symlink_to("loop")
    (place / "file").touch()
    for path, code in (
        (place / "loop", errno.ELOOP),
        (place / "file" / "x", errno.ENOTDIR),
        (place / ("n" * 256), errno.ENAMETOOLONG),
        (Path(str(place) + "/x" * 2100), errno.ENAMETOOLONG),
        (place / "none", errno.ENOENT),
    ):
        with refused(code):
            await client.files.stat(raw(path))
        with refused(code):
            await read(client.files, raw(path))
    with refused(errno.ELOOP):
        await write(client.files, FileWrite(path=raw(place / "loop")), b"x")
    assert (await client.files.stat(raw(place / "loop"), follow=False)).kind is FileKind.SYMLINK


async def test_names_need_not_be_utf8(client: AgentClient, place: Path) -> None:
    path = raw(place) + b"/\xff\xfe\n name"
    await write(client.files, FileWrite(path=path), b"x")
    assert [info.path for info in await listed(client.files, raw(place))] == [path]
    with pytest.raises(AgentRequestError, match="No such file"):
        await read(client.files, path + b"2")


# -- list ----------------------------------------------------------------------------------------------------------


async def test_a_list_goes_as_deep_as_asked(client: AgentClient, place: Path) -> None:
    (place / "a" / "b" / "c").mkdir(parents=True)
    (place / "a" / "file").write_bytes(b"12345")
    (place / "link").symlink_to("a")
    top = raw(place)
    for depth, names in (
        (1, {b"a", b"link"}),
        (2, {b"a", b"link", b"a/b", b"a/file"}),
        (9, {b"a", b"link", b"a/b", b"a/file", b"a/b/c"}),
    ):
        found = await listed(client.files, top, depth=depth)
        assert {info.path for info in found} == {top + b"/" + name for name in names}
    found = await listed(client.files, top, depth=9)
    order = [info.path for info in found]
    assert order.index(top + b"/a/b") < order.index(top + b"/a/b/c")
    link = next(info for info in found if info.path == top + b"/link")
    assert (link.kind, link.target) == (FileKind.SYMLINK, b"a")
    with refused(errno.ENOTDIR):
        await listed(client.files, top + b"/a/file")


async def test_a_list_of_ten_thousand_is_received_in_parts(client: AgentClient, place: Path) -> None:
    for number in range(10_000):
        (place / f"{number:05}").touch()
    source = await client.files.list(raw(place), room=Narrow())
    names: list[bytes] = []
    while records := await source.receive():
        assert len(records) < 1000
        names += [info.path for info in records]
    await source.aclose()
    assert sorted(names) == [raw(place) + b"/%05d" % number for number in range(10_000)]


@as_root
async def test_a_directory_further_down_that_is_closed_to_the_user_is_listed_without_content(
    client: AgentClient, place: Path
) -> None:
    (place / "closed" / "inside").mkdir(parents=True)
    (place / "closed").chmod(0o700)
    found = await listed(client.files, raw(place), depth=5, user="nobody")
    assert [info.path for info in found] == [raw(place / "closed")]
    with refused(errno.EACCES):
        await listed(client.files, raw(place / "closed"), user="nobody")


# -- edit ----------------------------------------------------------------------------------------------------------


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
