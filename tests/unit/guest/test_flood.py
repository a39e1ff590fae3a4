"""A guest that talks as fast as it can. What it says is heard at a pace, and what is of no use ends its channel."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.unit.guest.test_session import hello_reply, read_hello
from vmm.errors import AgentProtocolError
from vmm.guest import budget
from vmm.guest.agent import values, wire
from vmm.guest.client import AgentClient
from vmm.guest.connection import Connection
from vmm.words.commands import CommandExit, CommandSpec

PING = values.pack({"version": wire.VERSION, "kernel": "6.1"})


class Listener:
    """One stream's frames, by the step of the loop in which they came: between two, everybody else has a turn."""

    def __init__(self) -> None:
        self.steps = [0]

    def on_frame(self, kind: int, payload: bytes) -> None:
        self.steps[-1] += 1

    def on_failure(self) -> None:
        pass


class Steps(trio.abc.Instrument):
    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._listener.steps[-1]:
            self._listener.steps.append(0)


async def connected(nursery: trio.Nursery) -> tuple[Connection, trio.abc.Stream]:
    ours, theirs = memory_stream_pair()
    connection = Connection(ours)

    async def answer() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))

    nursery.start_soon(answer)
    await connection.open(nursery)
    return connection, theirs


async def test_between_a_few_of_its_frames_everybody_has_a_turn(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    connection, theirs = await connected(nursery)
    listener = Listener()
    stream = connection.open_stream(listener)
    trio.lowlevel.add_instrument(steps := Steps(listener))
    began = trio.current_time()
    await theirs.send_all(wire.encode_data(wire.STDOUT, stream, b"x") * 50_000)
    await trio.sleep(60)
    trio.lowlevel.remove_instrument(steps)
    assert sum(listener.steps) == 50_000
    assert max(listener.steps) <= budget.FRAMES_AT_ONCE + budget.SLICE // wire.HEADER.size
    connection.check()
    await connection.aclose()
    assert trio.current_time() == began + 60


async def test_in_the_long_run_it_is_heard_at_the_pace_that_all_are(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    connection, theirs = await connected(nursery)
    listener = Listener()
    stream = connection.open_stream(listener)
    await theirs.send_all(wire.encode_data(wire.STDOUT, stream, b"x") * 50_000)
    await trio.sleep(5)
    heard = 5 * budget.FRAMES_PER_S + budget.FRAMES_AT_ONCE
    assert abs(sum(listener.steps) - heard) < 0.02 * heard
    await connection.aclose()


async def test_output_in_large_pieces_is_not_held_up(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    connection, theirs = await connected(nursery)
    listener = Listener()
    stream = connection.open_stream(listener)
    began = trio.current_time()
    await theirs.send_all(wire.encode_data(wire.STDOUT, stream, bytes(32 * 1024)) * 1000)
    await trio.testing.wait_all_tasks_blocked()
    assert sum(listener.steps) == 1000
    assert trio.current_time() == began
    await connection.aclose()


OLD = 1
"""The stream of a ping that was answered; 2 is that of a command that runs."""


@pytest.mark.parametrize(
    "frame",
    [
        wire.encode_data(wire.STDOUT, OLD, b""),
        wire.encode_data(wire.STDOUT, OLD, b"late"),
        wire.encode(wire.REPLY, OLD, PING),
        wire.encode(wire.EXITED, OLD, values.pack({"status": 0})),
        wire.encode(wire.ERROR, OLD, b""),
        wire.encode(wire.CREDIT, OLD, wire.COUNT.pack(1)),
        wire.encode(wire.DATA, OLD, b"to where data goes"),
        wire.encode(0x3F, 0, b"from the future"),
        wire.encode(wire.REPLY, 0, b""),
        wire.encode_data(wire.STDERR, 2, b""),
        wire.encode(wire.CREDIT + wire.STDIN, 2, wire.COUNT.pack(0)),
        wire.encode(wire.REPLY | wire.MORE, 2, b""),
        wire.encode(wire.REPLY | wire.MORE, 2, b"x"),
        wire.MARKER + bytes(1000),
    ],
    ids=[
        "nothing for an old stream",
        "output for an old stream",
        "a reply again",
        "an exit of what never ran",
        "an error that is none",
        "credit for an old stream",
        "input for an old stream",
        "of no kind, for no stream",
        "a reply to nobody",
        "no output",
        "no credit",
        "a message of nothing that does not end",
        "a message of dribbles that does not end",
        "a new session again and again",
    ],
)
async def test_a_guest_that_says_what_nobody_waits_for_is_left(
    nursery: trio.Nursery, autojump_clock: MockClock, frame: bytes
) -> None:
    ours, theirs = memory_stream_pair()

    async def flood() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 1, PING))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 2, values.pack({"pid": 1})))
        await theirs.send_all(frame * 2000)

    nursery.start_soon(flood)
    client = await AgentClient.connect(ours, nursery=nursery)
    await client.ping()
    command = await client.start_command(CommandSpec(argv=["cat"]))
    with trio.fail_after(60):
        told = await client.wait_broken()
    with pytest.raises(AgentProtocolError):
        await client.ping()
    assert str(told)
    await command.aclose()
    await client.aclose()


async def test_a_guest_that_says_hello_again_and_again_is_left(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_stream_pair()

    async def flood() -> None:
        hello = hello_reply(await read_hello(theirs))
        await theirs.send_all(hello)
        await theirs.receive_some()
        await theirs.send_all(hello.removeprefix(wire.MARKER) * 1000)

    nursery.start_soon(flood)
    client = await AgentClient.connect(ours, nursery=nursery)
    with trio.fail_after(60), pytest.raises(AgentProtocolError, match="keeps sending"):
        await client.ping()
    await client.aclose()


@pytest.mark.parametrize(
    "frame",
    [
        wire.MARKER + wire.encode(wire.ANNOUNCE, 0, wire.HELLO_BODY.pack(b"", wire.VERSION)),
        wire.encode(wire.HELLO_REPLY, 0, wire.HELLO_BODY.pack(b"another's", wire.VERSION)),
        wire.encode(wire.EXITED, 7, values.pack({"status": 0})),
    ],
    ids=["announces itself", "answers another's hello", "tells of another's commands"],
)
async def test_a_guest_that_never_comes_to_our_hello_is_left(
    nursery: trio.Nursery, autojump_clock: MockClock, frame: bytes
) -> None:
    ours, theirs = memory_stream_pair()

    async def hear() -> None:
        while await theirs.receive_some():
            pass

    async def flood() -> None:
        await theirs.send_all(wire.MARKER)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await theirs.send_all(frame)
                await trio.sleep(0.001)

    nursery.start_soon(hear)
    nursery.start_soon(flood)
    with trio.fail_after(60), pytest.raises(AgentProtocolError, match="keeps sending"):
        await AgentClient.connect(ours, nursery=nursery)


async def test_what_was_on_its_way_when_a_command_was_cancelled_is_no_fault(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """All that the agent may have had credit for, in pieces as small as can be."""
    ours, theirs = memory_stream_pair()
    dribble = wire.encode_data(wire.STDOUT, 1, b"x") * wire.WINDOW
    cancelled = trio.Event()

    async def answer() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 1, values.pack({"pid": 1})))
        await cancelled.wait()
        await theirs.send_all(dribble + wire.encode_data(wire.STDERR, 1, bytes(wire.WINDOW)))
        await theirs.send_all(wire.encode(wire.CREDIT, 1, wire.COUNT.pack(wire.WINDOW // 4)) * 4)
        await theirs.send_all(wire.encode(wire.EXITED, 1, values.pack({"status": 0})))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 2, PING))

    nursery.start_soon(answer)
    client = await AgentClient.connect(ours, nursery=nursery)
    command = await client.start_command(CommandSpec(argv=["yes"]))
    await command.aclose()
    cancelled.set()
    assert (await client.ping()).kernel_release == "6.1"
    await client.aclose()


async def test_one_that_floods_is_told_of_the_same_whoever_waits(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A command that has ended before is not touched by it."""
    ours, theirs = memory_stream_pair()

    async def flood() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 1, values.pack({"pid": 1})))
        await theirs.send_all(wire.encode(wire.EXITED, 1, values.pack({"status": 3})) * 1000)

    nursery.start_soon(flood)
    client = await AgentClient.connect(ours, nursery=nursery)
    command = await client.start_command(CommandSpec(argv=["true"]))
    assert "keeps sending" in str(await client.wait_broken())
    assert [event async for event in command.events()] == [CommandExit(status=3)]
    await command.aclose()
    await client.aclose()
