"""Reading and writing one file. The agent is a process on this host."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio

from tests.agents import Narrow
from tests.files import names_in, raw, read, refused, write
from tests.waiting import until
from vmm.guest.agent import wire
from vmm.guest.client import AgentClient
from vmm.words.files import (
    FileKind,
    FileWrite,
    WriteMode,
)

NOBODY = 65534


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

    async def nothing_is_beside_it() -> bool:
        return names_in(place) == {"file"}

    await until(nothing_is_beside_it)
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
