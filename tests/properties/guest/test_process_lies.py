"""A guest that lies about processes that outlive their caller."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from tests.examples import examples
from tests.unit.guest.test_session import hello_reply, read_hello
from tests.virtual_time import in_virtual_time
from vmm.errors import AgentError, AgentProtocolError, AgentRequestError
from vmm.guest.agent import values, wire
from vmm.guest.client import AgentClient
from vmm.guest.processes import MAX_PROCESSES, FollowedProcess, info_of
from vmm.words.commands import CommandExit, CommandSpec
from vmm.words.guest_processes import KEPT_BYTES, Positions, ProcessInfo, ProcessRef

HONEST: Final[dict[str, Any]] = {
    "process_id": 7,
    "pid": 100,
    "tag": "t",
    "argv": ["sleep", "1000"],
    "directory": "/",
    "user": "",
    "terminal": False,
    "attached": False,
    "started_ns": 10**18,
    "exit": None,
    "stdout_end": 5000,
    "stdout_kept_from": 1000,
    "stderr_end": 0,
    "stderr_kept_from": 0,
}

WINDOW: Final = wire.WINDOW
STREAM: Final = 1


def reply(value: object, stream: int = STREAM) -> bytes:
    return wire.encode(wire.REPLY, stream, values.pack(value))


def record(value: object) -> bytes:
    packed = values.pack(value)
    return wire.COUNT.pack(len(packed)) + packed


def output(data: bytes, channel: int = wire.STDOUT) -> bytes:
    return wire.encode_data(channel, STREAM, data)


def skipped(count: int, channel: int = wire.STDOUT) -> bytes:
    return wire.encode(wire.SKIPPED + channel, STREAM, wire.LONG_COUNT.pack(count))


def exited(**how: object) -> bytes:
    return wire.encode(wire.EXITED, STREAM, values.pack(how))


ATTACHED: Final = reply({"window": WINDOW, "process": HONEST})
END: Final = wire.encode(wire.EOF + wire.STDOUT, STREAM)


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[tuple[AgentClient, Callable[[bytes], Awaitable[None]]]]:
    """A host, and what the guest says to its one request once that is there."""
    ours, theirs = memory_stream_pair()
    asked = trio.Event()

    async def hear() -> None:
        decoder = wire.Decoder(max_message=wire.MAX_REQUEST)
        decoder.feed(wire.MARKER)
        with contextlib.suppress(trio.ClosedResourceError):
            while data := bytes(await theirs.receive_some()):
                if any(kind == wire.REQUEST for kind, _, _ in decoder.feed(data)):
                    asked.set()

    async def say(data: bytes) -> None:
        await asked.wait()
        await theirs.send_all(data)

    async def greet() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet)
        client = await AgentClient.connect(ours, nursery=nursery)
        nursery.start_soon(hear)
        yield client, say
        await client.aclose()
        await theirs.aclose()
        nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Told:
    """What came of a request."""

    outcome: object = None
    broken: bool = False


async def told(request: Callable[[AgentClient], Awaitable[object]], said: bytes) -> Told:
    result = Told()
    async with connection() as (client, say), trio.open_nursery() as nursery:

        async def ask() -> None:
            try:
                result.outcome = await request(client)
            except AgentError as error:
                result.outcome = error

        async def watch() -> None:
            await client.wait_broken()
            result.broken = True

        nursery.start_soon(watch)
        nursery.start_soon(ask)
        await say(said)
        await trio.sleep(1000)
        await client.aclose()
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    return result


async def follow(client: AgentClient) -> object:
    attached = await client.processes.attach(ProcessRef(process_id=7), positions=Positions())
    try:
        return [event async for event in attached.events()][-1]
    finally:
        await attached.aclose()


async def hold(client: AgentClient) -> object:
    """Reads nothing."""
    attached = await client.processes.attach(ProcessRef(process_id=7), positions=Positions())
    try:
        raise await client.wait_broken()
    finally:
        await attached.aclose()


async def start(client: AgentClient) -> object:
    return await client.processes.start(CommandSpec(argv=["sleep", "1000"]), tag="t")


async def list_all(client: AgentClient) -> object:
    return await client.processes.list()


async def wait(client: AgentClient) -> object:
    return await client.processes.wait(ProcessRef(tag="t"))


async def send_input(client: AgentClient) -> object:
    await client.processes.send_input(ProcessRef(tag="t"), b"x")
    return True


LISTING: Final = reply({"window": WINDOW})

LIES = {
    "no process": (follow, reply({"window": WINDOW})),
    "a process that is a number": (follow, reply({"window": WINDOW, "process": 7})),
    "another window": (follow, reply({"window": WINDOW + 1, "process": HONEST})),
    "no window": (follow, reply({"process": HONEST})),
    "output before the answer": (follow, output(b"x")),
    "an exit before the answer": (follow, exited(status=0)),
    "two answers": (follow, ATTACHED * 2),
    "a gap of nothing": (follow, ATTACHED + skipped(0)),
    "two gaps in a row": (follow, ATTACHED + skipped(1) * 2),
    "a gap beyond all numbers": (follow, ATTACHED + skipped(2**63)),
    "a gap of three bytes": (follow, ATTACHED + wire.encode(wire.SKIPPED + wire.STDOUT, STREAM, b"123")),
    "a gap in stdin": (follow, ATTACHED + skipped(1, wire.STDIN)),
    "more than the window": (hold, ATTACHED + output(bytes(WINDOW)) + output(b"x")),
    "a gap that the window has no room for": (hold, ATTACHED + output(bytes(WINDOW - 1)) + skipped(1)),
    "an end of output": (follow, ATTACHED + END),
    "an exit with neither": (follow, ATTACHED + exited()),
    "credit for nothing": (follow, ATTACHED + wire.encode(wire.CREDIT, STREAM, wire.COUNT.pack(1))),
    "output for who waits only": (wait, ATTACHED + output(b"x")),
    "a gap for who waits only": (wait, ATTACHED + skipped(1)),
    "a start without a number": (start, reply({**HONEST, "window": WINDOW, "process_id": 0})),
    "a start with another's tag": (start, reply({**HONEST, "window": WINDOW, "tag": "u"})),
    "a start of somebody's own": (start, reply({**HONEST, "window": WINDOW, "attached": True})),
    "a list that is no list": (list_all, LISTING + output(record([1]))),
    "a process twice": (list_all, LISTING + output(record(HONEST) * 2)),
    "a list without an end of its last record": (list_all, LISTING + output(record(HONEST)[:-1]) + END),
    "a record beyond all measure": (list_all, LISTING + output(wire.COUNT.pack(2**32 - 1))),
    "more processes than any VM has": (
        list_all,
        LISTING + b"".join(output(record({**HONEST, "process_id": n + 1})) for n in range(MAX_PROCESSES + 1)) + END,
    ),
    "an answer to input that is a list": (send_input, wire.encode(wire.REPLY, STREAM, values.pack([]))),
    "output of input": (send_input, output(b"x")),
    **{
        f"{name} that is {value!r}": (follow, reply({"window": WINDOW, "process": {**HONEST, name: value}}))
        for name, value in {
            "process_id": -1,
            "pid": "100",
            "tag": 7,
            "argv": [7],
            "exit": {"status": 0, "signal": 9},
            "started_ns": None,
            "stdout_end": -1,
            "stdout_kept_from": 5001,
            "stderr_end": KEPT_BYTES + 1,
        }.items()
    },
    "arguments beyond all measure": (
        follow,
        reply({"window": WINDOW, "process": {**HONEST, "argv": ["x" * 3000]}}),
    ),
    "thousands of arguments": (follow, reply({"window": WINDOW, "process": {**HONEST, "argv": [""] * 3000}})),
}


@pytest.mark.parametrize(("request_", "said"), LIES.values(), ids=LIES.keys())
@in_virtual_time
async def test_a_lie_ends_the_channel_of_who_tells_it(
    request_: Callable[[AgentClient], Awaitable[object]], said: bytes
) -> None:
    result = await told(request_, said)
    assert result.broken
    assert isinstance(result.outcome, AgentProtocolError)


@in_virtual_time
async def test_the_truth_is_believed() -> None:
    said = ATTACHED + skipped(1000) + output(bytes(4000)) + exited(status=0)
    assert (await told(follow, said)).outcome == CommandExit(status=0)
    assert (await told(wait, ATTACHED + exited(signal=9))).outcome == CommandExit(signal=9)
    listed = await told(list_all, LISTING + output(record(HONEST)) + END)
    assert listed.outcome == (info_of(HONEST),)
    refused = await told(send_input, wire.encode(wire.ERROR, STREAM, values.pack({"code": "EPIPE", "message": "no"})))
    assert isinstance(refused.outcome, AgentRequestError)


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=20)
    | st.lists(st.text("ab", max_size=3), max_size=3)
    | st.dictionaries(st.sampled_from(["status", "signal"]), st.integers(-1, 300))
)


@given(changes=st.dictionaries(st.sampled_from(sorted(HONEST)), leaves))
@examples(500)
def test_what_is_said_of_a_process_is_in_its_bounds_or_refused(changes: dict[str, Any]) -> None:
    try:
        info = info_of({**HONEST, **changes})
    except AgentProtocolError:
        return
    assert isinstance(info, ProcessInfo)
    assert 0 < info.process_id < 2**63
    assert 0 <= info.pid <= 2**22
    assert all(isinstance(text, str) for text in (info.tag, info.working_directory, info.user, *info.argv))
    assert 0 <= info.stdout_kept_from <= info.stdout_end <= info.stdout_kept_from + KEPT_BYTES
    assert 0 <= info.stderr_kept_from <= info.stderr_end <= info.stderr_kept_from + KEPT_BYTES


frames = st.one_of(
    st.builds(output, st.integers(0, 70_000).map(bytes), st.sampled_from([wire.STDOUT, wire.STDERR])),
    st.builds(skipped, st.integers(0, 2**64 - 1), st.sampled_from([wire.STDOUT, wire.STDERR])),
    st.just(exited(status=0)),
    st.builds(lambda kind, payload: wire.encode(kind, STREAM, payload), st.integers(0, 0x7F), st.binary(max_size=20)),
)


@given(said=st.lists(frames, max_size=20))
@examples(100)
@in_virtual_time
async def test_who_reads_nothing_holds_no_more_than_its_windows(said: list[bytes]) -> None:
    async with connection() as (client, say):
        followed: list[FollowedProcess] = []

        async def attach() -> None:
            with contextlib.suppress(AgentError):
                followed.append(await client.processes.attach(ProcessRef(process_id=7), positions=Positions()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attach)
            await say(ATTACHED + b"".join(said))
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()
        for process in followed:
            for buffer in process._buffers:
                assert buffer.held <= WINDOW + wire.MAX_PAYLOAD
            await process.aclose()
