"""A guest that lies. Whatever it says, and whenever: a rule of the protocol ignores it, or it ends the channel."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from tests.examples import examples
from tests.unit.guest.test_session import hello_reply, read_hello
from tests.virtual_time import in_virtual_time
from vmm.errors import AgentError, AgentProtocolError, AgentRequestError
from vmm.guest.agent import values, wire
from vmm.guest.client import AgentClient
from vmm.guest.command import RemoteCommand
from vmm.words.commands import CommandExit, CommandSpec
from vmm.words.preparation import GuestInfo, Preparation

PING, RUNNING, OVER, PUT, GET = 1, 2, 3, 4, 5
"""Streams of the host whom it lies to: a ping that waits, a command that runs, one that has ended, and two files under
way. There are no others."""

LIMIT: Final = 1000
"""Bytes of the file that are wanted."""

VERSION: Final = {"version": wire.VERSION, "kernel": "6.1"}


@attrs.define(eq=False)
class Host:
    """The host's side of the conversation, with something of every kind under way."""

    client: AgentClient
    running: RemoteCommand
    over: RemoteCommand
    outcomes: dict[str, object] = attrs.field(factory=dict)
    broken: AgentProtocolError | None = None

    async def ask(self, name: str, operation: Callable[[], Awaitable[object]]) -> None:
        try:
            self.outcomes[name] = await operation()
        except AgentError as error:
            self.outcomes[name] = error

    async def wait_broken(self) -> None:
        self.broken = await self.client.wait_broken()

    async def events(self) -> object:
        seen = [event async for event in self.running.events()]
        assert isinstance(seen[-1], CommandExit)
        return seen[-1]


@contextlib.asynccontextmanager
async def conversation() -> AsyncIterator[tuple[Host, trio.testing.MemorySendStream]]:
    """At the end the guest hangs up, and nobody may wait for it any more."""
    ours, theirs = memory_stream_pair()

    async def hear(count: int) -> None:
        decoder, heard = wire.Decoder(max_message=wire.MAX_REQUEST), 0
        decoder.feed(wire.MARKER)
        while heard < count:
            heard += sum(kind == wire.REQUEST for kind, _, _ in decoder.feed(bytes(await theirs.receive_some())))

    async def be_honest() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await hear(1)
        for stream in (RUNNING, OVER):
            await hear(1)
            await theirs.send_all(wire.encode(wire.REPLY, stream, values.pack({"pid": 7})))
        await theirs.send_all(wire.encode(wire.EXITED, OVER, values.pack({"status": 0})))
        await hear(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_honest)
        client = await AgentClient.connect(ours, nursery=nursery)
        asking = await nursery.start(open_nursery)
        first: dict[str, object] = {}

        async def ping() -> None:
            with contextlib.suppress(AgentError):
                first["ping"] = await client.ping()

        asking.start_soon(ping)
        await trio.testing.wait_all_tasks_blocked()
        running = await client.start_command(CommandSpec(argv=["cat"]))
        over = await client.start_command(CommandSpec(argv=["true"]))
        host = Host(client, running, over, outcomes=first)
        for name, operation in (
            ("put", lambda: client.put_file("/file", bytes(2 * wire.WINDOW))),
            ("get", lambda: client.get_file("/file", limit=LIMIT)),
            ("events", host.events),
            ("stdin", lambda: running.send_stdin(bytes(2 * wire.WINDOW))),
        ):
            asking.start_soon(host.ask, name, operation)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(host.wait_broken)
        await trio.testing.wait_all_tasks_blocked()
        yield host, theirs.send_stream
        await theirs.send_stream.aclose()
        await trio.sleep(1e4)
        waiting = {"put", "get", "events", "stdin"} - host.outcomes.keys()
        assert not waiting, "nobody waits for a guest that is gone"
        await running.aclose()
        await over.aclose()
        await client.aclose()
        await theirs.aclose()
        nursery.cancel_scope.cancel()


async def open_nursery(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


def count(number: int) -> bytes:
    return wire.COUNT.pack(number)


def reply(stream: int, value: object) -> bytes:
    return wire.encode(wire.REPLY, stream, values.pack(value))


def exited(stream: int, **how: object) -> bytes:
    return wire.encode(wire.EXITED, stream, values.pack(how))


def nested(depth: int) -> bytes:
    return b"l\1\0\0\0" * depth + b"n"


def header(kind: int, stream: int, length: int) -> bytes:
    return wire.HEADER.pack(kind, stream, length)


LIES = {
    "a reply that is no value": wire.encode(wire.REPLY, PING, b"?"),
    "a reply that is empty": wire.encode(wire.REPLY, PING, b""),
    "a reply that is cut short": wire.encode(wire.REPLY, PING, values.pack(VERSION)[:-1]),
    "a reply with something behind it": wire.encode(wire.REPLY, PING, values.pack(VERSION) + b"n"),
    "a reply that is a list": reply(PING, []),
    "a reply whose keys are no text": wire.encode(wire.REPLY, PING, b"d\1\0\0\0nn"),
    "a reply without its fields": reply(PING, {}),
    "a reply with fields of other types": reply(PING, {"version": "2", "kernel": 6}),
    "a time that is none": reply(PING, VERSION | {"wall_clock_ns": "noon", "clock_moved_ns": 0}),
    "a time before all times": reply(PING, VERSION | {"wall_clock_ns": -1, "clock_moved_ns": 0}),
    "a time without how it came to be": reply(PING, VERSION | {"wall_clock_ns": 1}),
    "a reply as deep as can be": wire.encode(wire.REPLY, PING, nested(13_000 // 5)),
    "a reply with a list of four thousand million": wire.encode(wire.REPLY, PING, b"l" + count(2**32 - 1)),
    "a reply of more than any has": wire.encode(wire.REPLY, PING, b"l" + count(60_000) + b"n" * 60_000),
    "a reply with a field that is longer than any": reply(PING, VERSION | {"novel": "x" * wire.MAX_REPLY}),
    "a reply of many pieces that is longer still": wire.encode(wire.REPLY, PING, bytes(2**20)),
    "a reply to what was never asked": reply(6, VERSION),
    "a reply to what will never be asked": reply(2**32 - 1, VERSION),
    "output of a ping": wire.encode_data(wire.STDOUT, PING, b"pong"),
    "an exit of a ping": exited(PING, status=0),
    "credit for a ping": wire.encode(wire.CREDIT, PING, count(1)),
    "a second reply": reply(RUNNING, {"pid": 8}),
    "an exit with a status and a signal": exited(RUNNING, status=0, signal=9),
    "an exit with neither": exited(RUNNING),
    "an exit with a status that none has": exited(RUNNING, status=-1),
    "an exit that is a list": wire.encode(wire.EXITED, RUNNING, values.pack([0])),
    "an exit that is nothing": wire.encode(wire.EXITED, RUNNING),
    "an error that is a number": wire.encode(wire.ERROR, RUNNING, values.pack(5)),
    "an error without a code": wire.encode(wire.ERROR, RUNNING, values.pack({"message": "no"})),
    "an error on the whole session": wire.encode(wire.ERROR, 0, values.pack({"code": "EIO"})),
    "output on stdin": wire.encode_data(wire.STDIN, RUNNING, b"x"),
    "output of a third kind": wire.encode(wire.DATA + 3, RUNNING, b"x"),
    "an end of output": wire.encode(wire.EOF + wire.STDOUT, RUNNING),
    "an end of input": wire.encode(wire.EOF, RUNNING),
    "more credit than was used": wire.encode(wire.CREDIT, RUNNING, count(wire.WINDOW + 1)),
    "as much credit as can be said": wire.encode(wire.CREDIT, RUNNING, count(2**32 - 1)),
    "credit of three bytes": wire.encode(wire.CREDIT, RUNNING, b"\1\0\0"),
    "credit of eight": wire.encode(wire.CREDIT, RUNNING, bytes(8)),
    "credit for an output": wire.encode(wire.CREDIT + wire.STDOUT, RUNNING, count(1)),
    "what the host says: a request": wire.encode(wire.REQUEST, RUNNING, values.pack({"op": "ping"})),
    "what the host says: a signal": wire.encode(wire.SIGNAL, RUNNING, values.pack(9)),
    "what the host says: a cancellation": wire.encode(wire.CANCEL, RUNNING),
    "a kind that there is not": wire.encode(0x2F, RUNNING, b"x"),
    "what a decoder says: a new session": wire.encode(wire.BROKEN, RUNNING, b"\xff"),
    "a frame longer than any": header(wire.DATA + wire.STDOUT, RUNNING, wire.MAX_PAYLOAD + 1),
    "a frame of four thousand million bytes": header(wire.DATA + wire.STDOUT, RUNNING, 2**32 - 1),
    "bytes that are no frame": b"\xff" * 100,
    "a reply to put before all of it was sent": reply(PUT, {}),
    "credit for put, more than it used": wire.encode(wire.CREDIT, PUT, count(wire.WINDOW + 1)),
    "output of put": wire.encode_data(wire.STDOUT, PUT, b"x"),
    "a file without its size": wire.encode_data(wire.STDOUT, GET, b"x") + wire.encode(wire.EOF + wire.STDOUT, GET),
    "a file with less than nothing": reply(GET, {"size": -1}) + wire.encode(wire.EOF + wire.STDOUT, GET),
    "a file on stderr": reply(GET, {"size": 1}) + wire.encode_data(wire.STDERR, GET, b"x"),
    "a file that is announced twice": reply(GET, {"size": 1}) * 2,
    "another's hello": hello_reply(bytes(16)),
    "hello of no length": wire.encode(wire.HELLO_REPLY, 0, b""),
    "hello again and again": wire.encode(wire.HELLO_REPLY, 0, bytes(18)) * 100,
    "output of what has ended": wire.encode_data(wire.STDOUT, OVER, b"late"),
    "exits of what has ended": exited(OVER, status=1) * 100,
    "a new session again and again": (wire.MARKER + wire.encode_data(wire.STDOUT, RUNNING, bytes(4096))) * 65,
    "an announcement in a session": wire.encode(wire.ANNOUNCE, 0, wire.HELLO_BODY.pack(b"", wire.VERSION)),
}


def is_sound(host: Host) -> None:
    """Nothing else came of it than what the contract says."""
    contract: dict[str, type] = {"ping": GuestInfo, "put": type(None), "get": bytes, "events": CommandExit}
    for name, kind in contract.items():
        outcome = host.outcomes.get(name)
        assert outcome is None or isinstance(outcome, (kind, AgentError)), (name, outcome)
    got = host.outcomes.get("get")
    assert not isinstance(got, bytes) or len(got) <= LIMIT
    if host.broken is not None:
        cause = host.broken.__cause__
        assert cause is None or type(cause) in (ValueError, UnicodeDecodeError), f"it stumbled: {cause!r}"


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
@in_virtual_time
async def test_a_lie_ends_the_channel_of_who_tells_it(lie: bytes) -> None:
    async with conversation() as (host, guest):
        await guest.send_all(lie)
        await trio.sleep(1000)
        if lie is LIES["an announcement in a session"]:
            assert host.broken is None, "its guest was reset, which is no breach"
        else:
            assert host.broken is not None
        with pytest.raises(AgentError):
            await host.client.ping()
        assert [event async for event in host.over.events()] == [CommandExit(status=0)], "this had been said before"
    is_sound(host)


FRUITLESS = {
    "no output": wire.encode_data(wire.STDOUT, RUNNING, b"") * 20,
    "no credit": wire.encode(wire.CREDIT, RUNNING, count(0)) * 20,
    "an error of what has ended": wire.encode(wire.ERROR, OVER, b"?") * 20,
    "a kind that there is not, for nobody": wire.encode(0x2F, 0, b"x") * 20,
    "a marker": wire.MARKER,
}


@pytest.mark.parametrize("lie", FRUITLESS.values(), ids=FRUITLESS.keys())
@in_virtual_time
async def test_a_little_of_what_says_nothing_is_ignored(lie: bytes) -> None:
    async with conversation() as (host, guest):
        await guest.send_all(lie)
        await guest.send_all(wire.encode_data(wire.STDOUT, RUNNING, b"x") + exited(RUNNING, status=3))
        await guest.send_all(reply(PING, VERSION))
        await trio.sleep(1000)
        assert host.broken is None
        assert host.outcomes["ping"] == GuestInfo(agent_version=wire.VERSION, kernel_release="6.1")
        assert host.outcomes["events"] == CommandExit(status=3)


# -- whatever it says ----------------------------------------------------------------------------------------------

streams = st.integers(0, 7) | st.just(2**32 - 1)
kinds = st.sampled_from(
    [
        *(wire.HELLO, wire.REQUEST, wire.CANCEL, wire.SIGNAL, wire.ANNOUNCE, wire.HELLO_REPLY),
        *(wire.REPLY, wire.ERROR, wire.EXITED, wire.SYNCED, wire.BROKEN),
        *(base + channel for base in (wire.DATA, wire.EOF, wire.CREDIT) for channel in range(4)),
    ]
) | st.integers(0, 0x7F)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=20)
)
names = st.sampled_from(
    ["pid", "status", "signal", "timed_out", "code", "message", "part", "size", "version", "kernel", "hostname"]
) | st.text("abc", max_size=3)
texts = st.sampled_from(["ENOENT", "x" * 5000, "\udce9"])
values_said = st.recursive(leaves | texts, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner))
payloads = st.one_of(
    st.binary(max_size=40),
    values_said.map(values.pack),
    st.dictionaries(names, leaves | texts).map(values.pack),
    st.integers(0, 2**32 - 1).map(count),
    st.integers(0, wire.MAX_PAYLOAD).map(bytes),
)
sayings = st.one_of(
    st.builds(wire.encode, kinds, streams, payloads),
    st.builds(lambda kind, stream, payload: wire.encode(kind | wire.MORE, stream, payload), kinds, streams, payloads),
    st.builds(header, st.integers(0, 255), streams, st.integers(0, 2**32 - 1)),
    st.builds(lambda frame, times: frame * times, st.builds(wire.encode, kinds, streams, payloads), st.integers(2, 99)),
    st.builds(reply, streams, st.dictionaries(names, st.integers(0, 300))),
    st.sampled_from(list(LIES.values())),
    st.binary(max_size=60),
    st.just(wire.MARKER),
)


@given(said=st.lists(sayings, max_size=12), cut=st.integers(1, 5000))
@example(said=[wire.encode(wire.REPLY, PING, b"d\1\0\0\0" + values.pack("version") + b"i")], cut=1)
@examples(150)
@in_virtual_time
async def test_nobody_waits_for_a_liar_or_meets_another_error_than_its_own(said: Sequence[bytes], cut: int) -> None:
    async with conversation() as (host, guest):
        data = b"".join(said)
        for start in range(0, min(len(data), 20 * cut), cut):
            await guest.send_all(data[start : start + cut])
            await trio.testing.wait_all_tasks_blocked()
        await guest.send_all(data[20 * cut :])
        await trio.sleep(1e4)
        held = sum(buffer.held for buffer in host.running._buffers)
        assert held <= 2 * wire.WINDOW
    is_sound(host)


@given(fields=st.dictionaries(names, leaves | texts))
@in_virtual_time
async def test_a_preparation_that_is_answered_with_anything_is_a_report_or_an_error(fields: dict[str, Any]) -> None:
    ours, theirs = memory_stream_pair()

    async def answer() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 1, values.pack(fields)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        client = await AgentClient.connect(ours, nursery=nursery)
        with contextlib.suppress(AgentProtocolError):
            report = await client.prepare(Preparation(hostname="guest", random_bytes=16))
            assert type(report.wall_clock_ns) is int
        await client.aclose()


async def test_a_refusal_of_the_longest_kind_is_heard(nursery: trio.Nursery) -> None:
    """All that the agent says of an error, in characters of four bytes."""
    ours, theirs = memory_stream_pair()

    async def answer() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        longest = {"code": "ENOENT", "message": "\U0001f600" * 4096, "part": "working_directory"}
        await theirs.send_all(wire.encode(wire.ERROR, 1, values.pack(longest)))

    nursery.start_soon(answer)
    client = await AgentClient.connect(ours, nursery=nursery)
    with pytest.raises(AgentRequestError):
        await client.ping()
    await client.aclose()
