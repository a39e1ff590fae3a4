"""What is thrown at the socket does not end up in the service's memory."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import trio
from h2.exceptions import ProtocolError

from tests.unit.rpc.raw import ACQUIRE, EXEC, STATUS, RawClient, connected, framed
from vmpool.client import Output, open_client
from vmpool.wire.generated.vmpool import v1 as wire

MIB = 1024 * 1024
SERVICE = """
import sys, pathlib, trio
sys.path.insert(0, sys.argv[2])
from tests.unit.rpc.served import serving
async def main():
    async with serving(pathlib.Path(sys.argv[1]), size=1):
        await trio.sleep_forever()
trio.run(main)
"""


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


async def throw(raw: RawClient, data: bytes, *, total: int) -> None:
    """Sends without regard to anything; gives up when the service hangs up or takes no more."""
    try:
        for _ in range(total // len(data)):
            with trio.move_on_after(2) as patience:
                await raw.stream.send_all(data)
            if patience.cancelled_caught:
                return
    except trio.BrokenResourceError:
        return


async def one_message(raw: RawClient) -> None:
    call = await raw.start(ACQUIRE)
    await raw.send(call, struct.pack(">BI", 0, 2**32 - 1))
    await throw(raw, frame(0x00, b"x" * 16384, stream=call) * 16, total=300 * MIB)


async def one_message_in_good_manners(raw: RawClient) -> None:
    """Keeps to the windows, to the end of the call and beyond."""
    call = await raw.start(EXEC)
    await raw.send(call, framed(wire.ExecRequest(start=wire.ExecStart(lease_id="x", argv=["cat"]))))
    try:
        for _ in range(300 * MIB // 16384):
            while raw.http2.local_flow_control_window(call) < 16384:
                if not await raw.receive() or call in raw.over:
                    return
            await raw.send(call, b"x" * 16384)
    except (trio.BrokenResourceError, ProtocolError):
        return


async def no_request(raw: RawClient) -> None:
    await throw(raw, os.urandom(MIB), total=300 * MIB)


async def pings(raw: RawClient) -> None:
    await throw(raw, frame(0x06, b"12345678") * 50_000, total=300 * MIB)


async def settings(raw: RawClient) -> None:
    await throw(raw, frame(0x04, struct.pack(">HI", 1, 4096)) * 50_000, total=300 * MIB)


async def empty_frames(raw: RawClient) -> None:
    call = await raw.start(EXEC)
    await throw(raw, frame(0x00, stream=call) * 20_000, total=4 * MIB)


async def frames_of_one_byte(raw: RawClient) -> None:
    call = await raw.start(EXEC)
    await throw(raw, frame(0x00, b"\0", stream=call) * 20_000, total=20 * MIB)


async def a_frame_that_never_ends(raw: RawClient) -> None:
    await throw(raw, frame(0x00, b"x" * 0xFFFFFF, stream=1), total=300 * MIB)


async def headers_that_never_end(raw: RawClient) -> None:
    await raw.stream.send_all(frame(0x01, b"\x83", flags=0, stream=1))
    await throw(raw, frame(0x09, b"\0" * 16384, stream=1) * 16, total=300 * MIB)


async def calls_that_are_reset(raw: RawClient) -> None:
    await raw.receive()  # the service's windows
    try:
        for _ in range(9000):
            call = await raw.start(EXEC)
            await raw.send(call, b"\0\0\x40\0\0" + b"x" * 100)
            raw.http2.reset_stream(call)
            await raw.flush()
    except trio.BrokenResourceError:
        return


async def connections_that_come_and_go(raw: RawClient) -> None:
    for _ in range(1000):
        async with connected(Path(raw.stream.socket.getpeername())) as one:
            await one.status(await one.request(STATUS, wire.StatusRequest()))


async def output_that_nobody_reads(raw: RawClient) -> None:
    """With windows wide open."""
    await raw.receive()
    call = await raw.request(ACQUIRE, wire.AcquireRequest())
    await raw.status(call)
    lease_id = wire.AcquireReply.parse(raw.data[call][5:]).lease.lease_id  # type: ignore[union-attr]
    call = await raw.start(EXEC)
    await raw.send(call, framed(wire.ExecRequest(start=wire.ExecStart(lease_id=lease_id, argv=["yes"]))))
    raw.http2.increment_flow_control_window(2**30)
    raw.http2.increment_flow_control_window(2**30, call)
    await raw.flush()
    while len(raw.data.get(call, b"")) < MIB:
        await raw.receive()
    await trio.sleep(1)


async def output_of_100_mb(raw: RawClient) -> None:
    async with (
        open_client(raw.stream.socket.getpeername()) as client,
        client.lease() as vm,
        client.exec(vm.lease_id, ["yes"]) as command,
    ):
        received = 0
        async for event in command.events():
            assert isinstance(event, Output)
            received += len(event.data)
            if received > 100 * MIB:
                break


FLOODS: list[Callable[[RawClient], Awaitable[None]]] = [
    one_message,
    one_message_in_good_manners,
    no_request,
    pings,
    settings,
    empty_frames,
    frames_of_one_byte,
    a_frame_that_never_ends,
    headers_that_never_end,
    calls_that_are_reset,
    connections_that_come_and_go,
    output_that_nobody_reads,
    output_of_100_mb,
]


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
async def test_a_flood_leaves_the_service_small_and_well(
    vm_home: Path, flood: Callable[[RawClient], Awaitable[None]]
) -> None:
    path = vm_home / "pool.sock"
    root = str(Path(__file__).parents[3])
    async with trio.open_nursery() as nursery:
        process = await nursery.start(trio.run_process, [sys.executable, "-c", SERVICE, str(vm_home), root])
        async with open_client(path, wait_s=20) as client:
            async with client.lease():
                pass
            seen = psutil.Process(process.pid)
            before = peak = seen.memory_info().rss
            async with trio.open_nursery() as watch:

                async def measure() -> None:
                    nonlocal peak
                    while True:
                        peak = max(peak, seen.memory_info().rss)
                        await trio.sleep(0.02)

                watch.start_soon(measure)
                async with connected(path) as raw:
                    await flood(raw)
                async with client.lease():
                    pass
                watch.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    assert peak - before < 32 * MIB
