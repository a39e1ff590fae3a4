"""What a guest may say: numbers that can be, texts that are cut, files that are as long as they were to be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from tests.unit.guest.test_session import hello_reply, read_hello
from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.guest.agent import values, wire
from vmm.guest.client import AgentClient
from vmm.untrusted import MAX_SAID, said
from vmm.words.commands import CommandExit, CommandSpec
from vmm.words.preparation import Preparation

MIB = 1024 * 1024


async def client_of(nursery: trio.Nursery, *answers: bytes) -> AgentClient:
    """Of a guest that answers the first request with these."""
    ours, theirs = memory_stream_pair()

    async def answer() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        for each in answers:
            await theirs.send_all(each)

    nursery.start_soon(answer)
    return await AgentClient.connect(ours, nursery=nursery)


def error(**fields: Any) -> bytes:
    return wire.encode(wire.ERROR, 1, values.pack(fields))


@pytest.mark.parametrize(
    "how",
    [
        {"status": 2**62},
        {"status": 256},
        {"status": -1},
        {"status": True},
        {"signal": 0},
        {"signal": 65},
        {"signal": 2**62},
        {"status": 0, "signal": 9},
        {"status": "0"},
        {},
    ],
    ids=str,
)
async def test_an_exit_that_cannot_be_breaks_the_protocol(nursery: trio.Nursery, how: dict[str, Any]) -> None:
    """An exit status of 2**62 would arrive as 0."""
    client = await client_of(
        nursery, wire.encode(wire.REPLY, 1, values.pack({"pid": 1})), wire.encode(wire.EXITED, 1, values.pack(how))
    )
    command = await client.start_command(CommandSpec(argv=["true"]))
    with pytest.raises(AgentProtocolError):
        assert [event async for event in command.events()] == []
    await command.aclose()
    await client.aclose()


@pytest.mark.parametrize("how", [{"status": 0}, {"status": 255}, {"signal": 1}, {"signal": 64}], ids=str)
async def test_an_exit_that_can_be_is_told(nursery: trio.Nursery, how: dict[str, Any]) -> None:
    client = await client_of(
        nursery, wire.encode(wire.REPLY, 1, values.pack({"pid": 1})), wire.encode(wire.EXITED, 1, values.pack(how))
    )
    command = await client.start_command(CommandSpec(argv=["true"]))
    assert [event async for event in command.events()] == [CommandExit(**how)]
    await command.aclose()
    await client.aclose()


@pytest.mark.parametrize("pid", [None, "7", True, -1, 2**22 + 1, [7]])
async def test_a_command_without_a_pid_breaks_the_protocol(nursery: trio.Nursery, pid: object) -> None:
    client = await client_of(nursery, wire.encode(wire.REPLY, 1, values.pack({"pid": pid})))
    with pytest.raises(AgentProtocolError, match="a process without a pid"):
        await client.start_command(CommandSpec(argv=["true"]))
    await client.aclose()


async def test_a_refusal_is_cut(nursery: trio.Nursery) -> None:
    """It goes to logs, to status and to callers."""
    client = await client_of(nursery, error(code="ENOENT", message="x" * 10_000, part="y" * 10_000))
    with pytest.raises(AgentRequestError) as caught:
        await client.ping()
    assert caught.value.message == "x" * MAX_SAID + "..."
    assert len(caught.value.part) <= MAX_SAID + 3
    await client.aclose()


async def test_a_refusal_with_bytes_that_are_no_text_can_be_sent(nursery: trio.Nursery) -> None:
    client = await client_of(nursery, error(code="ENOENT", message="caf\udce9"))
    with pytest.raises(AgentRequestError) as caught:
        await client.ping()
    assert caught.value.message.encode() == rb"caf\udce9"
    await client.aclose()


@pytest.mark.parametrize("code", ["", "no code", "X" * 100_000, None, 7, "caf\udce9"])
async def test_a_refusal_without_a_code_breaks_the_protocol(nursery: trio.Nursery, code: object) -> None:
    client = await client_of(nursery, error(code=code, message="refused"))
    with pytest.raises(AgentProtocolError) as caught:
        await client.ping()
    assert len(str(caught.value)) < MAX_SAID
    await client.aclose()


async def test_what_makes_no_sense_is_quoted_in_part(nursery: trio.Nursery) -> None:
    nonsense = b"d\1\0\0\0" + values.pack([]) + values.pack(1)
    client = await client_of(nursery, wire.encode(0x31, 0, b"z" * 60_000), wire.encode(wire.REPLY, 1, nonsense))
    with pytest.raises(AgentProtocolError) as caught:
        await client.ping()
    assert len(str(caught.value)) < 2 * MAX_SAID
    await client.aclose()


async def test_a_flag_is_no_number(nursery: trio.Nursery) -> None:
    report = {"reseeded": True, "wall_clock_ns": 1, "hostname": "", "cpus_online": True, "memory_mib": 1}
    client = await client_of(nursery, wire.encode(wire.REPLY, 1, values.pack(report)))
    with pytest.raises(AgentProtocolError, match="cpus_online"):
        await client.prepare(Preparation())
    await client.aclose()


# -- files ---------------------------------------------------------------------------------------------------------


def file(size: object, content: bytes) -> tuple[bytes, ...]:
    return (
        wire.encode(wire.REPLY, 1, values.pack({"size": size})),
        wire.encode_data(wire.STDOUT, 1, content),
        wire.encode(wire.EOF + wire.STDOUT, 1),
    )


async def test_a_file_that_ends_early_is_not_taken_for_whole(nursery: trio.Nursery) -> None:
    client = await client_of(nursery, *file(9, b"12345678"))
    with pytest.raises(AgentRequestError, match="ended after 8 of 9 bytes") as caught:
        await client.get_file("/file")
    assert caught.value.code == "EIO"
    await client.aclose()


@pytest.mark.parametrize("size", [0, 8])
async def test_a_file_may_have_more_than_it_had(nursery: trio.Nursery, size: int) -> None:
    """Those in /proc have size 0."""
    client = await client_of(nursery, *file(size, b"12345678"))
    assert await client.get_file("/file") == b"12345678"
    await client.aclose()


@pytest.mark.parametrize("size", [-1, "9", None, True, 2**63])
async def test_a_file_without_a_size_breaks_the_protocol(nursery: trio.Nursery, size: object) -> None:
    client = await client_of(nursery, *(file(size, b"") if size != 2**63 else file([], b"")))
    with pytest.raises(AgentProtocolError):
        await client.get_file("/file")
    await client.aclose()


async def test_the_agent_sends_no_more_than_was_asked_for(client: AgentClient, tmp_path: Path) -> None:
    """Not even what the host would only throw away."""
    path = tmp_path / "file"
    path.write_bytes(bytes(MIB))
    with pytest.raises(AgentRequestError, match="has 1048576 bytes; the limit is 1048575") as caught:
        await client.get_file(str(path), limit=MIB - 1)
    assert caught.value.code == "EFBIG"


async def test_the_agent_stops_where_a_file_without_a_size_goes_beyond_the_limit(client: AgentClient) -> None:
    assert os.stat("/proc/self/status").st_size == 0  # noqa: PTH116 - a system call
    with pytest.raises(AgentRequestError) as caught:
        await client.get_file("/proc/self/status", limit=10)
    assert caught.value.code == "EFBIG"
    await client.ping()


# -- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain", "plain"), ("caf\udce9", r"caf\udce9"), (None, ""), (7, ""), ("x" * 1001, "x" * 1000 + "...")],
)
def test_what_a_guest_said(text: object, shown: str) -> None:
    assert said(text) == shown


# -- the end of it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        wire.encode(wire.REPLY, 7, values.pack({})),
        wire.encode(wire.REPLY, 1, values.pack({"version": "one"})),
        b"\xff" * 9,
    ],
    ids=["what nobody asked", "an answer that is none", "garbage"],
)
async def test_a_guest_that_breaks_the_protocol_is_told_of_to_whoever_waits_for_that(
    nursery: trio.Nursery, answer: bytes
) -> None:
    client = await client_of(nursery, answer)
    told: list[AgentProtocolError] = []

    async def wait() -> None:
        told.append(await client.wait_broken())

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert told == []
    with pytest.raises(AgentProtocolError) as caught:
        await client.ping()
    await trio.testing.wait_all_tasks_blocked()
    assert [str(error) for error in told] == [str(caught.value)]
    with pytest.raises(AgentProtocolError):
        await client.ping()
    await client.aclose()


async def test_a_guest_that_is_gone_has_broken_nothing(client: AgentClient, nursery: trio.Nursery) -> None:
    """Its process ends, which says more."""

    async def wait() -> None:
        raise AssertionError(await client.wait_broken())

    nursery.start_soon(wait)
    await client.aclose()
    await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
