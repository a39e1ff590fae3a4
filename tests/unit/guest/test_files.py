"""Files to and from the guest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from tests.agents import LocalAgent
from vmm.errors import AgentRequestError
from vmm.guest.agent import wire
from vmm.guest.client import AgentClient

MIB = 1024 * 1024


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@pytest.mark.parametrize("size", [0, 1, wire.MAX_PAYLOAD, wire.WINDOW, wire.WINDOW + 1, 5 * MIB])
async def test_a_file_of_any_size_comes_back_as_it_went(client: AgentClient, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = str(tmp_path / "file")
    await client.put_file(path, data)
    assert await client.get_file(path) == data


async def test_a_file_may_contain_the_marker(client: AgentClient, tmp_path: Path) -> None:
    data = b"x" * (wire.MAX_PAYLOAD - 3) + wire.MARKER * 5
    await client.put_file(str(tmp_path / "file"), data)
    assert await client.get_file(str(tmp_path / "file")) == data


async def test_the_mode_is_set(client: AgentClient, tmp_path: Path) -> None:
    await client.put_file(str(tmp_path / "program"), b"#!/bin/sh\n", mode=0o751)
    assert (await trio.Path(tmp_path / "program").stat()).st_mode & 0o7777 == 0o751


async def test_a_file_name_need_not_be_text(client: AgentClient, tmp_path: Path) -> None:
    path = os.fsdecode(bytes(tmp_path) + b"/\xff" + wire.MARKER)
    await client.put_file(path, b"data")
    assert await trio.Path(path).read_bytes() == b"data"
    assert await client.get_file(path) == b"data"


async def test_replacing_a_file_shows_the_old_one_or_the_new_one(client: AgentClient, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        await client.put_file(str(path), b"new")
        assert reader.read() == b"old", "the old file was not written over"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


async def test_a_put_that_is_cancelled_leaves_nothing(
    client: AgentClient, local_agent: LocalAgent, tmp_path: Path
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.put_file(str(tmp_path / "file"), bytes(MIB))
    await client.ping()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "code"), [("/no/such/file", "ENOENT"), ("/", "BAD_REQUEST"), ("/dev/zero", "BAD_REQUEST")]
)
async def test_what_cannot_be_got_is_refused(client: AgentClient, path: str, code: str) -> None:
    with pytest.raises(AgentRequestError) as caught:
        await client.get_file(path)
    assert (caught.value.request, caught.value.code) == ("get", code)


async def test_what_cannot_be_put_is_refused(client: AgentClient, tmp_path: Path) -> None:
    with pytest.raises(AgentRequestError) as caught:
        await client.put_file("/no/such/directory/file", bytes(MIB))
    assert caught.value.code == "ENOENT"
    (tmp_path / "directory").mkdir()
    with pytest.raises(AgentRequestError) as caught:
        await client.put_file(str(tmp_path / "directory"), b"data")
    assert caught.value.code == "EISDIR"
    assert names(tmp_path) == ["directory"]


async def test_a_limit_bounds_what_a_guest_can_make_the_host_hold(client: AgentClient, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(MIB))
    assert len(await client.get_file(str(path), limit=MIB)) == MIB
    with pytest.raises(AgentRequestError) as caught:
        await client.get_file(str(path), limit=MIB - 1)
    assert caught.value.code == "EFBIG"
    await client.ping()


async def test_files_go_both_ways_at_once(client: AgentClient, tmp_path: Path) -> None:
    async def there_and_back(number: int) -> None:
        data = os.urandom(MIB)
        await client.put_file(str(tmp_path / str(number)), data)
        assert await client.get_file(str(tmp_path / str(number))) == data

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(there_and_back, number)
