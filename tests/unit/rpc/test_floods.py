"""Frames that serve nothing end the connection that they come on, and cost others no more than a moment."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import pytest
import trio
from h2.errors import ErrorCodes

from pool.rpc.connection import WORK_AT_ONCE
from pool.rpc.flood import CAPACITY, RESET
from tests.unit.rpc.raw import ACQUIRE, EXEC, STATUS, connected, framed
from tests.unit.rpc.served import Served
from tests.unit.rpc.test_hostile_clients import PREFACE, frame, raw_headers
from vmpool.wire.generated.vmpool import v1 as wire

HEADERS = raw_headers(EXEC)
COMPRESSED = frame(0x00, b"\1\0\0\0\0", stream=1)


def opened(stream: int) -> bytes:
    return frame(0x01, HEADERS, flags=4, stream=stream)


def rapid_reset(number: int) -> bytes:
    return opened(1 + 2 * number) + frame(0x03, bytes(4), stream=1 + 2 * number)


FLOODS: dict[str, tuple[bytes, Callable[[int], bytes]]] = {
    "rapid reset": (b"", rapid_reset),
    "empty data": (opened(1), lambda _: frame(0x00, stream=1)),
    "padding": (opened(1), lambda _: frame(0x00, b"\x01\0", flags=8, stream=1)),
    "single bytes": (opened(1), lambda _: frame(0x00, b"\0", stream=1)),
    "data of a call that is over": (
        opened(1) + frame(0x00, b"\1\0\0\0\0", stream=1),
        lambda _: frame(0x00, b"x" * 50, stream=1),
    ),
    "settings": (b"", lambda _: frame(0x04, struct.pack(">HI", 1, 4096))),
    "few settings with many entries": (b"", lambda _: frame(0x04, struct.pack(">HI", 0x99, 1) * 2700)),
    "ping": (b"", lambda _: frame(0x06, bytes(8))),
    "answers to no ping": (b"", lambda _: frame(0x06, bytes(8), flags=1)),
    "priority": (b"", lambda _: frame(0x02, struct.pack(">IB", 0, 1), stream=1)),
    "window update": (b"", lambda _: frame(0x08, struct.pack(">I", 1))),
    "window update of a call": (opened(1), lambda _: frame(0x08, struct.pack(">I", 1), stream=1)),
    "windows beyond their limit": (
        b"",
        lambda number: opened(1 + 2 * number) + frame(0x08, struct.pack(">I", 2**31 - 1), stream=1 + 2 * number),
    ),
    "continuation": (
        b"",
        lambda number: (
            frame(0x01, HEADERS, stream=1 + 2 * number)
            + frame(0x09, stream=1 + 2 * number) * 50
            + frame(0x09, flags=4, stream=1 + 2 * number)
        ),
    ),
    "unknown": (b"", lambda _: frame(0x77, bytes(100))),
}


async def throw(stream: trio.SocketStream, begin: bytes, more: Callable[[int], bytes]) -> bytes:
    """Until it is hung up on; what was heard. Reads what comes, as fast as it does."""
    heard = b""

    async def send() -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            for number in range(0, 1_000_000, 50):
                await stream.send_all(b"".join(map(more, range(number, number + 50))))

    await stream.send_all(PREFACE + frame(0x04) + begin)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with contextlib.suppress(trio.BrokenResourceError):
                while data := await stream.receive_some():
                    heard += data
    return heard


def farewells(heard: bytes) -> list[int]:
    """The error codes of GOAWAYs."""
    codes, at = [], 0
    while at < len(heard):
        if heard[at + 3] == 0x07:
            codes.append(int.from_bytes(heard[at + 13 : at + 17], "big"))
        at += 9 + int.from_bytes(heard[at : at + 3], "big")
    return codes


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_is_hung_up_on(served: Served, name: str) -> None:
    async with served.client() as bystander, await trio.open_unix_socket(str(served.path)) as stream:
        await bystander.status()
        heard = await throw(stream, *FLOODS[name])
        assert farewells(heard) == [ErrorCodes.ENHANCE_YOUR_CALM]
        await bystander.status()
    statistics = served.server.statistics()
    assert (statistics.floods, statistics.violations, statistics.loop_errors) == (1, 0, 0)


async def test_calls_that_are_reset_cost_more_than_other_frames(served: Served) -> None:
    async with await trio.open_unix_socket(str(served.path)) as stream:
        begin = b"".join(map(rapid_reset, range(CAPACITY // RESET + 100)))
        heard = await throw(stream, begin, lambda _: b"")
    assert farewells(heard) == [ErrorCodes.ENHANCE_YOUR_CALM]


async def test_another_connection_wins_nothing(served: Served) -> None:
    """Who floods one after the other is refused the next, until time has passed; whoever is connected may stay."""
    async with served.client() as bystander:
        await bystander.status()
        floods = 0
        while floods < 100:
            async with connected(served.path) as raw:
                status, message = await raw.status(await raw.request(STATUS, wire.StatusRequest()))
                if status == "8":
                    assert "opens or floods connections too fast" in message
                    break
                await raw.stream.send_all(frame(0x06, bytes(8)) * (CAPACITY + 2000))
                await raw.hung_up()
                floods += 1
        assert 0 < floods < 100
        await bystander.status()


async def test_others_have_their_turn_while_one_has_sent_much(served: Served) -> None:
    """In one write, as many frames as are allowed: they are dealt with in portions."""
    async with connected(served.path) as much, connected(served.path) as little:
        for raw in (much, little):
            assert (await raw.status(await raw.request(STATUS, wire.StatusRequest())))[0] == "0"
        await much.stream.send_all(frame(0x06, bytes(8)) * (40 * WORK_AT_ONCE))
        assert (await little.status(await little.request(STATUS, wire.StatusRequest())))[0] == "0"
        assert any(connection._behind for connection in served.server._server.connections)
        assert (await much.status(await much.request(STATUS, wire.StatusRequest())))[0] == "0"
    assert served.server.statistics().floods == 0


# -- who is honest -----------------------------------------------------------------------------------------------------


async def test_calls_that_are_given_up_again_and_again_are_no_flood(served: Served) -> None:
    """All that a connection takes, five times in a row."""
    async with connected(served.path) as raw:
        await raw.receive()
        for _ in range(5):
            calls = [await raw.start(ACQUIRE) for _ in range(100)]
            for call in calls:
                raw.http2.reset_stream(call)
            await raw.flush()
        assert (await raw.status(await raw.request(STATUS, wire.StatusRequest())))[0] == "0"
    assert served.server.statistics().floods == 0


async def test_calls_that_are_answered_may_be_as_many_as_one_likes(served: Served) -> None:
    """With a PING and two WINDOW_UPDATEs for each, and a reset after its end."""
    async with connected(served.path) as raw:
        for _ in range(1500):
            call = await raw.request(STATUS, wire.StatusRequest())
            raw.http2.ping(bytes(8))
            raw.http2.increment_flow_control_window(1)
            assert (await raw.status(call))[0] == "0"
            await raw.stream.send_all(
                frame(0x08, struct.pack(">I", 1), stream=call) + frame(0x03, bytes(4), stream=call)
            )
    assert served.server.statistics().floods == 0


async def test_much_output_is_no_flood_however_often_the_client_makes_room(served: Served) -> None:
    async with served.client() as client, client.lease() as vm, connected(served.path) as raw:
        call = await raw.start(EXEC)
        start = wire.ExecStart(lease_id=vm.lease_id, argv=["yes"])
        await raw.send(call, framed(wire.ExecRequest(start=start)))
        received = 0
        while received < 40 * 1024 * 1024:
            assert await raw.receive()
            received += len(raw.data.pop(call, b""))
            raw.http2.ping(bytes(8))
    assert served.server.statistics().floods == 0
