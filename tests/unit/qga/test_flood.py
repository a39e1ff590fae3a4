"""A guest that floods qemu-ga's channel. What is of no use ends it, and what is long takes nobody else's turn."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MemoryReceiveStream, memory_stream_pair

from tests.virtual_time import in_virtual_time
from vmm.errors import AgentProtocolError
from vmm.guest import budget
from vmm.guest.qga.channel import QgaChannel
from vmm.guest.qga.protocol import MAX_LINE, Decoder, Message


@asynccontextmanager
async def synced(nursery: trio.Nursery) -> AsyncIterator[tuple[QgaChannel, trio.testing.MemorySendStream]]:
    """A channel, and what to say on it."""
    ours, theirs = memory_stream_pair()
    channel = QgaChannel(ours)
    async with trio.open_nursery() as opening:
        opening.start_soon(channel.open, nursery)
        await theirs.send_all(await answer_to_sync(theirs.receive_stream))
    yield channel, theirs.send_stream
    await channel.aclose()


async def answer_to_sync(stream: MemoryReceiveStream) -> bytes:
    request = json.loads(bytes(await stream.receive_some()).removeprefix(b"\xff"))
    return b"\xff" + json.dumps({"return": request["arguments"]["id"], "id": request["id"]}).encode() + b"\n"


@pytest.mark.parametrize(
    ("said", "times"),
    [(b"\n", 300), (b"\r\n", 300), (b"\xff", 300), (b"\xff\n", 200), (b"x" * 2**20, 65)],
    ids=["no lines", "none of another kind", "delimiters", "both", "a line that does not end"],
)
@in_virtual_time
async def test_a_guest_that_answers_with_what_is_no_answer_is_left(said: bytes, times: int) -> None:
    async with trio.open_nursery() as nursery, synced(nursery) as (channel, theirs):

        async def ask() -> None:
            with pytest.raises(AgentProtocolError, match="keeps sending"):
                await channel.execute("guest-info", request="ping")

        nursery.start_soon(ask)
        for _ in range(times):
            await theirs.send_all(said)
        with trio.fail_after(1000):
            await channel.wait_broken()


@in_virtual_time
async def test_a_guest_that_never_answers_the_first_question_is_left() -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        channel = QgaChannel(ours)
        await theirs.send_all(b'{"return": 7}\n' * 1000)
        with trio.fail_after(1000), pytest.raises(AgentProtocolError, match="keeps sending"):
            await channel.open(nursery)
        await channel.aclose()


@pytest.mark.parametrize("mark", [b"\n", b"\xff"])
@in_virtual_time
async def test_between_a_few_of_its_lines_everybody_has_a_turn(mark: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []

    class Fed(Decoder):
        def feed(self, data: bytes) -> list[Message]:
            fed.append(data.count(mark))
            return super().feed(data)

    monkeypatch.setattr("vmm.guest.qga.protocol.Decoder", Fed)
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        channel = QgaChannel(ours)
        await theirs.send_all(mark * 1_000_000)
        with pytest.raises(AgentProtocolError):
            await channel.open(nursery)
        await channel.aclose()
    assert sum(fed) <= budget.SLICE


@in_virtual_time
async def test_the_longest_answer_is_not_held_up() -> None:
    async with trio.open_nursery() as nursery, synced(nursery) as (channel, theirs):
        began = trio.current_time()
        answer = {"return": {"buf-b64": "A" * (MAX_LINE - 100)}, "id": 2}
        await theirs.send_all(json.dumps(answer).encode() + b"\n")
        assert await channel.execute("guest-file-read", request="get") == answer["return"]
        assert trio.current_time() == began
