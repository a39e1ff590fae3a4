"""A user at the maximum of one limit, or beyond it: a process of its own.

    python -m bench.noise WHAT SOCKET UID GID

becomes that user, writes "full" to stdout once the service refuses more, and goes on asking for more until its stdin
ends. Each kind misbehaves in one way, so the client speaks HTTP/2 by hand.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes
from hpack import Encoder

from vmpool.client import OnEmpty, open_client
from vmpool.wire.generated.vmpool import v1 as wire

FULL: Final = b"full\n"
WAITING_PROFILE: Final = "scarce"
"""A profile with one VM, so that all other requests wait. The service limits how many of one user may wait."""

EXEC_PROFILE: Final = "noisy"

_CONNECTIONS: Final = 256
_CALLS: Final = 1064
_CALLS_PER_CONNECTION: Final = 100
_EXECS: Final = 256
_EXECS_PER_VM: Final = 128
_WATCHERS: Final = 64
_LARGE: Final = 4
_LARGE_BYTES: Final = 4 * 2**20 - 4096
_WAITING: Final = 990
_STDIN_BYTES: Final = 200 * 1024
_PAUSE_S: Final = 0.25
_LARGEST_WINDOW: Final = 2**31 - 1
_AT_ONCE: Final = 50
"""Frames of a storm per write."""

_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE, _CONTINUATION, _UNKNOWN = (
    *range(5),
    *(6, 8, 9, 0x77),
)
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _head(path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


def _framed(message: Any) -> bytes:
    body = bytes(message)
    return struct.pack(">BI", 0, len(body)) + body


@attrs.define(eq=False)
class _Client:
    """One connection. It reads only in `receive`."""

    stream: trio.SocketStream
    http2: H2Connection = attrs.field(factory=lambda: H2Connection(config=H2Configuration(header_encoding="utf-8")))
    over: set[int] = attrs.field(factory=set)
    answered: set[int] = attrs.field(factory=set)

    async def begin(self, *, window: int) -> None:
        self.http2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
        self.http2.initiate_connection()
        if window > 2**16:
            self.http2.increment_flow_control_window(window - 2**16)
        await self._flush()
        await self.receive()

    async def call(self, method: str, message: Any = None, *, end: bool = True) -> int:
        """Without a message, the call's message never comes."""
        number = int(self.http2.get_next_available_stream_id())
        self.http2.send_headers(number, _head(f"/vmpool.v1.Pool/{method}"))
        await self._flush()
        if message is not None:
            await self.send(number, _framed(message), end=end)
        return number

    async def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        """As far as the service takes it, unless the call ends before."""
        while data and number not in self.over:
            size = min(len(data), self.http2.local_flow_control_window(number), self.http2.max_outbound_frame_size)
            if size <= 0:
                await self.receive()
                continue
            self.http2.send_data(number, data[:size])
            data = data[size:]
            await self._flush()
        if end and number not in self.over:
            self.http2.end_stream(number)
            await self._flush()

    async def receive(self) -> None:
        """Reads the next data. Raises trio.BrokenResourceError at the end."""
        data = await self.stream.receive_some(2**14)
        if not data:
            raise trio.BrokenResourceError
        for event in self.http2.receive_data(data):
            if isinstance(event, DataReceived):
                self.answered.add(event.stream_id)
            elif isinstance(event, StreamEnded | StreamReset):
                self.over.add(event.stream_id)
        await self._flush()

    async def until_over(self, number: int) -> None:
        while number not in self.over:
            await self.receive()

    async def _flush(self) -> None:
        await self.stream.send_all(self.http2.data_to_send())


@attrs.frozen(kw_only=True)
class Noise:
    """The means of every kind."""

    path: Path
    stack: contextlib.AsyncExitStack
    full: Callable[[], None]

    async def connect(self, *, window: int = 2**16 - 1) -> _Client:
        """Tries until the service lets it in: a user who was just too loud is refused."""
        while True:
            async with contextlib.AsyncExitStack() as stack:
                client = _Client(await stack.enter_async_context(await trio.open_unix_socket(str(self.path))))
                with contextlib.suppress(trio.BrokenResourceError):
                    await client.begin(window=window)
                    self.stack.push_async_exit(stack.pop_all())
                    return client
            await trio.sleep(_PAUSE_S)


async def _again_and_again(once: Callable[[], Awaitable[object]]) -> None:
    while True:
        with contextlib.suppress(trio.BrokenResourceError):
            await once()
        await trio.lowlevel.checkpoint()


async def _connections(noise: Noise) -> None:
    for _ in range(_CONNECTIONS):
        await noise.connect()
    noise.full()

    async def one_more() -> None:
        async with await trio.open_unix_socket(str(noise.path)) as stream:
            await stream.send_all(_PREFACE + _frame(_SETTINGS))
            while await stream.receive_some():
                pass

    await _again_and_again(one_more)


async def _calls(noise: Noise) -> None:
    for start in range(0, _CALLS, _CALLS_PER_CONNECTION):
        client = await noise.connect()
        for number in range(start, min(start + _CALLS_PER_CONNECTION, _CALLS)):
            # Calls that return something make room for more.
            await client.call("Release" if number >= _CALLS - 64 else "Exec")
    noise.full()
    client = await noise.connect()
    await _again_and_again(partial(_refused, noise, "Status", wire.StatusRequest()))


async def _refused(noise: Noise, method: str, message: Any) -> None:
    """Repeats a call on a connection of its own, until that is closed."""
    async with await trio.open_unix_socket(str(noise.path)) as stream:
        client = _Client(stream)
        await client.begin(window=2**16 - 1)
        while True:
            await client.until_over(await client.call(method, message))


async def _acquires(noise: Noise) -> None:
    small = wire.AcquireRequest(profile=WAITING_PROFILE)
    file = wire.GuestFile(path="/root/file", data=bytes(_LARGE_BYTES))
    large = wire.AcquireRequest(profile=WAITING_PROFILE, files=[file])
    async with open_client(noise.path) as client, client.lease(profile=WAITING_PROFILE):
        for _ in range(_LARGE):
            await (await noise.connect()).call("Acquire", large)
        for _ in range(0, _WAITING, _CALLS_PER_CONNECTION - 10):
            raw = await noise.connect()
            for _ in range(_CALLS_PER_CONNECTION - 10):
                await raw.call("Acquire", small)
        noise.full()
        await _again_and_again(partial(_refused, noise, "Acquire", large))


async def _execs(noise: Noise) -> None:
    """One command on each connection, so that each connection has a full buffer."""
    script = "cat /dev/zero >&2 & exec cat /dev/zero"
    async with open_client(noise.path) as client, contextlib.AsyncExitStack() as leases:
        for _ in range(0, _EXECS, _EXECS_PER_VM):
            vm = await leases.enter_async_context(client.lease(profile=EXEC_PROFILE, on_empty=OnEmpty.BOOT))
            request = wire.ExecRequest(start=wire.ExecStart(lease_id=vm.lease_id, argv=["sh", "-c", script]))
            for _ in range(_EXECS_PER_VM - 1):
                raw = await noise.connect(window=_LARGEST_WINDOW)
                call = await raw.call("Exec", request, end=False)
                while call not in raw.answered | raw.over:
                    await raw.receive()
                with trio.move_on_after(_PAUSE_S / 25):
                    await raw.send(call, _framed(wire.ExecRequest(stdin=bytes(_STDIN_BYTES))))
        noise.full()
        await trio.sleep_forever()


async def _watchers(noise: Noise) -> None:
    client = await noise.connect()
    for _ in range(_WATCHERS):
        await client.call("Watch", wire.WatchRequest())
    noise.full()
    await _again_and_again(partial(_refused, noise, "Watch", wire.WatchRequest()))


# -- storms ------------------------------------------------------------------------------------------------------------


def _frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


_BLOCK: Final = bytes(Encoder().encode(_head("/vmpool.v1.Pool/Exec"), huffman=False))


def _opened(number: int, *, flags: int = 4) -> bytes:
    return _frame(_HEADERS, _BLOCK, flags=flags, stream=1 + 2 * number)


STORMS: Final[Mapping[str, Callable[[int], bytes]]] = {
    "rapid-reset": lambda number: _opened(number) + _frame(_RST_STREAM, bytes(4), stream=1 + 2 * number),
    "continuation": lambda number: (
        _opened(number, flags=0)
        + _frame(_CONTINUATION, stream=1 + 2 * number) * 50
        + _frame(_CONTINUATION, flags=4, stream=1 + 2 * number)
    ),
    "windows-beyond-the-limit": lambda number: (
        _opened(number) + _frame(_WINDOW_UPDATE, struct.pack(">I", _LARGEST_WINDOW), stream=1 + 2 * number)
    ),
    "empty-data": lambda number: (_opened(0) if number == 0 else b"") + _frame(_DATA, stream=1),
    "settings": lambda _: _frame(_SETTINGS, struct.pack(">HI", 0x99, 1) * 2700),
    "ping": lambda _: _frame(_PING, bytes(8)),
    "priority": lambda _: _frame(_PRIORITY, struct.pack(">IB", 0, 1), stream=1),
    "window-update": lambda _: _frame(_WINDOW_UPDATE, struct.pack(">I", 1)),
    "unknown": lambda _: _frame(_UNKNOWN, bytes(100)),
}


async def _storm(noise: Noise, *, more: Callable[[int], bytes]) -> None:
    async def once() -> None:
        async with await trio.open_unix_socket(str(noise.path)) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(_read_all, stream, nursery.cancel_scope)
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(_PREFACE + _frame(_SETTINGS))
                for start in range(0, 2**29, _AT_ONCE):
                    await stream.send_all(b"".join(map(more, range(start, start + _AT_ONCE))))

    await once()
    noise.full()
    await _again_and_again(once)


async def _read_all(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass
    scope.cancel(reason="hung up on")


LIMITS: Final[Mapping[str, Callable[[Noise], Awaitable[None]]]] = {
    "connections": _connections,
    "calls": _calls,
    "acquires": _acquires,
    "execs": _execs,
    "watchers": _watchers,
}

KINDS: Final[Mapping[str, Callable[[Noise], Awaitable[None]]]] = {
    **LIMITS,
    **{f"storm-{name}": partial(_storm, more=more) for name, more in STORMS.items()},
}


async def _main(what: str, path: Path) -> None:
    def full() -> None:
        sys.stdout.buffer.write(FULL)
        sys.stdout.buffer.flush()

    async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
        noise = Noise(path=path, stack=stack, full=full)
        nursery.start_soon(KINDS[what], noise)
        stdin = await stack.enter_async_context(trio.lowlevel.FdStream(os.dup(0)))
        while await stdin.receive_some():
            pass
        nursery.cancel_scope.cancel(reason="it was enough")


if __name__ == "__main__":
    _what, _socket, _uid, _gid = sys.argv[1:]
    os.setgroups([])
    os.setgid(int(_gid))
    os.setuid(int(_uid))  # only now: this user may not be able to read the checkout
    trio.run(_main, _what, Path(_socket))
