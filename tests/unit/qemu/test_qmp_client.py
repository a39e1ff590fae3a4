"""The QMP client against a scripted peer, over memory streams and socket pairs."""

from __future__ import annotations

import array
import json
import os
import socket
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from vmm.errors import QmpCommandError, QmpConnectionError
from vmm.qemu.qmp import QmpClient

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}, "capabilities": ["oob"]}}


class ScriptedQemu:
    """The other end: says what the test tells it to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._received = b""

    async def say(self, *documents: dict[str, Any]) -> None:
        await self.stream.send_all(b"".join(json.dumps(document).encode() + b"\r\n" for document in documents))

    async def hear(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            data = await self.stream.receive_some()
            assert data, "the client closed the connection"
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        document: dict[str, Any] = json.loads(line)
        return document

    async def greet(self) -> None:
        await self.say(GREETING)
        command = await self.hear()
        assert command["execute"] == "qmp_capabilities"
        await self.say({"return": {}, "id": command["id"]})

    async def event(self, name: str, **data: Any) -> None:
        await self.say({"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 500000}})


async def connected(nursery: trio.Nursery) -> tuple[QmpClient, ScriptedQemu]:
    ours, theirs = trio.testing.memory_stream_pair()
    qemu = ScriptedQemu(theirs)
    nursery.start_soon(qemu.greet)
    return await QmpClient.connect(ours, nursery=nursery, kept=["SHUTDOWN"]), qemu


async def test_connect_reports_the_version_and_negotiates(nursery: trio.Nursery) -> None:
    client, _ = await connected(nursery)
    assert client.greeting.qemu_version == (7, 2, 22)
    await client.aclose()


async def test_replies_go_to_their_commands_whatever_their_order(nursery: trio.Nursery) -> None:
    client, qemu = await connected(nursery)
    answers: dict[str, Any] = {}

    async def ask(name: str) -> None:
        answers[name] = await client.execute(name)

    async with trio.open_nursery() as asking:
        asking.start_soon(ask, "query-one")
        asking.start_soon(ask, "query-two")
        first, second = await qemu.hear(), await qemu.hear()
        await qemu.say(*({"return": command["execute"], "id": command["id"]} for command in (second, first)))
    assert answers == {"query-one": "query-one", "query-two": "query-two"}
    await client.aclose()


async def test_a_refused_command_raises_with_qemus_words_and_the_last_exchanges(nursery: trio.Nursery) -> None:
    client, qemu = await connected(nursery)

    async def refuse() -> None:
        command = await qemu.hear()
        await qemu.say({"error": {"class": "GenericError", "desc": "no such device"}, "id": command["id"]})

    nursery.start_soon(refuse)
    with pytest.raises(QmpCommandError) as caught:
        await client.execute("device_del", id="x")
    assert (caught.value.error_class, caught.value.description) == ("GenericError", "no such device")
    assert '"execute": "device_del"' in caught.value.__notes__[0]
    await client.aclose()


async def test_a_command_cancelled_while_it_runs_leaves_the_connection_usable(nursery: trio.Nursery) -> None:
    client, qemu = await connected(nursery)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as asking:
            asking.start_soon(client.execute, "slow")
            slow = await qemu.hear()
            scope.cancel()
    await qemu.say({"return": "too late", "id": slow["id"]})

    async def answer() -> None:
        command = await qemu.hear()
        await qemu.say({"return": "fast", "id": command["id"]})

    nursery.start_soon(answer)
    assert await client.execute("quick") == "fast"
    await client.aclose()


async def test_a_command_cancelled_before_it_is_sent_is_not_sent(nursery: trio.Nursery) -> None:
    client, qemu = await connected(nursery)
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.execute("never")
    nursery.start_soon(client.aclose)
    assert await qemu.stream.receive_some() == b""


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH\r\n", b'{"return": {}, "id": 99}\n', b"[1]\n"])
async def test_pending_commands_fail_when_the_connection_breaks(nursery: trio.Nursery, said: bytes) -> None:
    client, qemu = await connected(nursery)

    async def break_it() -> None:
        await qemu.hear()
        if said:
            await qemu.stream.send_all(said)
        else:
            await qemu.stream.aclose()

    nursery.start_soon(break_it)
    with pytest.raises(QmpConnectionError, match="query-status"):
        await client.execute("query-status")
    with pytest.raises(QmpConnectionError, match="has ended"):
        await client.execute("query-status")
    await client.aclose()


async def test_connect_fails_and_closes_when_the_peer_is_no_qemu(nursery: trio.Nursery) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"220 mail.example.org ESMTP\r\n")
    with pytest.raises(QmpConnectionError, match="does not speak QMP"):
        await QmpClient.connect(ours, nursery=nursery)
    assert await theirs.receive_some() == b""


async def test_no_two_clients_number_their_commands_alike(nursery: trio.Nursery) -> None:
    """Or the answer to one that has gone would be taken for that to the next one's command."""
    numbers = []
    for _ in range(2):
        client, qemu = await connected(nursery)
        nursery.start_soon(partial(client.execute, "query-status"))
        command = await qemu.hear()
        numbers.append(command["id"])
        await qemu.say({"return": {}, "id": command["id"]})
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
    assert numbers[0] != numbers[1]


async def test_cancelled_connect_closes_the_stream(nursery: trio.Nursery) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await QmpClient.connect(ours, nursery=nursery)
    assert scope.cancelled_caught
    assert await theirs.receive_some() == b""


async def test_a_cancelled_reader_fails_pending_commands() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    qemu = ScriptedQemu(theirs)
    async with trio.open_nursery() as asking, trio.open_nursery() as owner:
        asking.start_soon(qemu.greet)
        client = await QmpClient.connect(ours, nursery=owner)

        async def ask() -> None:
            with pytest.raises(QmpConnectionError, match="reader was cancelled"):
                await client.execute("query-status")

        asking.start_soon(ask)
        await qemu.hear()
        owner.cancel_scope.cancel()
    await client.aclose()


async def test_no_event_is_lost_between_subscribing_and_waiting(nursery: trio.Nursery) -> None:
    client, qemu = await connected(nursery)
    await qemu.event("SHUTDOWN")
    await trio.testing.wait_all_tasks_blocked()
    with client.subscribe("STOP", "RESUME") as events:
        await qemu.event("STOP")
        await qemu.event("RTC_CHANGE", offset=1)
        await qemu.event("RESUME")
        await trio.testing.wait_all_tasks_blocked()
        assert [(await events.next()).name, (await events.next()).name] == ["STOP", "RESUME"]
        await qemu.event("STOP")
        await qemu.stream.aclose()
        assert (await events.next()).time_s == 1.5
        with pytest.raises(QmpConnectionError, match="no more QMP events"):
            await events.next()
    await client.aclose()


async def test_events_that_nobody_reads_end_the_subscription_not_the_memory(nursery: trio.Nursery) -> None:
    client, qemu = await connected(nursery)
    with client.subscribe("FLOOD") as events:
        for _ in range(1025):
            await qemu.event("FLOOD")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(1024):
            await events.next()
        with pytest.raises(QmpConnectionError, match="1024 events are waiting"):
            await events.next()
    await client.aclose()


async def test_descriptors_travel_with_their_command(nursery: trio.Nursery) -> None:
    ours, theirs = socket.socketpair()
    our_stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    their_stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    qemu = ScriptedQemu(their_stream)
    nursery.start_soon(qemu.greet)
    client = await QmpClient.connect(our_stream, nursery=nursery)
    read_end, write_end = os.pipe()
    try:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as asking:
                asking.start_soon(lambda: client.execute("getfd", fds=[write_end], fdname="state"))
                line, ancillary, _, _ = await their_stream.socket.recvmsg(4096, socket.CMSG_SPACE(4))
                scope.cancel()
        assert json.loads(line)["arguments"] == {"fdname": "state"}
        [(_, kind, data)] = ancillary
        assert kind == socket.SCM_RIGHTS
        [received] = array.array("i", data)
        os.write(received, b"through QEMU")
        os.close(received)
        assert os.read(read_end, 100) == b"through QEMU"
    finally:
        os.close(read_end)
        os.close(write_end)
        await client.aclose()
        await their_stream.aclose()


async def test_descriptors_need_a_socket(nursery: trio.Nursery) -> None:
    client, _ = await connected(nursery)
    with pytest.raises(TypeError, match="socket stream"):
        await client.execute("getfd", fds=[0], fdname="state")
    await client.aclose()


async def test_a_qemu_that_reads_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    class Deaf(trio.abc.Stream):
        """Greets, then never finishes taking a command."""

        def __init__(self, inner: trio.abc.Stream) -> None:
            self.inner = inner
            self.deaf = False

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if self.deaf:
                await trio.sleep_forever()
            await self.inner.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await self.inner.wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return await self.inner.receive_some(max_bytes)

        async def aclose(self) -> None:
            await self.inner.aclose()

    ours, theirs = trio.testing.memory_stream_pair()
    stream = Deaf(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ScriptedQemu(theirs).greet)
        client = await QmpClient.connect(stream, nursery=nursery)
        stream.deaf = True
        with pytest.raises(QmpConnectionError, match="did not read a command for 10 s"):
            await client.execute("stop")
        await client.aclose()


async def test_what_qemu_said_last_is_there_when_it_has_ended(nursery: trio.Nursery) -> None:
    client, qemu = await connected(nursery)
    await qemu.event("SHUTDOWN", reason="guest-reset")
    await qemu.event("SHUTDOWN", reason="guest-shutdown")
    await qemu.stream.aclose()
    await client.wait_ended()
    last = client.last("SHUTDOWN")
    assert last is not None
    assert last.data == {"reason": "guest-shutdown"}
    await client.aclose()
