"""A QEMU in its guest's hands, on its monitor: what it says takes little of the loop's time, and has an end."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.unit.qemu.test_qmp_client import ScriptedQemu, connected
from vmm.errors import QmpConnectionError
from vmm.qemu.qmp import QmpClient
from vmm.qemu.qmp.messages import Message
from vmm.qemu.qmp.protocol import AT_ONCE, MAX_LINE_BYTES, MAX_PIECES, PER_S, Allowance, QmpProtocol

STAMP = {"timestamp": {"seconds": 1, "microseconds": 0}}


def event(name: str = "ACPI_DEVICE_OST", **data: Any) -> bytes:
    return json.dumps({"event": name, "data": data, **STAMP}).encode() + b"\r\n"


async def broken(client: QmpClient) -> str:
    """Why it is, and everybody who asks hears of it."""
    with trio.fail_after(60):
        told = str(await client.wait_broken())
    with pytest.raises(QmpConnectionError, match="the QMP connection has ended"):
        await client.execute("query-status")
    await client.aclose()
    return told


@pytest.mark.parametrize(
    "said",
    [event() * (AT_ONCE + 100), b"\n" * 10_000, event(x="y" * 900_000) * 3, (b" " * 900_000 + b"\n") * 3],
    ids=["small events", "no lines", "large events", "nothing at length"],
)
async def test_one_that_says_more_than_any_does_is_given_up(
    nursery: trio.Nursery, autojump_clock: MockClock, said: bytes
) -> None:
    client, qemu = await connected(nursery)
    await qemu.stream.send_all(said)
    assert "floods" in await broken(client)


async def test_events_at_the_rate_at_which_they_come_are_no_flood(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, qemu = await connected(nursery)
    await qemu.stream.send_all(event(device="cpu") * (AT_ONCE // 2))
    for _ in range(3600):
        await trio.sleep(1)
        await qemu.stream.send_all(event("RTC_CHANGE", offset=1) * (PER_S // 2))
    assert not client.transcript[-1].startswith("> ")
    await client.aclose()


async def test_answers_are_no_flood(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    client, qemu = await connected(nursery)
    for _ in range(200):
        async with trio.open_nursery() as asking:
            asking.start_soon(client.execute, "query-hotpluggable-cpus")
            command = await qemu.hear()
            await qemu.say({"return": ["x" * 1000] * 60, "id": command["id"]})
    await client.aclose()


async def test_answers_to_who_asked_before_us_have_an_end(nursery: trio.Nursery) -> None:
    """They are passed over until the first one of ours: a QEMU that never gives that could go on for ever."""
    ours, theirs = trio.testing.memory_stream_pair()
    qemu = ScriptedQemu(theirs)

    async def flood() -> None:
        await qemu.say({"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}}, "capabilities": []}})
        await qemu.hear()
        await theirs.send_all(b'{"return": {}, "id": 1}\n' * (AT_ONCE + 1000))

    nursery.start_soon(flood)
    with pytest.raises(QmpConnectionError, match="floods"):
        await QmpClient.connect(ours, nursery=nursery)


@pytest.mark.parametrize("said", [b"{]\n", b'{"return": {}, "id": 1}\n', b"x" * (MAX_LINE_BYTES + 1)])
async def test_one_that_breaks_the_protocol_is_told_of_to_whoever_waits_for_that(
    nursery: trio.Nursery, said: bytes
) -> None:
    client, qemu = await connected(nursery)
    await qemu.stream.send_all(said)
    assert await broken(client)


async def test_one_that_hangs_up_has_broken_nothing(nursery: trio.Nursery) -> None:
    client, qemu = await connected(nursery)
    told: list[object] = []

    async def wait() -> None:
        told.append(await client.wait_broken())

    nursery.start_soon(wait)
    await qemu.stream.send_all(b'{"event": "SHUT')
    await qemu.stream.aclose()
    await client.wait_ended()
    await trio.testing.wait_all_tasks_blocked()
    assert told == []
    await client.aclose()
    nursery.cancel_scope.cancel()


async def test_only_events_that_somebody_may_ask_for_are_kept(nursery: trio.Nursery) -> None:
    """It could name them as it likes, each unlike the others."""
    client, qemu = await connected(nursery)
    await qemu.stream.send_all(b"".join(event(f"EVENT_{number}") for number in range(1000)))
    await qemu.event("SHUTDOWN", reason="guest-reset")
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(KeyError):
        client.last("EVENT_7")
    assert client.last("SHUTDOWN") is not None
    await client.aclose()


async def test_between_a_few_of_its_lines_everybody_has_a_turn(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, qemu = await connected(nursery)
    heard: list[int] = []
    receive = QmpProtocol.receive

    def counting(self: QmpProtocol, data: bytes | bytearray) -> list[Message]:
        messages = receive(self, data)
        heard.append(len(messages))
        return messages

    monkeypatch.setattr(QmpProtocol, "receive", counting)
    await qemu.stream.send_all(event("") * 1000)
    await trio.testing.wait_all_tasks_blocked()
    assert sum(heard) == 1000
    assert max(heard) < 80
    await client.aclose()


@pytest.mark.parametrize("piece", [[], {}, 1])
def test_a_line_of_more_pieces_than_any_has_is_not_read(piece: object) -> None:
    """A megabyte of empty lists took the loop a quarter of a second."""
    protocol = QmpProtocol()
    protocol.receive(
        b'{"QMP": {"version": {"qemu": {"major": 8, "minor": 0, "micro": 1}}, "capabilities": []}}\n'
        + event(x=[piece] * (MAX_PIECES // 2 - 100))
    )
    with pytest.raises(QmpConnectionError, match="pieces"):
        protocol.receive(event(x=[piece] * (MAX_PIECES + 1)))


@pytest.mark.parametrize(
    "data", [{"x": "y" * 100_000}, {"x" * 100_000: 1}, {str(n): [[n] * 100] * 100 for n in range(100)}], ids=len
)
async def test_evidence_of_what_it_said_is_short(nursery: trio.Nursery, data: dict[str, Any]) -> None:
    client, qemu = await connected(nursery)
    await qemu.stream.send_all(event("LONG", **data)[:-2] + b"\r\n")
    await trio.testing.wait_all_tasks_blocked()
    assert client.transcript[-1].startswith("< ")
    assert len(client.transcript[-1]) < 320
    await client.aclose()


def test_an_allowance_that_was_not_used_does_not_add_up() -> None:
    allowance = Allowance()
    for _ in range(1000):
        allowance.asked()
    spend = partial(allowance.spend, size=0)
    assert spend(AT_ONCE, now=1e6)
    assert not spend(1, now=1e6)
    assert spend(PER_S - 1, now=1e6 + 1)
