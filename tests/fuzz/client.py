"""Sends inputs, and judges how the service took each."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import hpack
import trio

from tests.fuzz.drawn import LEASE
from tests.fuzz.http2 import ACK, DATA, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, frame, greeting
from tests.fuzz.inputs import Call, Leaving, Stream

LIMIT_S: Final = 30.0
"""An answer that takes longer does not come."""

ROUND_TRIPS: Final = 5
"""So many the service gets to take up calls that will not end by themselves, before they are reset."""

_FRAME_HEAD: Final = 9
_GOAWAY_HEAD: Final = frame(GOAWAY)[3:]
_STATUSES: Final = frozenset(str(number) for number in range(17))
_UNKNOWN: Final = "2"
_BUG: Final = re.compile(r"internal(%20| )error|bug")


class FindingError(Exception):
    """The service took one input badly."""

    def __init__(self, index: int, what: str) -> None:
        super().__init__(f"input {index}: {what}")
        self.index = index


async def send_stream(path: Path, index: int, given: Stream) -> str:
    """Sends it on a connection of its own; says what came of it. Raises FindingError if that is not closed."""
    received = b""
    with trio.move_on_after(LIMIT_S) as limit:
        async with await trio.open_unix_socket(str(path)) as stream:
            try:
                await stream.send_all(given.data)
                if given.leaving is Leaving.READ:
                    await stream.send_eof()
                    while data := await stream.receive_some():
                        received += data
            except trio.BrokenResourceError:
                pass  # hung up on us
    if limit.cancelled_caught:
        raise FindingError(index, f"the connection was not closed within {LIMIT_S:g} s")
    if given.leaving is Leaving.CLOSE:
        return "connection left"
    return "connection refused" if _GOAWAY_HEAD in received else "connection served"


@attrs.define
class _Answer:
    headers: dict[str, str] = attrs.field(factory=dict)
    over: bool = False
    was_reset: bool = False


async def send_calls(path: Path, calls: Sequence[tuple[int, Call]], *, lease_id: str) -> Counter[str]:
    """Sends them all at once on one connection; counts how they ended.

    Raises FindingError for the first that was not answered as it should.
    """
    exchange = _Exchange(calls, lease_id=lease_id)
    try:
        with trio.fail_after(LIMIT_S):
            async with await trio.open_unix_socket(str(path)) as stream:
                await exchange.run(stream)
    except trio.TooSlowError:
        raise FindingError(exchange.first_open(), f"no answer within {LIMIT_S:g} s") from None
    except trio.BrokenResourceError:
        raise FindingError(exchange.first_open(), "the connection broke, or one of its neighbours did that") from None
    return exchange.judge()


class _Exchange:
    """One connection with its calls."""

    def __init__(self, calls: Sequence[tuple[int, Call]], *, lease_id: str) -> None:
        self._calls = {1 + 2 * number: call for number, call in enumerate(calls)}
        self._lease_id = lease_id.encode()
        self._answers = {stream: _Answer() for stream in self._calls}
        self._decoder = hpack.Decoder()
        self._buffer = bytearray()
        self._replies = bytearray()
        """What the protocol obliges us to send."""
        self._echoed = False

    def first_open(self) -> int:
        """The index of the first call that must end and has not; else that of the first call."""
        for stream, (index, call) in self._calls.items():
            if call.must_end and not self._answers[stream].over:
                return index
        return self._calls[1][0]

    async def run(self, stream: trio.SocketStream) -> None:
        sent = b"".join(call.frames(number) for number, (_, call) in self._calls.items())
        await stream.send_all(greeting() + sent.replace(LEASE.encode(), self._lease_id))
        while not all(self._answers[number].over for number, (_, call) in self._calls.items() if call.must_end):
            await self._receive(stream)
        for _ in range(ROUND_TRIPS):
            await self._round_trip(stream)
        resets = [
            frame(RST_STREAM, b"\0\0\0\x08", stream=number)
            for number, (_, call) in self._calls.items()
            if not (self._answers[number].over or call.reset)
        ]
        await stream.send_all(b"".join(resets))
        await self._round_trip(stream)

    async def _round_trip(self, stream: trio.SocketStream) -> None:
        self._echoed = False
        await stream.send_all(frame(PING, b"all read"))
        while not self._echoed:
            await self._receive(stream)

    async def _receive(self, stream: trio.SocketStream) -> None:
        data = await stream.receive_some()
        if not data:
            raise trio.BrokenResourceError
        self._buffer += data
        while len(self._buffer) >= _FRAME_HEAD:
            size = int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < _FRAME_HEAD + size:
                break
            kind, flags, number = struct.unpack(">BBI", self._buffer[3:_FRAME_HEAD])
            payload = bytes(self._buffer[_FRAME_HEAD : _FRAME_HEAD + size])
            del self._buffer[: _FRAME_HEAD + size]
            self._take(kind, flags, number, payload)
        if self._replies:
            replies, self._replies = bytes(self._replies), bytearray()
            await stream.send_all(replies)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        match kind:
            case _ if kind == SETTINGS and not flags & ACK:
                self._replies += frame(SETTINGS, flags=ACK)
            case _ if kind == PING and not flags & ACK:
                self._replies += frame(PING, payload, flags=ACK)
            case _ if kind == PING:
                self._echoed = True
            case _ if kind == GOAWAY:
                raise trio.BrokenResourceError
            case _ if kind == RST_STREAM:
                self._answers[number].over = self._answers[number].was_reset = True
            case _ if kind == HEADERS:
                self._answers[number].headers |= {
                    str(name): str(value) for name, value in self._decoder.decode(payload)
                }
                self._answers[number].over |= bool(flags & END_STREAM)
            case _ if kind == DATA:
                self._answers[number].over |= bool(flags & END_STREAM)

    def judge(self) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        for number, (index, call) in self._calls.items():
            answer = self._answers[number]
            status = answer.headers.get("grpc-status")
            if _BUG.search(answer.headers.get("grpc-message", "")):
                raise FindingError(index, f"an internal error: {answer.headers}")
            if status is not None and status not in _STATUSES:
                raise FindingError(index, f"the status {status}, which gRPC does not have")
            if call.plain and call.must_end and status in (None, _UNKNOWN):
                raise FindingError(index, f"no status that says what was wrong: {answer}")
            if answer.over:
                outcomes["call reset" if status is None else f"call ended with {status}"] += 1
            else:
                outcomes["call left"] += 1
        return outcomes
