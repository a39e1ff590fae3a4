"""The buffer in front of a call's messages."""

from __future__ import annotations

import struct

import pytest
import trio
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pool.rpc.framing import MessageBuffer
from vmpool.wire.crossing import open_loop

LIMIT = 1000


class Window:
    """The flow-control window of a call."""

    def __init__(self) -> None:
        self.acknowledged = 0

    def acknowledge(self, size: int) -> None:
        self.acknowledged += size


async def read_message(buffer: MessageBuffer) -> bytes:
    header = await buffer.read(5)
    return await buffer.read(struct.unpack(">I", header[1:])[0]) if header else b"(end)"


async def refused(data: bytes, *, end: bool = False) -> GRPCError:
    async with open_loop() as loop:
        buffer = MessageBuffer(acknowledge=lambda _: None, limit=LIMIT)
        buffer.add(data, len(data))
        if end:
            buffer.eof()
        with pytest.raises(GRPCError) as error:
            await loop.run(read_message, buffer)
    return error.value


async def test_a_message_that_is_too_large_is_refused_by_its_header_alone() -> None:
    error = await refused(struct.pack(">BI", 0, 2**32 - 1))
    assert error.status is Status.RESOURCE_EXHAUSTED
    assert "4294967295 bytes; the maximum is 1000" in str(error.message)


async def test_a_compressed_message_is_refused() -> None:
    error = await refused(struct.pack(">BI", 1, 3))
    assert (error.status, error.message) == (
        Status.UNIMPLEMENTED,
        "compressed messages are not supported; send them uncompressed",
    )


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0\0", b"\0\0\0\0\5", b"\0\0\0\0\5abcd"])
async def test_an_end_in_the_middle_of_a_message_is_refused(data: bytes) -> None:
    error = await refused(data, end=True)
    assert error.status is Status.INVALID_ARGUMENT
    assert "in the middle" in str(error.message)


async def test_the_largest_message_passes_and_the_client_may_send_it_all() -> None:
    window = Window()
    async with open_loop() as loop, trio.open_nursery() as nursery:
        buffer = MessageBuffer(acknowledge=window.acknowledge, limit=LIMIT)
        got = []

        async def read() -> None:
            got.append(await loop.run(read_message, buffer))
            got.append(await loop.run(read_message, buffer))

        nursery.start_soon(read)
        sent = 0
        for byte in struct.pack(">BI", 0, LIMIT) + b"x" * LIMIT:
            buffer.add(bytes([byte]), 3)  # 2 bytes of padding
            sent += 3
            await trio.testing.wait_all_tasks_blocked()
            assert window.acknowledged == sent  # the reader wants more, so nothing may be held back
        buffer.eof()
    assert got == [b"x" * LIMIT, b"(end)"]


async def test_what_nobody_reads_is_not_acknowledged_until_the_call_is_over() -> None:
    window = Window()
    async with open_loop() as loop:
        buffer = MessageBuffer(acknowledge=window.acknowledge, limit=LIMIT)
        buffer.add(struct.pack(">BI", 0, 1) + b"x" + b"y" * 50, 56)
        await loop.run(read_message, buffer)
        assert window.acknowledged == 6
        assert buffer.unacked_size() == 50
        assert buffer.unacked_size() == 0
