"""Sessions: how the two sides find each other, whatever happened before, and how one ends."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair

from tests.agents import LocalAgent, Narrow, collect, until
from vmm.errors import AgentProtocolError, AgentUnreachableError, NoRoomError
from vmm.guest import connection
from vmm.guest.agent import values, wire
from vmm.guest.client import AgentClient
from vmm.words.commands import CommandExit, CommandSpec, Output, OutputStream
from vmm.words.preparation import Preparation


def hello_reply(nonce: bytes, version: int = wire.VERSION) -> bytes:
    return wire.MARKER + wire.encode(wire.HELLO_REPLY, 0, wire.HELLO_BODY.pack(nonce, version))


async def read_hello(stream: trio.abc.ReceiveStream) -> bytes:
    """What the host says first; returns its nonce."""
    decoder = wire.Decoder(max_message=1000)
    while True:
        for kind, _, payload in decoder.feed(bytes(await stream.receive_some())):
            if kind == wire.HELLO:
                return bytes(wire.HELLO_BODY.unpack(payload)[0])


async def test_the_agent_tells_of_its_guest(client: AgentClient) -> None:
    info = await client.ping()
    assert info.agent_version == wire.VERSION
    assert info.kernel_release.count(".") >= 1


async def test_prepare_is_written_without_waiting_for_the_guest(nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()
    connecting = trio.Event()
    clients: list[AgentClient] = []

    async def connect() -> None:
        clients.append(await AgentClient.connect(ours, nursery=nursery))
        connecting.set()

    nursery.start_soon(connect)
    await theirs.send_all(hello_reply(await read_hello(theirs)))
    await connecting.wait()
    with trio.CancelScope() as scope:

        async def prepare() -> None:
            await clients[0].prepare(Preparation(hostname="paused"))

        async with trio.open_nursery() as asking:
            asking.start_soon(prepare)
            # The guest is stopped, it answers nothing: the request is there all the same.
            assert b"paused" in await theirs.receive_some()
            scope.cancel()
    await clients[0].aclose()


async def test_a_new_hello_ends_what_the_last_session_left(local_agent: LocalAgent, nursery: trio.Nursery) -> None:
    stream = local_agent.stream
    first = await AgentClient.connect(Unclosed(stream), nursery=nursery)
    command = await first.start_command(CommandSpec(argv=["sh", "-c", "echo $$; yes"]))
    pid = int((await until(command, lambda seen: b"\n" in seen)).split()[0])
    await first.aclose()
    # The first host died in the middle of a frame, with the agent's output all over the channel.
    await stream.send_all(wire.HEADER.pack(wire.REQUEST, 99, wire.MAX_PAYLOAD) + b"half a request")
    second = await AgentClient.connect(stream, nursery=nursery)
    script = f"while kill -0 {pid} 2>/dev/null; do sleep 0.01; done; echo gone"
    assert (await collect(await second.start_command(CommandSpec(argv=["sh", "-c", script])))).stdout == b"gone\n"
    await second.aclose()


async def test_a_new_session_forgets_preparations_and_keeps_the_environment(
    local_agent: LocalAgent, nursery: trio.Nursery
) -> None:
    first = await AgentClient.connect(Unclosed(local_agent.stream), nursery=nursery)
    await first.prepare(Preparation(environment={"COLOUR": "green"}))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as asking:
            asking.start_soon(first.prepare, Preparation(vcpus=2))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await first.aclose()
    second = await AgentClient.connect(local_agent.stream, nursery=nursery)
    outcome = await collect(await second.start_command(CommandSpec(argv=["sh", "-c", "echo $COLOUR"])))
    assert outcome.stdout == b"green\n"
    await second.aclose()


async def test_garbage_before_hello_does_not_matter(local_agent: LocalAgent, nursery: trio.Nursery) -> None:
    await local_agent.stream.send_all(bytes(range(256)) * 1000)
    client = await AgentClient.connect(local_agent.stream, nursery=nursery)
    await client.ping()
    await client.aclose()


async def test_garbage_after_hello_is_noticed_and_survived(local_agent: LocalAgent, nursery: trio.Nursery) -> None:
    first = await AgentClient.connect(Unclosed(local_agent.stream), nursery=nursery)
    await local_agent.stream.send_all(b"\xff" * 100)
    with pytest.raises(AgentProtocolError, match="bytes were lost"):
        await first.start_command(CommandSpec(argv=["sleep", "1000"]))
    await first.aclose()
    second = await AgentClient.connect(local_agent.stream, nursery=nursery)
    await second.ping()
    await second.aclose()


@pytest.mark.parametrize(
    "frame",
    [
        wire.encode(wire.REQUEST, 77, b"not a value"),
        wire.encode(wire.REQUEST, 77, values.pack(["not", "a", "dict"])),
        wire.encode(wire.REQUEST, 77, values.pack({"op": "dance"})),
        wire.encode(wire.REQUEST, 77, values.pack({"op": "put", "path": 5, "mode": "x"})),
        wire.encode(wire.REQUEST, 77, values.pack({"op": "get", "path": "nul\0"})),
        wire.encode(wire.REQUEST, 77, values.pack({"op": "exec", "argv": "ls"})),
        wire.encode(wire.REQUEST, 77, values.pack({"op": "exec", "argv": ["ls"], "environment": 5})),
        wire.encode(wire.REQUEST, 77, values.pack({"op": "exec", "argv": ["ls"], "directory": 5})),
        wire.encode(wire.REQUEST, 77, values.pack({"op": "prepare", "entropy": 7})),
        wire.encode(wire.REQUEST, 77, values.pack({"op": "prepare", "vcpus": 2}))
        + wire.encode(wire.DATA, 77, b"unasked"),
        wire.encode(wire.REQUEST, 77, values.pack({"op": "prepare", "vcpus": 2})) + wire.encode(wire.EOF, 77),
        wire.encode(wire.SIGNAL, 77, b""),
        wire.encode(wire.CANCEL, 77),
        wire.encode(wire.CREDIT + wire.STDOUT, 77, b"\1"),
        wire.encode(0x3F, 77, b"from the future"),
    ],
)
async def test_a_malformed_request_never_ends_the_agent(
    local_agent: LocalAgent, nursery: trio.Nursery, frame: bytes
) -> None:
    nonce = bytes(range(16))
    hello = wire.encode(wire.HELLO, 0, wire.HELLO_BODY.pack(nonce, wire.VERSION))
    ping = wire.encode(wire.REQUEST, 78, values.pack({"op": "ping"}))
    await local_agent.stream.send_all(wire.MARKER + hello + frame + ping)
    decoder = wire.Decoder(max_message=100_000)
    frames: list[wire.Frame] = []
    while not any(kind == wire.REPLY and stream == 78 for kind, stream, _ in frames):
        frames += decoder.feed(bytes(await local_agent.stream.receive_some()))
    assert {kind for kind, stream, _ in frames if stream == 77} <= {wire.ERROR}


async def test_a_cancelled_request_leaves_the_channel_usable(client: AgentClient) -> None:
    for _ in range(20):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.start_command, CommandSpec(argv=["sleep", "1000"]))
                nursery.start_soon(client.ping)
                nursery.start_soon(client.get_file, "/proc/self/status")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
    outcome = await collect(await client.start_command(CommandSpec(argv=["echo", "usable"])))
    assert outcome.stdout == b"usable\n"


async def test_a_guest_that_goes_away_fails_everything_that_waits(nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()
    failed: list[str] = []

    async def use() -> None:
        client = await AgentClient.connect(ours, nursery=nursery)
        with pytest.raises(AgentUnreachableError):
            await client.ping()
        with pytest.raises(AgentUnreachableError):
            await client.start_command(CommandSpec(argv=["true"]))
        await client.aclose()
        await client.aclose()
        failed.append("both")

    async with trio.open_nursery() as users:
        users.start_soon(use)
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await trio.testing.wait_all_tasks_blocked()
        await theirs.aclose()
    assert failed == ["both"]


async def test_connecting_to_a_channel_that_closes_says_so(nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.aclose()
    with pytest.raises(AgentUnreachableError):
        await AgentClient.connect(ours, nursery=nursery)


async def test_a_guest_of_another_version_is_refused(nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()

    async def answer() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs), version=wire.VERSION + 1))

    nursery.start_soon(answer)
    with pytest.raises(AgentProtocolError, match="version"):
        await AgentClient.connect(ours, nursery=nursery)


async def test_an_agent_that_announces_itself_is_greeted_again(nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()

    async def start_late() -> None:
        lost = await read_hello(theirs)
        await theirs.send_all(wire.MARKER + wire.encode(wire.ANNOUNCE, 0, wire.HELLO_BODY.pack(b"", 1)))
        again = await read_hello(theirs)
        assert again == lost
        await theirs.send_all(hello_reply(again) + hello_reply(again))

    nursery.start_soon(start_late)
    client = await AgentClient.connect(ours, nursery=nursery)
    await client.aclose()


async def test_an_agent_that_starts_anew_ends_the_session(nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()

    async def restart() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.MARKER + wire.encode(wire.ANNOUNCE, 0, wire.HELLO_BODY.pack(b"", 1)))

    nursery.start_soon(restart)
    client = await AgentClient.connect(ours, nursery=nursery)
    with pytest.raises(AgentUnreachableError, match="restarted"):
        await client.ping()
    await client.aclose()


@pytest.mark.parametrize(
    "frame",
    [
        wire.encode(wire.REPLY, 1, b"?"),
        wire.encode(wire.REPLY, 1, values.pack({"version": "one"})),
        wire.encode(wire.REPLY, 1, values.pack([])),
        wire.encode(wire.ERROR, 1, values.pack(7)),
        wire.encode(wire.DATA + wire.STDOUT, 1, b"unasked"),
        wire.encode(wire.CREDIT, 1, b"\1"),
        wire.encode(wire.CREDIT + wire.STDIN, 1, wire.COUNT.pack(1)),
        wire.encode(wire.REPLY, 2, values.pack({})),
        b"\xff" * 9,
    ],
)
async def test_a_guest_that_breaks_the_protocol_is_left(nursery: trio.Nursery, frame: bytes) -> None:
    ours, theirs = memory_stream_pair()

    async def misbehave() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(frame)

    nursery.start_soon(misbehave)
    client = await AgentClient.connect(ours, nursery=nursery)
    with pytest.raises(AgentProtocolError):
        await client.ping()
    await client.aclose()


async def test_a_guest_that_ignores_credit_is_left(nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()

    async def flood() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 1, values.pack({"pid": 1})))
        await theirs.send_all(wire.encode_data(wire.STDOUT, 1, bytes(wire.WINDOW + 1)))

    nursery.start_soon(flood)
    client = await AgentClient.connect(ours, nursery=nursery)
    command = await client.start_command(CommandSpec(argv=["flood"]))
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(AgentProtocolError, match="room"):
        await client.ping()
    await command.aclose()
    await client.aclose()


async def test_a_guest_that_takes_what_was_read_for_credit_is_left(nursery: trio.Nursery) -> None:
    """It comes when it is worth a frame; until then the window is as full as before."""
    ours, theirs = memory_stream_pair()
    read = trio.Event()

    async def flood() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 1, values.pack({"pid": 1})))
        await theirs.send_all(wire.encode_data(wire.STDOUT, 1, b"early"))
        await read.wait()
        await theirs.send_all(wire.encode_data(wire.STDOUT, 1, bytes(wire.WINDOW)))

    nursery.start_soon(flood)
    client = await AgentClient.connect(ours, nursery=nursery)
    command = await client.start_command(CommandSpec(argv=["flood"]))
    assert await anext(command.events()) == Output(stream=OutputStream.STDOUT, data=b"early")
    read.set()
    assert "room" in str(await client.wait_broken())
    await command.aclose()
    await client.aclose()


_WIDER = 3 * (wire.WINDOW - Narrow.window)


@pytest.mark.parametrize(
    ("reply", "left", "sent", "error"),
    [
        ({"pid": 1, "window": 16 * 1024}, 0, 16 * 1024, None),
        ({"pid": 1, "window": 16 * 1024}, _WIDER, 16 * 1024 + 1, "more output than there was room for"),
        ({"pid": 1, "window": 32 * 1024}, _WIDER, 0, "a window that was not requested"),
        ({"pid": 1, "window": "16384"}, _WIDER, 0, "a window that was not requested"),
        ({"pid": 1}, _WIDER, wire.WINDOW, None),
        ({"pid": 1}, _WIDER, wire.WINDOW + 1, "more output than there was room for"),
    ],
)
async def test_an_agent_keeps_to_the_windows_that_it_was_given_or_there_is_room_for_those_that_all_have(
    nursery: trio.Nursery, reply: dict[str, Any], left: int, sent: int, error: str | None
) -> None:
    ours, theirs = memory_stream_pair()

    async def answer() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 1, values.pack(reply)))
        with contextlib.suppress(trio.BrokenResourceError):  # hung up on
            await theirs.send_all(wire.encode_data(wire.STDOUT, 1, bytes(sent)))
            await theirs.receive_some()
            await theirs.send_all(wire.encode(wire.REPLY, 2, values.pack({"version": wire.VERSION, "kernel": "k"})))

    nursery.start_soon(answer)
    client = await AgentClient.connect(ours, nursery=nursery)
    command = None
    with pytest.raises(AgentProtocolError, match=error) if error else contextlib.nullcontext():
        command = await client.start_command(CommandSpec(argv=["x"], room=Narrow(left=left)))
        await trio.testing.wait_all_tasks_blocked()
        await client.ping()
    if command is not None:
        await command.aclose()
    await client.aclose()


async def test_a_command_of_an_agent_without_small_windows_is_ended_where_there_is_no_room_for_its(
    nursery: trio.Nursery,
) -> None:
    ours, theirs = memory_stream_pair()
    heard: list[wire.Frame] = []

    async def answer() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 1, values.pack({"pid": 1})))
        await theirs.send_all(wire.encode_data(wire.STDOUT, 1, bytes(wire.WINDOW)))
        decoder = wire.Decoder(max_message=wire.MAX_REQUEST)
        decoder.feed(wire.MARKER)
        while not heard:
            heard.extend(decoder.feed(bytes(await theirs.receive_some())))

    nursery.start_soon(answer)
    client = await AgentClient.connect(ours, nursery=nursery)
    with pytest.raises(NoRoomError, match="some_key"):
        await client.start_command(CommandSpec(argv=["x"], room=Narrow(left=_WIDER - 1)))
    await trio.testing.wait_all_tasks_blocked()
    assert heard == [(wire.CANCEL, 1, b"")]
    await client.aclose()


async def test_a_guest_that_grants_more_credit_than_was_used_is_left(nursery: trio.Nursery) -> None:
    """It could have all that its caller sends heaped up on the host, by not reading it."""
    ours, theirs = memory_stream_pair()

    async def grant() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 1, values.pack({"pid": 1})))
        await theirs.send_all(wire.encode(wire.CREDIT + wire.STDIN, 1, wire.COUNT.pack(2**32 - 1)))

    nursery.start_soon(grant)
    client = await AgentClient.connect(ours, nursery=nursery)
    command = await client.start_command(CommandSpec(argv=["cat"]))
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(AgentProtocolError, match="credit"):
        await client.ping()
    await command.aclose()
    await client.aclose()


@pytest.mark.parametrize("operation", ["get", "exec"])
async def test_a_guest_that_answers_again_and_again_is_left(nursery: trio.Nursery, operation: str) -> None:
    """Each answer takes the host's time to read, however many there are."""
    ours, theirs = memory_stream_pair()

    async def repeat() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 1, values.pack({"pid": 1})) * 2)

    async def ask() -> None:
        if operation == "exec":
            command = await client.start_command(CommandSpec(argv=["true"]))
            try:
                assert [event async for event in command.events()] == []
            finally:
                await command.aclose()
        else:
            await client.get_file("/file")

    nursery.start_soon(repeat)
    client = await AgentClient.connect(ours, nursery=nursery)
    with trio.fail_after(10), pytest.raises(AgentProtocolError, match="twice"):
        await ask()
    await client.aclose()


async def test_what_waits_for_a_guest_that_reads_nothing_has_an_end(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of what nobody waits for any more: a caller may ask and go away as often as it likes."""
    monkeypatch.setattr(connection, "MAX_BACKLOG", 3 * wire.WINDOW)
    ours, theirs = lockstep_stream_pair()

    async def greet() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))

    nursery.start_soon(greet)
    client = await AgentClient.connect(ours, nursery=nursery)
    for _ in range(3):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as asking:
                asking.start_soon(partial(client.put_file, "/file", bytes(2 * wire.WINDOW)))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
    with pytest.raises(AgentUnreachableError, match="does not read"):
        await client.put_file("/file", b"")
    await trio.aclose_forcefully(theirs)
    await client.aclose()


async def test_output_in_countless_pieces_takes_no_more_room(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ours, theirs = memory_stream_pair()

    async def dribble() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        await theirs.receive_some()
        await theirs.send_all(wire.encode(wire.REPLY, 1, values.pack({"pid": 1})))
        await theirs.send_all(wire.encode_data(wire.STDOUT, 1, b"x") * 10_000)
        await theirs.send_all(wire.encode(wire.EXITED, 1, values.pack({"status": 0})))

    nursery.start_soon(dribble)
    client = await AgentClient.connect(ours, nursery=nursery)
    command = await client.start_command(CommandSpec(argv=["dribble"]))
    await trio.sleep(60)
    events = [event async for event in command.events()]
    assert events == [Output(stream=OutputStream.STDOUT, data=b"x" * 10_000), CommandExit(status=0)]
    await command.aclose()
    await client.aclose()


async def test_background_work_ends_with_the_owner_s_nursery(local_agent: LocalAgent) -> None:
    async with trio.open_nursery() as owner:
        client = await AgentClient.connect(Unclosed(local_agent.stream), nursery=owner)
        owner.cancel_scope.cancel()
    with pytest.raises(AgentUnreachableError):
        await client.ping()
    await client.aclose()


class Unclosed(trio.abc.Stream):
    """A stream whose other end does not notice that it was closed, as if the host had died and come back."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
