"""Whatever a client sends, the service lives and the others are served."""

from __future__ import annotations

import asyncio  # noqa: TID251 - to count its timers
import gc
import logging
import struct
from collections.abc import AsyncIterator

import pytest
import trio
from hpack import Encoder

from tests.unit.rpc.raw import ACQUIRE, EXEC, STATUS, connected, framed
from tests.unit.rpc.served import Served
from vmpool.wire.generated.vmpool import v1 as wire

REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def raw_headers(path: str) -> bytes:
    """The header block of a call."""
    start = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
    return Encoder().encode([*start.items(), ("te", "trailers"), ("content-type", "application/grpc")])


@pytest.fixture(autouse=True)
async def unharmed(served: Served) -> AsyncIterator[None]:
    """After each test: others are served, and nothing was left to the event loop's exception handler."""
    yield
    async with served.client() as client:
        assert (await client.status()).version == "1.2.3"
    assert served.server.statistics().loop_errors == 0
    await served.until(served.lost)
    await served.until(lambda: served.server.statistics().connections == 0)


IGNORED = {
    "unknown": frame(0x77, b"anything"),
    "unknown on a stream": frame(0x77, b"anything", stream=5),
    "altsvc": frame(0x0A, b"\0\x09localhost" + b'h2=":443"'),
    "priority": frame(0x02, b"\0\0\0\0\x10", stream=7),
    "ping": frame(0x06, b"12345678"),
    "settings": frame(0x04, struct.pack(">HI", 0x99, 1)),
    "ping ack that nobody asked for": frame(0x06, b"12345678", flags=1),
}


@pytest.mark.parametrize("name", IGNORED)
async def test_a_frame_without_meaning_here_is_ignored(served: Served, name: str) -> None:
    async with connected(served.path) as raw:
        await raw.stream.send_all(IGNORED[name])
        call = await raw.request(STATUS, wire.StatusRequest())
        assert (await raw.status(call))[0] == "0"
    assert served.server.statistics().violations == 0


VIOLATIONS = {
    "garbage": b"\xa5" * 64,
    "http/1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no settings": PREFACE + frame(0x00, b"data", stream=1),
    "data on a stream that was never opened": PREFACE + frame(0x04) + frame(0x00, b"data", stream=9),
    "frame too large": PREFACE + frame(0x04) + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + b"x" * 20000,
    "headers that do not decode": PREFACE + frame(0x04) + frame(0x01, b"\xff" * 20, flags=5, stream=1),
    "continuation of nothing": PREFACE + frame(0x04) + frame(0x09, b"", stream=1),
    "window of zero": PREFACE + frame(0x04) + frame(0x08, b"\0\0\0\0"),
    "even stream": PREFACE + frame(0x04) + frame(0x01, b"\x83\x86\x84", flags=5, stream=2),
    "headers without a method": PREFACE + frame(0x04) + frame(0x01, b"\x86\x84", flags=5, stream=1),
    "push promise": PREFACE + frame(0x04) + frame(0x05, b"\0\0\0\2", flags=4, stream=1),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_violation_ends_the_connection_and_nothing_else(served: Served, name: str) -> None:
    async with served.client() as bystander, await trio.open_unix_socket(str(served.path)) as stream:
        await bystander.status()
        await stream.send_all(VIOLATIONS[name])
        with trio.fail_after(20):
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass  # closed with what we sent unread
        await bystander.status()
    assert served.server.statistics().violations == 1


@pytest.mark.parametrize("size", range(0, len(PREFACE) + 9, 4))
async def test_a_client_that_leaves_within_the_preface(served: Served, size: int) -> None:
    async with await trio.open_unix_socket(str(served.path)) as stream:
        await stream.send_all((PREFACE + frame(0x04))[:size] or b"P")


BAD_HEADERS = {
    "get": {":method": "GET"},
    "no content type": {"content-type": ""},
    "another content type": {"content-type": "text/html"},
    "another codec": {"content-type": "application/grpc+json"},
    "no te": {"te": ""},
}


@pytest.mark.parametrize("name", BAD_HEADERS)
async def test_a_call_with_bad_headers_ends(served: Served, name: str) -> None:
    async with connected(served.path) as raw:
        call = await raw.request(ACQUIRE, wire.AcquireRequest(), headers=BAD_HEADERS[name])
        assert (await raw.status(call))[0] != "0"


@pytest.mark.parametrize("path", ["/vmpool.v1.Pool/Destroy", "/vmpool.v2.Pool/Acquire", "/", "nothing"])
async def test_a_method_that_is_none(served: Served, path: str) -> None:
    async with connected(served.path) as raw:
        call = await raw.request(path, wire.AcquireRequest())
        assert (await raw.status(call))[0] == "12"


async def test_header_text_that_is_no_ascii_ends_the_connection(served: Served) -> None:
    async with connected(served.path) as raw:
        await raw.request(ACQUIRE, wire.AcquireRequest(), headers={"x-name": "\N{SNOWMAN}"})
        await raw.hung_up()


async def test_a_message_that_is_too_large_is_refused_before_it_comes(served: Served) -> None:
    async with connected(served.path) as raw:
        call = await raw.start(ACQUIRE)
        await raw.send(call, struct.pack(">BI", 0, 2**32 - 1))
        status, message = await raw.status(call)
    assert status == "8"
    assert message.startswith("message of 4294967295 bytes; the maximum is 4194304")


async def test_a_compressed_message_is_refused(served: Served) -> None:
    async with connected(served.path) as raw:
        call = await raw.start(ACQUIRE)
        await raw.send(call, struct.pack(">BI", 1, 10) + b"x" * 10, end=True)
        status, message = await raw.status(call)
    assert status == "12"
    assert "compressed messages are not supported" in message


@pytest.mark.parametrize("path", [ACQUIRE, EXEC, REFLECTION])
async def test_a_request_that_ends_within_a_message(served: Served, path: str) -> None:
    async with connected(served.path) as raw:
        call = await raw.start(path)
        await raw.send(call, struct.pack(">BI", 0, 100) + b"x" * 10, end=True)
        status, message = await raw.status(call)
    assert status == "3"
    assert "in the middle of a message" in message


async def test_empty_frames_within_a_message_change_nothing(served: Served) -> None:
    async with connected(served.path) as raw:
        call = await raw.start(ACQUIRE)
        for byte in framed(wire.AcquireRequest(profile="none")):
            await raw.send(call)
            await raw.send(call, bytes([byte]))
        await raw.send(call, end=True)
        assert (await raw.status(call))[0] == "5"


async def test_more_calls_than_allowed_end_the_connection(served: Served) -> None:
    async with connected(served.path) as raw:
        await raw.receive()
        raw.http2.remote_settings.update({0x3: 1000})
        raw.http2.remote_settings.acknowledge()
        for _ in range(120):
            await raw.start(EXEC)
        await raw.hung_up()


async def test_pings_whose_answers_nobody_reads_are_not_collected(served: Served) -> None:
    """Who sends so many of them without end is hung up on."""
    async with connected(served.path) as raw:
        ping = frame(0x06, b"12345678") * 1000
        sent = 0
        with trio.fail_after(20), pytest.raises(trio.BrokenResourceError):
            while sent < 64 * 1024 * 1024:
                await raw.stream.send_all(ping)
                sent += len(ping)
        assert sent < 8 * 1024 * 1024


async def test_a_flood_of_resets(served: Served) -> None:
    async with connected(served.path) as raw:
        for _ in range(300):
            call = await raw.start(EXEC)
            raw.http2.reset_stream(call)
            await raw.flush()
        call = await raw.request(STATUS, wire.StatusRequest())
        assert (await raw.status(call))[0] == "0"


async def test_data_beyond_the_window_ends_the_connection(served: Served) -> None:
    stdin = framed(wire.ExecRequest(stdin=b"x" * 16000))
    async with served.client() as client, client.lease() as vm, connected(served.path) as raw:
        call = await raw.start(EXEC)
        start = wire.ExecStart(lease_id=vm.lease_id, argv=["sleep", "1000"])
        await raw.send(call, framed(wire.ExecRequest(start=start)))
        with trio.fail_after(20):
            try:
                while not raw.closed:
                    await raw.stream.send_all(frame(0x00, stdin, stream=call) * 8)
            except trio.BrokenResourceError:
                pass
    assert served.server.statistics().violations == 1


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_binary_metadata_that_is_none_is_nobodys_business(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(served.path) as raw:
        call = await raw.request(STATUS, wire.StatusRequest(), headers={"x-bin": "A"})
        assert (await raw.status(call))[0] == "0"
    assert errors(caplog) == []


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_a_health_call_without_a_request_is_the_callers_fault(
    served: Served, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(served.path) as raw:
        call = await raw.start(f"/grpc.health.v1.Health/{method}")
        await raw.send(call, end=True)
        assert await raw.status(call) == ("3", "request: is missing; send one message")
    assert errors(caplog) == []


async def test_clients_that_send_nonsense_and_leave_at_once_fill_no_log(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Their calls fail by themselves in the moment in which the connection ends."""
    headers = raw_headers(ACQUIRE)
    nonsense = struct.pack(">BI", 0, 3) + b"\xff\xff\xff"
    for _ in range(10):
        async with await trio.open_unix_socket(str(served.path)) as stream:
            await stream.send_all(
                PREFACE + frame(0x04) + frame(0x01, headers, flags=4, stream=1) + frame(0x00, nonsense, stream=1)
            )
            await stream.send_eof()
            while await stream.receive_some():
                pass
    assert errors(caplog) == []


async def test_connections_and_watches_leave_no_timers_behind(served: Served) -> None:
    """asyncio keeps a timer that was cancelled until it is due, or until a hundred are."""

    def timers() -> int:
        gc.collect()
        return sum(isinstance(found, asyncio.TimerHandle) for found in gc.get_objects())

    before = timers()
    for _ in range(5):
        async with connected(served.path) as raw:
            call = await raw.start("/grpc.health.v1.Health/Watch")
            await raw.send(call, struct.pack(">BI", 0, 9) + b"\x0a\x07nothing")
            while not raw.data.get(call):
                await raw.receive()
    await served.until(lambda: served.server.statistics().connections == 0)
    assert timers() == before
