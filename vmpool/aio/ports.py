"""Connections to and from a guest, without a network."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from vmpool.client import methods
from vmpool.client.chunks import Chunks, pieces
from vmpool.client.connection import Connection
from vmpool.client.convert_guest import check_tcp, from_path, port_address
from vmpool.client.endings import finish
from vmpool.client.errors import CallError, CallTimeoutError, ClientError
from vmpool.client.exchange import Call
from vmpool.client.methods import Method
from vmpool.client.opening import Opening, Resource, internal
from vmpool.client.places import LocalPath
from vmpool.wire.generated.vmpool import v1 as wire

WAIT_PORT_S: Final = 30.0

BACKLOG: Final = 128

COMPLETE_LIMIT_S: Final = 5.0

READ_BYTES: Final = 64 * 1024


class ByteStream(Resource):
    """One connection to or from a guest. One task may send while another one receives. Raises ClientError."""

    def __init__(self, call: Call, request: type[Any]) -> None:
        self._call = call
        self._request = request
        self._sent_end = False
        self._received_end = False

    async def send(self, data: Chunks) -> None:
        """Waits while the other end does not read."""
        async for piece in pieces(data):
            await self._call.send(self._request(data=piece))

    async def send_eof(self) -> None:
        """No more data in this direction, as shutdown(2) has it."""
        if not self._sent_end:
            self._sent_end = True
            await self._call.send(self._request(end=wire.EndOfStream()))
            await self._call.end()

    async def receive(self) -> bytes:
        """The next bytes, as many as came at once; none at the end of this direction."""
        while not self._received_end:
            reply = await self._call.receive()
            if reply is None or reply.end is not None:
                self._received_end = True
            elif reply.data:
                data: bytes = reply.data
                return data
        return b""

    @internal
    async def complete(self) -> None:
        """Once both directions have ended, waits until the guest has all that was sent: resetting the call would drop
        what is still on its way.
        """
        if self._sent_end and self._received_end:
            with contextlib.suppress(ClientError, TimeoutError):
                async with asyncio.timeout(COMPLETE_LIMIT_S):
                    while await self._call.receive() is not None:
                        pass


class Forward(Resource):
    """A port of the guest on this host. `str(forward)` is "host:port", or the path."""

    def __init__(self, *, host: str, port: int, path: str) -> None:
        self._host = host
        self._port = port
        self._path = path

    def __str__(self) -> str:
        if self._path:
            return self._path
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    @property
    def host(self) -> str:
        """Empty for a Unix socket."""
        return self._host

    @property
    def port(self) -> int:
        """0 for a Unix socket."""
        return self._port

    @property
    def path(self) -> str:
        """Of the Unix socket; empty for a TCP port."""
        return self._path

    @property
    def address(self) -> tuple[str, int] | str:
        """As `socket.connect` wants it."""
        return self._path or (self._host, self._port)


class Ports:
    """The connections of a Vm."""

    def __init__(self, connection: Connection, lease_id: str) -> None:
        self._connection = connection
        self._lease_id = lease_id

    def connect_port(self, port_or_path: int | str, *, guest_host: str = "") -> Opening[ByteStream]:
        """A connection to a TCP port of the guest, on its loopback unless `guest_host` is another address of it, or to
        a Unix socket. GuestConnectionRefusedError if nobody listens there.
        """
        address = port_address(port_or_path, guest_host)

        async def begin(ends: contextlib.AsyncExitStack) -> ByteStream:
            start = wire.ConnectRequest(start=wire.ConnectStart(lease_id=self._lease_id, address=address))
            return await self._stream(ends, methods.CONNECT_PORT, start)

        return Opening(begin)

    async def wait_port(self, port_or_path: int | str, *, guest_host: str = "", timeout: float = WAIT_PORT_S) -> None:
        """Returns once a server in the guest accepts a connection. CallTimeoutError, which is a TimeoutError, if none
        does within `timeout` seconds.
        """
        request = wire.WaitPortRequest(lease_id=self._lease_id, address=port_address(port_or_path, guest_host))
        try:
            await self._connection.ask(methods.WAIT_PORT, request, timeout_s=timeout)
        except CallTimeoutError as error:
            what = f"port {port_or_path}" if isinstance(port_or_path, int) else port_or_path
            message = f"no server in the guest accepted a connection at {what} within {timeout:g} s"
            raise CallTimeoutError(status=error.status, message=message) from error

    def forward(
        self,
        port_or_path: int | str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: LocalPath | None = None,
        guest_host: str = "",
    ) -> Opening[Forward]:
        """Listens on this host, on a free port unless one is named, or on a Unix socket at `path`, and connects whoever
        comes to the guest's port, for the length of a block.

        Connections are as many at a time as the service allows; each direction ends by itself, and all end with the
        block. One that the guest refuses is closed. A socket at `path` is for this user only, and is removed at the
        end. OSError if the address cannot be had.
        """
        # What is wrong is refused here, not when somebody connects.
        port_address(port_or_path, guest_host)
        if path is None:
            check_tcp(host, port)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with self.connect_port(port_or_path, guest_host=guest_host) as stream:
                await _splice(stream, reader, writer)

        async def begin(ends: contextlib.AsyncExitStack) -> Forward:
            connections = _Connections()
            ends.push_async_callback(connections.aclose)
            sock = _listen_unix(Path(path), ends) if path is not None else await _listen_tcp(host, port)
            try:
                accept = connections.accepting(serve)
                server = (
                    await asyncio.start_server(accept, sock=sock, backlog=BACKLOG)
                    if path is None
                    else await asyncio.start_unix_server(accept, sock=sock, backlog=BACKLOG)
                )
            except BaseException:
                sock.close()
                raise
            ends.callback(server.close)
            if path is not None:
                return Forward(host="", port=0, path=os.fspath(path))
            name = sock.getsockname()
            return Forward(host=name[0], port=name[1], path="")

        return Opening(begin)

    def reverse(
        self, port_or_path: int | str, to: tuple[str, int] | LocalPath, *, guest_host: str = ""
    ) -> Opening[Forward]:
        """Listens in the guest, on a TCP port (0 for a free one) or a Unix socket, and connects whoever comes to
        `to`, an address on this host or the path of a Unix socket, for the length of a block. Gives the address in the
        guest.

        GuestError EADDRINUSE if it is in use. A connection that is refused on this host is closed.
        """
        # As above.
        if isinstance(to, tuple):
            check_tcp(*to)
        else:
            os.fspath(to)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: ByteStream) -> None:
            await _splice(stream, reader, writer)

        async def accept(connection_id: str) -> None:
            async with contextlib.AsyncExitStack() as ends:
                start = wire.AcceptRequest(start=wire.AcceptStart(connection_id=connection_id))
                stream = await self._stream(ends, methods.ACCEPT, start)
                if isinstance(to, tuple):
                    reader, writer = await asyncio.open_connection(*to)
                else:
                    reader, writer = await asyncio.open_unix_connection(os.fspath(to))
                try:
                    await serve(reader, writer, stream)
                finally:
                    writer.transport.abort()

        async def begin(ends: contextlib.AsyncExitStack) -> Forward:
            connections = _Connections()
            ends.push_async_callback(connections.aclose)
            call = await self._connection.open(methods.LISTEN)
            ends.push_async_callback(call.aclose)
            address = port_address(port_or_path, guest_host)
            await call.send_last(wire.ListenRequest(lease_id=self._lease_id, address=address))
            first = await call.receive()
            if first is None or first.listening is None:
                raise CallError(status="INTERNAL", message="the service did not say where it listens; see its log")

            async def listen() -> None:
                with contextlib.suppress(ClientError):  # the lease or the service has ended: nobody comes any more
                    while (reply := await call.receive()) is not None:
                        if reply.incoming is not None:
                            connections.start(functools.partial(accept, reply.incoming.connection_id))

            connections.start(listen)
            listening: wire.PortAddress = first.listening
            if listening.unix_path is not None:
                return Forward(host="", port=0, path=from_path(listening.unix_path))
            return Forward(host=listening.host or "127.0.0.1", port=listening.tcp_port or 0, path="")

        return Opening(begin)

    async def _stream(self, ends: contextlib.AsyncExitStack, method: Method, start: Any) -> ByteStream:
        call = await self._connection.open(method)
        ends.push_async_callback(call.aclose)
        await call.send(start)
        first = await call.receive()
        if first is None or first.connected is None:
            raise CallError(status="INTERNAL", message="the service did not connect; see its log")
        stream = ByteStream(call, method.request)
        ends.push_async_callback(stream.complete)
        return stream


class _Connections:
    """The tasks of what listens; an error ends one connection and no more."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(self._contain(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def accepting(
        self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._closed:
                writer.transport.abort()
                return
            # Not left to the task, since a task that is cancelled before its first step runs no code.
            serving = self.start(functools.partial(serve, reader, writer))
            serving.add_done_callback(lambda _: writer.transport.abort())

        return accept

    async def aclose(self) -> None:
        self._closed = True
        while tasks := set(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _contain(self, work: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(ClientError, OSError, UnicodeError):  # that of a name that no host can have
            await work()


async def _splice(stream: ByteStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries bytes both ways until both directions have ended, or one is broken."""

    async def outwards() -> None:
        while data := await reader.read(READ_BYTES):
            await stream.send(data)
        await stream.send_eof()

    async def inwards() -> None:
        while data := await stream.receive():
            writer.write(data)
            await writer.drain()
        await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    tasks = [asyncio.create_task(outwards()), asyncio.create_task(inwards())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
        writer.close()
        await writer.wait_closed()
    finally:
        for task in tasks:
            task.cancel()
        await finish(_ended(tasks))


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen; the first one was raised


async def _listen_tcp(host: str, port: int) -> socket.socket:
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, _, _, _, address = infos[0]
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_unix(path: Path, ends: contextlib.AsyncExitStack) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(os.fspath(path))
        ends.callback(path.unlink, missing_ok=True)
        path.chmod(0o600)  # before it listens: nobody else has connected
    except BaseException:
        sock.close()
        raise
    return sock
