"""Whatever bytes come, the service lives, nothing is leased, and nobody else notices."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.rpc.raw import ACQUIRE, EXEC, RELEASE, STATUS, connected
from tests.unit.rpc.served import serving
from vmpool.client import open_client

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame of any type, with a length that is right, in most cases."""
    payload = draw(st.binary(max_size=40))
    length = draw(st.sampled_from([len(payload)] * 5 + [0, 2**24 - 1]))
    kind = draw(st.sampled_from([*range(11), 0x77]))
    head = struct.pack(">BBI", kind, draw(st.integers(0, 255)), draw(st.sampled_from([0, 1, 1, 2, 3, 2**31])))
    return struct.pack(">I", length)[1:] + head + payload


@settings(max_examples=150, deadline=None)
@given(st.lists(frames(), max_size=6), st.booleans())
def test_any_frames(sequence: list[bytes], preface: bool) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as home:
            async with serving(Path(home), size=1) as served, open_client(served.path) as bystander:
                async with await trio.open_unix_socket(str(served.path)) as stream:
                    try:
                        await stream.send_all((PREFACE if preface else b"") + b"".join(sequence) or b"\0")
                        await trio.testing.wait_all_tasks_blocked()
                    except trio.BrokenResourceError:
                        pass
                await bystander.status()
                await served.until(served.lost)

    trio.run(main)


@settings(max_examples=150, deadline=None)
@given(
    path=st.sampled_from([ACQUIRE, EXEC, RELEASE, STATUS]),
    pieces=st.lists(st.binary(max_size=30), max_size=4),
    framed=st.booleans(),
    end=st.booleans(),
)
def test_any_message(path: str, pieces: list[bytes], framed: bool, end: bool) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as home:
            async with serving(Path(home), size=1) as served, open_client(served.path) as bystander:
                async with connected(served.path) as raw:
                    call = await raw.start(path)
                    for piece in pieces:
                        await raw.send(call, struct.pack(">BI", 0, len(piece)) + piece if framed else piece)
                    if end:
                        await raw.send(call, end=True)
                        await raw.status(call)
                await bystander.status()
                for lease in served.coordinator.leases():  # a well-formed Acquire that was read to its end
                    assert path == ACQUIRE
                    await served.coordinator.release(lease.lease_id, owner=lease.owner)
                await served.until(served.lost)

    trio.run(main)
