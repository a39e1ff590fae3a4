"""A guest that lies about its files. Each answer is held against what was asked; a lie ends the channel."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from tests.examples import examples
from tests.files import all_records, everything
from tests.unit.guest.test_session import hello_reply, read_hello
from tests.virtual_time import in_virtual_time
from vmm.contract.files import GuestFiles
from vmm.errors import AgentError, AgentProtocolError
from vmm.guest.agent import values, wire
from vmm.guest.client import AgentClient
from vmm.words.files import (
    Copy,
    FileChange,
    FileInfo,
    FileWrite,
    MakeDirectory,
    Remove,
    TreeSummary,
    TreeWrite,
)

PATH: Final = b"/dir"
LENGTH: Final = 100

INFO: Final[dict[str, Any]] = {
    "path": PATH,
    "mode": 0o100644,
    "size": 5,
    "uid": 0,
    "gid": 0,
    "user": "root",
    "group": "root",
    "modified_ns": 1,
    "target": b"",
    "links": 1,
    "inode": -1,
}
ENTRY: Final = INFO | {"path": PATH + b"/x"}
CHANGE: Final[dict[str, Any]] = {"kind": "created", "path": PATH + b"/x", "target": b"", "directory": False}
SUMMARY: Final[dict[str, Any]] = {"members": 1, "size": 2}
WINDOW: Final[dict[str, Any]] = {"window": wire.WINDOW}


async def listed(files: GuestFiles) -> list[FileInfo]:
    return await all_records(await files.list(PATH, depth=2))


async def watched(files: GuestFiles) -> list[FileChange]:
    return await all_records(await files.watch(PATH))


async def read(files: GuestFiles) -> bytes:
    return await everything(await files.read(PATH, length=LENGTH))


async def written(files: GuestFiles) -> FileInfo:
    writer = await files.write(FileWrite(path=PATH))
    try:
        return await writer.finish()
    finally:
        await writer.aclose()


async def extracted(files: GuestFiles) -> TreeSummary:
    writer = await files.write_tree(TreeWrite(path=PATH))
    try:
        return await writer.finish()
    finally:
        await writer.aclose()


async def tree_read(files: GuestFiles) -> bytes:
    return await everything(await files.read_tree(PATH))


@attrs.frozen
class Conversation:
    """A request, and what an honest guest says to it: an answer, then records or data."""

    ask: Callable[[GuestFiles], Awaitable[object]]
    answer: Mapping[str, Any]
    record: Mapping[str, Any] | None = None
    data: bytes | None = None


HONEST: Final = {
    "stat": Conversation(lambda files: files.stat(PATH), INFO),
    "make": Conversation(lambda files: files.edit(MakeDirectory(path=PATH)), INFO),
    "copy": Conversation(lambda files: files.edit(Copy(path=b"/other", target=PATH)), INFO),
    "remove": Conversation(lambda files: files.edit(Remove(path=PATH)), {}),
    "list": Conversation(listed, WINDOW, record=ENTRY),
    "watch": Conversation(watched, WINDOW, record=CHANGE),
    "read": Conversation(read, WINDOW | INFO, data=b"12345"),
    "write": Conversation(written, WINDOW, record=INFO),
    "write_tree": Conversation(extracted, WINDOW, record=SUMMARY),
    "read_tree": Conversation(tree_read, WINDOW, data=b"tar"),
}


async def asked(
    conversation: Conversation, answer: Mapping[str, Any], *records: Mapping[str, Any], data: bytes | None = None
) -> tuple[object, bool]:
    """What comes of a request that is answered so, and whether the channel survives it."""
    ours, theirs = memory_stream_pair()
    outcome: object = None
    async with trio.open_nursery() as nursery:

        async def reply() -> None:
            await theirs.send_all(hello_reply(await read_hello(theirs)))
            await theirs.receive_some()
            said = wire.encode(wire.REPLY, 1, values.pack(dict(answer)))
            packed = [values.pack(dict(record)) for record in records]
            content = b"".join(wire.COUNT.pack(len(record)) + record for record in packed) if data is None else data
            if "window" in answer:
                said += wire.encode_data(wire.STDOUT, 1, content) + wire.encode(wire.EOF + wire.STDOUT, 1)
            await theirs.send_all(said)

        nursery.start_soon(reply)
        client = await AgentClient.connect(ours, nursery=nursery)
        try:
            outcome = await conversation.ask(client.files)
        except AgentError as error:
            outcome = error
        alive = True
        try:
            client._connection.check()
        except AgentError:
            alive = False
        await client.aclose()
    return outcome, alive


@pytest.mark.parametrize("name", HONEST)
@in_virtual_time
async def test_an_honest_guest_is_believed(name: str) -> None:
    talk = HONEST[name]
    outcome, alive = await asked(talk, talk.answer, *filter(None, [talk.record]), data=talk.data)
    assert not isinstance(outcome, Exception)
    assert alive


INFO_LIES: Final[dict[str, Any]] = {
    "another path": {"path": b"/etc/passwd"},
    "a path below": {"path": PATH + b"/x/../y"},
    "text for a path": {"path": "/dir"},
    "no mode": {"mode": None},
    "a mode that is true": {"mode": True},
    "a kind that there is not": {"mode": 0o170644},
    "no kind": {"mode": 0o644},
    "a mode beyond all": {"mode": 2**20},
    "a size below 0": {"size": -1},
    "a user below 0": {"uid": -1},
    "a group beyond all": {"gid": 2**32},
    "links below 0": {"links": -1},
    "a time that is text": {"modified_ns": "now"},
    "an inode that is none": {"inode": None},
    "a target of what is no link": {"target": b"x"},
    "a link without a target": {"mode": 0o120777},
    "a target beyond all": {"mode": 0o120777, "target": b"x" * 5000},
}


@pytest.mark.parametrize("lie", INFO_LIES.values(), ids=INFO_LIES)
@pytest.mark.parametrize("name", ["stat", "make", "copy", "read", "list", "write"])
@in_virtual_time
async def test_a_lie_about_a_file_ends_the_channel(name: str, lie: Mapping[str, Any]) -> None:
    talk = HONEST[name]
    if talk.record is None:
        outcome, alive = await asked(talk, {**talk.answer, **lie}, data=talk.data)
    else:
        outcome, alive = await asked(talk, talk.answer, {**talk.record, **lie})
    assert isinstance(outcome, AgentProtocolError)
    assert not alive


@pytest.mark.parametrize(
    "path",
    [PATH, b"/dirx", PATH + b"//x", PATH + b"/./x", PATH + b"/a/b/c", PATH + b"/a\0b", PATH + b"/" + b"x" * 5000],
)
@in_virtual_time
async def test_a_list_has_only_what_is_in_the_directory_as_deep_as_asked(path: bytes) -> None:
    outcome, alive = await asked(HONEST["list"], WINDOW, ENTRY | {"path": path})
    assert isinstance(outcome, AgentProtocolError)
    assert not alive


@pytest.mark.parametrize(
    "lie",
    [
        {"kind": "invented"},
        {"kind": None},
        {"path": b"/elsewhere"},
        {"path": PATH + b"/a/b"},
        {"target": PATH + b"/y"},
        {"kind": "moved"},
        {"kind": "moved", "target": b"/elsewhere"},
        {"kind": "overflow"},
        {"directory": 1},
    ],
    ids=str,
)
@in_virtual_time
async def test_a_lie_about_a_change_ends_the_channel(lie: Mapping[str, Any]) -> None:
    outcome, alive = await asked(HONEST["watch"], WINDOW, {**CHANGE, **lie})
    assert isinstance(outcome, AgentProtocolError)
    assert not alive


@in_virtual_time
async def test_a_file_has_no_more_than_was_asked_for() -> None:
    outcome, alive = await asked(HONEST["read"], WINDOW | INFO, data=bytes(LENGTH + 1))
    assert isinstance(outcome, AgentProtocolError)
    assert not alive


@pytest.mark.parametrize("name", ["write", "write_tree"])
@pytest.mark.parametrize("times", [0, 2])
@in_virtual_time
async def test_what_was_written_is_told_once(name: str, times: int) -> None:
    talk = HONEST[name]
    assert talk.record is not None
    outcome, alive = await asked(talk, talk.answer, *[talk.record] * times)
    assert isinstance(outcome, AgentProtocolError)
    assert not alive


@pytest.mark.parametrize(
    "lie", [{"members": -1}, {"size": None}, {"members": True}, {"size": 2**63 - 1, "members": ""}]
)
@in_virtual_time
async def test_a_lie_about_a_tree_ends_the_channel(lie: Mapping[str, Any]) -> None:
    outcome, alive = await asked(HONEST["write_tree"], WINDOW, {**SUMMARY, **lie})
    assert isinstance(outcome, AgentProtocolError)
    assert not alive


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
    | st.binary(max_size=9)
    | st.sampled_from([PATH, PATH + b"/x", b"/", b"created", "created", "moved", 0o100644, 0o120777])
)
fields = st.dictionaries(st.sampled_from([*INFO, *CHANGE, *SUMMARY]), leaves)


@given(name=st.sampled_from(list(HONEST)), lies=fields, told=fields, data=st.binary(max_size=40) | st.none())
@examples(150)
@in_virtual_time
async def test_whatever_is_said_becomes_a_record_or_an_error(
    name: str, lies: Mapping[str, Any], told: Mapping[str, Any], data: bytes | None
) -> None:
    talk = HONEST[name]
    record = {**(talk.record or {}), **told}
    outcome, alive = await asked(talk, {**talk.answer, **lies}, record, data=data)
    if isinstance(outcome, AgentProtocolError):
        assert not alive
    with contextlib.suppress(TypeError):
        for info in outcome if isinstance(outcome, list) else [outcome]:
            assert not isinstance(info, FileInfo) or (info.size >= 0 and 0 <= info.mode <= 0o7777)
