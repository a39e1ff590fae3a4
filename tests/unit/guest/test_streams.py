"""A stream of the agent's channel, at the host's end: what a guest may send, and when."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio
from trio.testing import memory_stream_pair

from tests.agents import Narrow
from tests.unit.guest.test_session import hello_reply, read_hello
from vmm.errors import AgentProtocolError, AgentRequestError, AgentUnreachableError
from vmm.guest.agent import values, wire
from vmm.guest.connection import Connection
from vmm.guest.streams import MAX_RECORD, RemoteRecords, RemoteStream

ANSWER = {"window": wire.WINDOW}
WINDOW = Narrow.window


@attrs.define(eq=False)
class Guest:
    """The other end, as a test plays it."""

    stream: trio.StapledStream[Any, Any]
    decoder: wire.Decoder = attrs.field(factory=lambda: wire.Decoder(max_message=wire.MAX_REQUEST))

    async def hear(self) -> list[wire.Frame]:
        """What the host has sent since; at least one frame."""
        frames: list[wire.Frame] = []
        while not frames:
            frames = self.decoder.feed(bytes(await self.stream.receive_some()))
        return frames

    async def say(self, kind: int, payload: bytes = b"", *, stream: int = 1) -> None:
        await self.stream.send_all(wire.encode(kind, stream, payload))

    async def answer(self, **fields: object) -> None:
        await self.say(wire.REPLY, values.pack(ANSWER | fields))

    async def data(self, data: bytes) -> None:
        await self.stream.send_all(wire.encode_data(wire.STDOUT, 1, data))

    async def end(self) -> None:
        await self.say(wire.EOF + wire.STDOUT)


@contextlib.asynccontextmanager
async def talking() -> AsyncIterator[tuple[Connection, Guest]]:
    ours, theirs = memory_stream_pair()
    guest = Guest(theirs)
    guest.decoder.feed(wire.MARKER)
    async with trio.open_nursery() as nursery:
        connection = Connection(ours)

        async def greet() -> None:
            await theirs.send_all(hello_reply(await read_hello(theirs)))

        nursery.start_soon(greet)
        await connection.open(nursery)
        yield connection, guest
        await connection.aclose()


@contextlib.asynccontextmanager
async def opened(
    *, takes_input: bool = False, room: Narrow | None = None
) -> AsyncIterator[tuple[Connection, Guest, RemoteStream]]:
    async with talking() as (connection, guest):
        how = {} if room is None else {"room": room}
        stream = RemoteStream(connection, "op", {"field": 1}, takes_input=takes_input, **how)
        [(kind, _, payload)] = await guest.hear()
        window = WINDOW if room is not None else wire.WINDOW
        assert (kind, values.unpack(payload)) == (wire.REQUEST, {"op": "op", "field": 1, "window": window})
        await guest.answer(window=window)
        await stream._answered()
        yield connection, guest, stream
        await stream.aclose()


async def test_data_comes_in_order_up_to_the_end() -> None:
    async with opened() as (_, guest, stream):
        await guest.data(b"one")
        await guest.data(b"two")
        await guest.end()
        assert await stream.receive() + await stream.receive() == b"onetwo"
        assert await stream.receive() == b""


async def test_credit_is_given_for_what_is_received_and_not_before() -> None:
    async with opened(room=Narrow()) as (_, guest, stream):
        await guest.data(bytes(WINDOW))
        await trio.testing.wait_all_tasks_blocked()
        assert len(await stream.receive()) == WINDOW
        assert await guest.hear() == [(wire.CREDIT + wire.STDOUT, 1, wire.COUNT.pack(WINDOW))]


async def test_more_than_the_window_breaks_the_channel() -> None:
    async with opened(room=Narrow()) as (connection, guest, stream):
        await guest.data(bytes(WINDOW + 1))
        assert "room" in str(await connection.wait_broken())
        while await stream.receive() and stream._unread:
            pass
        with pytest.raises(AgentProtocolError):
            await stream.receive()


async def test_input_waits_for_credit() -> None:
    async with opened(takes_input=True, room=Narrow()) as (_, guest, stream), trio.open_nursery() as nursery:
        sent = trio.Event()

        async def send() -> None:
            await stream.send(bytes(WINDOW + 5))
            sent.set()

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert sum(len(payload) for _, _, payload in await guest.hear()) == WINDOW
        assert not sent.is_set()
        await guest.say(wire.CREDIT + wire.STDIN, wire.COUNT.pack(100))
        await sent.wait()
        assert await guest.hear() == [(wire.DATA, 1, bytes(5))]


async def test_each_direction_ends_by_itself() -> None:
    async with opened(takes_input=True) as (_, guest, stream):
        await guest.end()
        assert await stream.receive() == b""
        await stream.send(b"still")
        await stream.send_eof()
        await stream.send_eof()
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await guest.hear() == [(wire.DATA, 1, b"still"), (wire.EOF, 1, b"")], "and no cancellation"


async def test_what_is_over_is_not_cancelled() -> None:
    async with opened() as (connection, guest, stream):
        await guest.end()
        assert await stream.receive() == b""
        await stream.aclose()
        connection.send(wire.CREDIT, 7)
        assert await guest.hear() == [(wire.CREDIT, 7, b"")]


async def test_closing_early_ends_it_in_the_guest_even_when_cancelled() -> None:
    async with opened() as (_, guest, stream):
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        assert await guest.hear() == [(wire.CANCEL, 1, b"")]
        assert await stream.receive() == b""
        with pytest.raises(trio.ClosedResourceError):
            await stream.send(b"x")


async def test_a_cancelled_opening_ends_the_request_in_the_guest() -> None:
    async with talking() as (connection, guest):
        with trio.move_on_after(0.01):
            await RemoteStream.open(connection, "op", {})
        kinds = []
        while wire.CANCEL not in kinds:
            kinds += [kind for kind, _, _ in await guest.hear()]
        assert kinds == [wire.REQUEST, wire.CANCEL]


async def test_an_error_comes_after_the_data_before_it() -> None:
    async with opened() as (_, guest, stream):
        await guest.data(b"some")
        await guest.say(wire.ERROR, values.pack({"code": "EIO", "message": "no more", "part": ""}))
        await trio.testing.wait_all_tasks_blocked()
        assert await stream.receive() == b"some"
        for _ in range(2):
            with pytest.raises(AgentRequestError, match="EIO: no more"):
                await stream.receive()


async def test_a_refusal_is_the_error_of_opening() -> None:
    async with talking() as (connection, guest), trio.open_nursery() as nursery:

        async def refuse() -> None:
            await guest.hear()
            await guest.say(wire.ERROR, values.pack({"code": "ENOENT", "message": "none", "part": "path"}))

        nursery.start_soon(refuse)
        with pytest.raises(AgentRequestError) as refusal:
            await RemoteStream.open(connection, "op", {})
        assert (refusal.value.code, refusal.value.part) == ("ENOENT", "path")


async def test_what_cannot_be_sent_is_a_bad_request() -> None:
    async with talking() as (connection, _):
        with pytest.raises(AgentRequestError) as refusal:
            await RemoteStream.open(connection, "op", {"number": 2**64})
        assert refusal.value.code == "BAD_REQUEST"


async def test_the_end_of_the_channel_wakes_who_waits() -> None:
    async with opened() as (_, guest, stream), trio.open_nursery() as nursery:
        nursery.start_soon(guest.stream.aclose)
        with pytest.raises(AgentUnreachableError):
            await stream.receive()


@pytest.mark.parametrize(
    "frames",
    [
        [(wire.REPLY, values.pack(ANSWER))],
        [(wire.EOF + wire.STDOUT, b""), (wire.DATA + wire.STDOUT, b"late")],
        [(wire.EOF + wire.STDOUT, b""), (wire.EOF + wire.STDOUT, b"")],
        [(wire.DATA + wire.STDERR, b"x")],
        [(wire.EXITED, values.pack({"status": 0}))],
        [(wire.CREDIT + wire.STDIN, wire.COUNT.pack(1))],
    ],
    ids=["a second answer", "data after the end", "two ends", "data of no channel", "an exit", "credit for nothing"],
)
async def test_what_a_guest_may_not_say_breaks_the_channel(frames: list[tuple[int, bytes]]) -> None:
    async with opened(takes_input=True) as (connection, guest, _):
        for kind, payload in frames:
            await guest.say(kind, payload)
        await connection.wait_broken()


@pytest.mark.parametrize("window", [None, 0, wire.WINDOW // 2, True])
async def test_another_window_than_the_one_requested_breaks_the_channel(window: object) -> None:
    async with talking() as (connection, guest), trio.open_nursery() as nursery:

        async def answer() -> None:
            await guest.hear()
            await guest.say(wire.REPLY, values.pack({"window": window}))

        nursery.start_soon(answer)
        with pytest.raises(AgentProtocolError, match="window"):
            await RemoteStream.open(connection, "op", {})


async def test_data_before_the_answer_breaks_the_channel() -> None:
    async with talking() as (connection, guest), trio.open_nursery() as nursery:

        async def rush() -> None:
            await guest.hear()
            await guest.data(b"x")

        nursery.start_soon(rush)
        with pytest.raises(AgentProtocolError, match="before its answer"):
            await RemoteStream.open(connection, "op", {})


# -- records -------------------------------------------------------------------------------------------------------


def record(value: object) -> bytes:
    packed = values.pack(value)
    return wire.COUNT.pack(len(packed)) + packed


def numbered(fields: dict[str, Any]) -> int:
    if type(fields.get("n")) is not int:
        raise AgentProtocolError("a record without its number")
    return int(fields["n"])


async def test_records_come_whole_however_they_are_cut() -> None:
    data = b"".join(record({"n": number}) for number in range(20))
    async with opened() as (connection, guest, stream):
        records = RemoteRecords(connection, stream, numbered)
        received: list[int] = []
        for start in range(0, len(data), 7):
            await guest.data(data[start : start + 7])
            await trio.testing.wait_all_tasks_blocked()
        await guest.end()
        while some := await records.receive():
            received += some
        assert received == list(range(20))


@pytest.mark.parametrize(
    "data",
    [
        wire.COUNT.pack(MAX_RECORD + 1),
        record({"n": 1})[:-1],
        wire.COUNT.pack(1) + b"?",
        record([1]),
        record({"n": "one"}),
        wire.COUNT.pack(0),
    ],
    ids=["too long", "cut short", "no value", "a list", "refused by its reader", "empty"],
)
async def test_a_record_that_cannot_be_breaks_the_channel(data: bytes) -> None:
    async with opened() as (connection, guest, stream):
        records = RemoteRecords(connection, stream, numbered)
        await guest.data(data)
        await guest.end()
        with pytest.raises(AgentProtocolError):
            await records.receive()
        with pytest.raises(AgentProtocolError):
            connection.check()
