"""A client that can do anything: HTTP/2 by hand on a trio socket."""

from __future__ import annotations

import contextlib
import struct
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import trio
from grpclib.const import Status
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from vmpool.wire.details import DetailsCodec, ErrorDetail

ACQUIRE = "/vmpool.v1.Pool/Acquire"
RELEASE = "/vmpool.v1.Pool/Release"
EXEC = "/vmpool.v1.Pool/Exec"
STATUS = "/vmpool.v1.Pool/Status"


def framed(message: Any) -> bytes:
    body = bytes(message)
    return struct.pack(">BI", 0, len(body)) + body


class RawClient:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http2 = H2Connection(
            config=H2Configuration(
                header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.headers: dict[int, dict[str, str]] = {}
        self.data: dict[int, bytes] = {}
        self.over: set[int] = set()
        self.told_to_go = False
        self.error_code: int | None = None
        """With which the server told us to go."""
        self.closed = False
        """The server has hung up."""

    async def begin(self) -> None:
        self.http2.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # the server has hung up; `receive` tells
            await self.stream.send_all(self.http2.data_to_send())

    async def start(self, path: str, *, headers: dict[str, str] | None = None) -> int:
        """Sends a request's headers."""
        call = self.http2.get_next_available_stream_id()
        wanted = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
            **(headers or {}),
        }
        self.http2.send_headers(call, [(name, value) for name, value in wanted.items() if value])
        await self.flush()
        return call

    async def send(self, call: int, data: bytes = b"", *, end: bool = False) -> None:
        self.http2.send_data(call, data, end_stream=end)
        await self.flush()

    async def send_all(self, call: int, data: bytes) -> None:
        """Sends data of any size, as the windows allow, and the end."""
        while data:
            size = min(self.http2.local_flow_control_window(call), self.http2.max_outbound_frame_size, len(data))
            if not size:
                await self.receive()
                continue
            await self.send(call, data[:size])
            data = data[size:]
        await self.send(call, end=True)

    async def request(self, path: str, message: Any, *, headers: dict[str, str] | None = None) -> int:
        call = await self.start(path, headers=headers)
        await self.send_all(call, framed(message))
        return call

    async def receive(self) -> bool:
        """Takes what comes next from the socket; False at the end."""
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError:
            data = b""
        if not data:
            self.closed = True
            return False
        for event in self.http2.receive_data(data):
            match event:
                case ResponseReceived() | TrailersReceived():
                    got = self.headers.setdefault(event.stream_id, {})
                    got.update((str(name), str(value)) for name, value in event.headers)
                case DataReceived():
                    self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
                    self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case ConnectionTerminated():
                    self.told_to_go, self.error_code = True, event.error_code
                case StreamEnded() | StreamReset():
                    self.over.add(event.stream_id)
        with contextlib.suppress(trio.BrokenResourceError):
            await self.flush()
        return True

    async def status(self, call: int) -> tuple[str, str]:
        """The status and message of a call, once it has ended; ("", "") if it was reset or the connection closed."""
        with trio.fail_after(20):
            while call not in self.over and await self.receive():
                pass
        got = self.headers.get(call, {})
        return got.get("grpc-status", ""), unquote(got.get("grpc-message", ""))

    async def replies(self, call: int, kind: type[Any]) -> list[Any]:
        """All replies of a call until it ends."""
        found = []
        while (reply := await self.message(call, kind)) is not None:
            found.append(reply)
        return found

    async def detail(self, call: int) -> ErrorDetail:
        """The one detail of the error that a call ended with."""
        await self.status(call)
        text = self.headers[call]["grpc-status-details-bin"]
        (detail,) = DetailsCodec().decode(Status.UNKNOWN, None, b64decode(text + "=" * (-len(text) % 4)))
        return detail

    async def reply(self, call: int, kind: type[Any]) -> Any:
        """The next reply of a call, which must come."""
        reply = await self.message(call, kind)
        assert reply is not None, await self.status(call)
        return reply

    async def message(self, call: int, kind: type[Any], *, limit_s: float = 20) -> Any | None:
        """The next reply of a call; None if it ends before."""
        body = await self.message_bytes(call, limit_s=limit_s)
        return None if body is None else kind.parse(body)

    async def message_bytes(self, call: int, *, limit_s: float = 20) -> bytes | None:
        """`message`, as it came."""
        with trio.fail_after(limit_s):
            while len(data := self.data.get(call, b"")) < 5 or len(data) < 5 + int.from_bytes(data[1:5], "big"):
                if call in self.over or not await self.receive():
                    return None
        size = int.from_bytes(data[1:5], "big")
        self.data[call] = data[5 + size :]
        return data[5 : 5 + size]

    async def hung_up(self) -> None:
        """Waits until the server has closed the connection."""
        with trio.fail_after(20):
            while await self.receive():
                pass


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[RawClient]:
    async with await trio.open_unix_socket(str(path)) as stream:
        client = RawClient(stream)
        await client.begin()
        yield client
