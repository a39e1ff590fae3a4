"""Connections to and from programs beside the agent."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from tests.agents import LocalAgent, Narrow
from tests.unit.guest.test_session import hello_reply, read_hello
from vmm.contract.streams import ByteSource, ByteStream
from vmm.errors import AgentProtocolError, AgentRequestError, AgentUnreachableError
from vmm.guest.agent import sockets, values, wire
from vmm.guest.client import AgentClient
from vmm.words.commands import CommandSpec
from vmm.words.ports import GuestAddress, TcpAddress, UnixAddress

MIB = 2**20

HOSTS = ["127.0.0.1", "::1"]

Handler = Callable[[trio.SocketStream], object]


async def read_all(source: ByteSource) -> bytes:
    received = bytearray()
    while data := await source.receive():
        received += data
    return bytes(received)


async def read_stream(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    async for data in stream:
        received += data
    return bytes(received)


async def send_whole(stream: ByteStream, data: bytes) -> None:
    await stream.send(data)
    await stream.send_eof()


@pytest.fixture
async def listener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[trio.SocketListener]:
    family = getattr(request, "param", "127.0.0.1")
    if family == "unix":
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(str(tmp_path / "server"))
    else:
        sock = trio.socket.socket(trio.socket.AF_INET6 if ":" in family else trio.socket.AF_INET)
        await sock.bind((family, 0))
    sock.listen(256)
    async with trio.SocketListener(sock) as listener:
        yield listener


def address_of(listener: trio.SocketListener) -> GuestAddress:
    name = listener.socket.getsockname()
    return UnixAddress(path=name.encode()) if isinstance(name, str) else TcpAddress(host=name[0], port=name[1])


def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


async def echo(stream: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        await _echo(stream)


async def _echo(stream: trio.SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()


@pytest.mark.parametrize("listener", ["127.0.0.1", "::1", "unix"], indirect=True)
async def test_what_goes_in_comes_back(
    client: AgentClient, listener: trio.SocketListener, nursery: trio.Nursery
) -> None:
    nursery.start_soon(partial(trio.serve_listeners, echo, [listener]))
    data = os.urandom(3 * MIB) + wire.MARKER
    connection = await client.ports.connect(address_of(listener))
    nursery.start_soon(send_whole, connection, data)
    assert await read_all(connection) == data
    assert await connection.receive() == b""
    await connection.aclose()


async def test_the_peer_may_end_first_and_still_take_input(
    client: AgentClient, listener: trio.SocketListener, nursery: trio.Nursery
) -> None:
    heard: list[bytes] = []
    done = trio.Event()

    async def greet(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"hello")
            await stream.send_eof()
            heard.append(await read_stream(stream))
        done.set()

    nursery.start_soon(partial(trio.serve_listeners, greet, [listener]))
    connection = await client.ports.connect(address_of(listener))
    assert await read_all(connection) == b"hello"
    await send_whole(connection, bytes(MIB))
    await connection.aclose()
    await done.wait()
    assert heard == [bytes(MIB)]


async def test_a_peer_that_resets_is_told_after_what_it_sent(
    client: AgentClient, listener: trio.SocketListener, nursery: trio.Nursery
) -> None:
    async def abort(stream: trio.SocketStream) -> None:
        await stream.send_all(b"last words")
        await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    nursery.start_soon(partial(trio.serve_listeners, abort, [listener]))
    connection = await client.ports.connect(address_of(listener))
    assert await connection.receive() == b"last words"
    await connection.send(b"?")
    with pytest.raises(AgentRequestError) as caught:
        await connection.receive()
    assert (caught.value.request, caught.value.code) == ("connect", "ECONNRESET")
    await connection.aclose()


@pytest.mark.parametrize("listener", ["127.0.0.1", "unix"], indirect=True)
async def test_a_peer_that_takes_no_more_costs_the_sender_an_error_and_no_wait(
    client: AgentClient, listener: trio.SocketListener, nursery: trio.Nursery
) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.send_all(b"too long")
        await stream.aclose()

    nursery.start_soon(partial(trio.serve_listeners, refuse, [listener]))
    connection = await client.ports.connect(address_of(listener))
    with pytest.raises(AgentRequestError) as caught:
        while True:
            await connection.send(bytes(MIB))
    assert caught.value.code in ("EPIPE", "ECONNRESET")
    await connection.aclose()


async def test_a_connection_that_is_closed_early_is_reset(
    client: AgentClient, listener: trio.SocketListener, local_agent: LocalAgent
) -> None:
    """Its peer must not take a part for the whole."""
    before = local_agent.descriptors()
    connection = await client.ports.connect(address_of(listener))
    peer = await listener.accept()
    await connection.send(b"half of it")
    assert await peer.receive_some() == b"half of it"
    await connection.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await peer.receive_some()
    await peer.aclose()
    assert local_agent.descriptors() == before
    with pytest.raises(trio.ClosedResourceError):
        await connection.send(b"more")


@pytest.mark.parametrize(
    "address",
    [
        UnixAddress(path=b"relative"),
        UnixAddress(path=b"/" + b"x" * 107),
        UnixAddress(path=b"/with\0nul"),
        TcpAddress(port=0),
        TcpAddress(port=80, host="localhost"),
        TcpAddress(port=80, host=""),
        TcpAddress(port=80, host="fe80::1%lo"),
        TcpAddress(port=80, host="127.0.0.1\0"),
    ],
)
@pytest.mark.parametrize("operation", ["connect", "wait"])
async def test_what_is_no_address(client: AgentClient, address: GuestAddress, operation: str) -> None:
    with pytest.raises(AgentRequestError, match=r"host: |port: |path: ") as caught:
        await (client.ports.connect(address) if operation == "connect" else client.ports.wait(address))
    assert caught.value.code == "BAD_REQUEST"


@pytest.mark.parametrize(("path", "code"), [(b"/no/such/socket", "ENOENT"), (b"/dev/null", "ECONNREFUSED")])
async def test_a_path_where_nobody_listens(client: AgentClient, path: bytes, code: str) -> None:
    with pytest.raises(AgentRequestError, match=os.fsdecode(path)) as caught:
        await client.ports.connect(UnixAddress(path=path))
    assert caught.value.code == code


async def test_a_port_where_nobody_listens(client: AgentClient, local_agent: LocalAgent) -> None:
    before = local_agent.descriptors()
    port = unused_port()
    with pytest.raises(AgentRequestError, match=f"127.0.0.1 port {port}: Connection refused") as caught:
        await client.ports.connect(TcpAddress(port=port))
    assert caught.value.code == "ECONNREFUSED"
    assert local_agent.descriptors() == before


def test_a_socket_that_the_kernel_connected_to_itself_is_no_connection() -> None:
    """It may, if it chooses for this end the port at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        assert sockets._defect(sock) == errno.ECONNREFUSED


async def test_a_backlog_that_is_full_is_waited_for(client: AgentClient, tmp_path: Path, nursery: trio.Nursery) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(tmp_path / "busy"))
        busy.listen(0)
        first.connect(str(tmp_path / "busy"))
        reached = trio.Event()

        async def connect() -> None:
            connection = await client.ports.connect(UnixAddress(path=bytes(tmp_path / "busy")))
            await connection.aclose()
            reached.set()

        nursery.start_soon(connect)
        await client.ping()
        assert not reached.is_set()
        busy.accept()[0].close()
        await reached.wait()


async def test_input_that_the_peer_does_not_read_waits_on_the_senders_side(
    client: AgentClient, listener: trio.SocketListener, local_agent: LocalAgent, nursery: trio.Nursery
) -> None:
    connection = await client.ports.connect(address_of(listener))
    peer = await listener.accept()
    data = os.urandom(24 * MIB)
    nursery.start_soon(send_whole, connection, data)
    await client.ping()
    before = local_agent.resident_kib("VmRSS")
    assert await read_stream(peer) == data
    assert local_agent.resident_kib() < before + 4 * 1024
    await peer.aclose()
    await connection.aclose()


async def test_a_reader_that_pauses_holds_up_only_its_own_connection(
    client: AgentClient, listener: trio.SocketListener, nursery: trio.Nursery
) -> None:
    async def flood(stream: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(MIB))
        await stream.aclose()

    nursery.start_soon(partial(trio.serve_listeners, flood, [listener]))
    room = Narrow()
    stuck = await client.ports.connect(address_of(listener), room=room)
    assert len(await stuck.receive()) <= room.window
    for _ in range(20):
        await client.ping()
    await stuck.aclose()


async def test_there_may_be_two_hundred_at_once_and_an_end(
    client: AgentClient, listener: trio.SocketListener, local_agent: LocalAgent, nursery: trio.Nursery
) -> None:
    before = local_agent.descriptors()
    nursery.start_soon(partial(trio.serve_listeners, echo, [listener]))

    async def exchange(number: int) -> None:
        data = bytes([number]) * 40_000
        connection = await client.ports.connect(address_of(listener))
        async with trio.open_nursery() as sending:
            sending.start_soon(send_whole, connection, data)
            assert await read_all(connection) == data
        await connection.aclose()

    async with trio.open_nursery() as exchanging:
        for number in range(200):
            exchanging.start_soon(exchange, number)
    open_ = [await client.ports.connect(address_of(listener)) for _ in range(256)]
    with pytest.raises(AgentRequestError, match="256 commands, files and connections are open") as caught:
        await client.ports.connect(address_of(listener))
    assert caught.value.code == errno.errorcode[errno.EBUSY]
    assert (await client.ping()).clock is not None
    await client.set_clock(1)
    await client.usage()
    for connection in open_:
        await connection.aclose()
    await client.ping()
    assert local_agent.descriptors() == before


async def test_connections_end_with_the_session(
    client: AgentClient, listener: trio.SocketListener, local_agent: LocalAgent
) -> None:
    connection = await client.ports.connect(address_of(listener))
    peer = await listener.accept()
    await client.aclose()
    with pytest.raises(AgentUnreachableError):
        await connection.receive()
    with pytest.raises(AgentUnreachableError):
        await connection.send(b"x")
    await connection.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await peer.receive_some()
    await peer.aclose()


# -- the reverse: programs there connect ---------------------------------------------------------------------------


async def connect_to(address: GuestAddress) -> trio.SocketStream:
    if isinstance(address, TcpAddress):
        return await trio.open_tcp_stream(address.host, address.port)
    return await trio.open_unix_socket(os.fsdecode(address.path))


def free_address(kind: str, directory: Path) -> GuestAddress:
    return UnixAddress(path=bytes(directory / "listener")) if kind == "unix" else TcpAddress(host=kind, port=0)


@pytest.mark.parametrize("kind", ["127.0.0.1", "::1", "unix"])
async def test_a_program_may_connect_to_the_host(
    client: AgentClient, tmp_path: Path, nursery: trio.Nursery, kind: str
) -> None:
    listener = await client.ports.listen(free_address(kind, tmp_path))
    if isinstance(listener.address, TcpAddress):
        assert listener.address.port > 0
    data = os.urandom(MIB)
    program = await connect_to(listener.address)
    number = await listener.accept()
    connection = await listener.take(number)
    nursery.start_soon(send_whole, connection, data)
    nursery.start_soon(echo, program)
    assert await read_all(connection) == data
    await connection.aclose()
    with pytest.raises(AgentRequestError, match="was taken") as caught:
        await listener.take(number)
    assert caught.value.code == "ENOENT"
    await listener.aclose()
    await client.ping()
    with pytest.raises(OSError, match=r"connect|refused|No such"):
        await connect_to(listener.address)
    assert names(tmp_path) == []


async def test_what_was_taken_outlives_the_listener_and_what_was_not_ends_with_it(
    client: AgentClient, local_agent: LocalAgent
) -> None:
    before = local_agent.descriptors()
    listener = await client.ports.listen(TcpAddress(port=0))
    programs = [await connect_to(listener.address) for _ in range(2)]
    taken = await listener.take(await listener.accept())
    other = await listener.accept()
    await listener.aclose()
    await taken.send(b"still here")
    assert await programs[0].receive_some() == b"still here"
    assert await programs[1].receive_some() == b""
    with pytest.raises(AgentRequestError):
        await listener.take(other)
    await taken.aclose()
    for program in programs:
        await program.aclose()
    await client.ping()
    assert local_agent.descriptors() == before


async def test_an_address_in_use(client: AgentClient, tmp_path: Path) -> None:
    path = UnixAddress(path=bytes(tmp_path / "socket"))
    for address in (TcpAddress(port=0), path):
        listener = await client.ports.listen(address)
        with pytest.raises(AgentRequestError, match="in use") as caught:
            await client.ports.listen(listener.address)
        assert (caught.value.request, caught.value.code) == ("listen", "EADDRINUSE")
        await listener.aclose()
    await (await client.ports.listen(path)).aclose()


async def test_a_socket_of_somebody_else_stays(client: AgentClient, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = await client.ports.listen(UnixAddress(path=bytes(path)))
    path.unlink()
    path.write_text("another's")
    await listener.aclose()
    await client.ping()
    assert path.read_text() == "another's"


async def test_only_so_many_connections_wait_to_be_taken(client: AgentClient, local_agent: LocalAgent) -> None:
    listener = await client.ports.listen(TcpAddress(port=0))
    before = local_agent.descriptors()
    programs = [await connect_to(listener.address) for _ in range(100)]
    first = [await listener.accept() for _ in range(64)]
    await client.ping()
    assert local_agent.descriptors() - before == 64, "the others wait in the kernel"
    for number in first:
        await (await listener.take(number)).aclose()
    assert [await listener.accept() for _ in range(36)] == list(range(65, 101))
    await listener.aclose()
    for program in programs:
        await program.aclose()


@pytest.mark.parametrize("agent_limits", [{"ports._TAKE_LIMIT_NS": 1}], indirect=True)
async def test_a_connection_that_nobody_takes_is_closed(client: AgentClient) -> None:
    listener = await client.ports.listen(TcpAddress(port=0))
    async with await connect_to(listener.address) as program:
        number = await listener.accept()
        assert await program.receive_some() == b""
    with pytest.raises(AgentRequestError, match="nobody took it in time") as caught:
        await listener.take(number)
    assert caught.value.code == "ENOENT"
    await listener.aclose()


# -- waiting for a server ------------------------------------------------------------------------------------------


async def test_a_server_that_listens_already_is_not_waited_for(
    client: AgentClient, listener: trio.SocketListener
) -> None:
    await client.ports.wait(address_of(listener))


@pytest.mark.parametrize("kind", ["127.0.0.1", "unix"])
async def test_a_server_that_listens_later_is_waited_for(
    client: AgentClient, tmp_path: Path, nursery: trio.Nursery, kind: str
) -> None:
    address = TcpAddress(port=unused_port()) if kind != "unix" else UnixAddress(path=bytes(tmp_path / "server"))
    reached = trio.Event()

    async def wait() -> None:
        await client.ports.wait(address)
        reached.set()

    nursery.start_soon(wait)
    await client.ping()
    assert not reached.is_set()
    listener = await client.ports.listen(address)
    await reached.wait()
    await listener.aclose()


async def test_a_wait_that_is_cancelled_ends_in_the_guest(client: AgentClient, local_agent: LocalAgent) -> None:
    before = local_agent.descriptors()
    for _ in range(300):  # more than may be open
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.ports.wait(UnixAddress(path=b"/no/such/socket"))
    await client.ping()
    assert local_agent.descriptors() == before


async def test_a_wait_for_what_can_never_be_is_refused(client: AgentClient, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "datagrams"))
        with pytest.raises(AgentRequestError) as caught:
            await client.ports.wait(UnixAddress(path=bytes(tmp_path / "datagrams")))
    assert caught.value.code == "EPROTOTYPE"


# -- fairness ------------------------------------------------------------------------------------------------------


async def test_an_answer_passes_two_hundred_connections_that_have_much_to_say(
    client: AgentClient, listener: trio.SocketListener, nursery: trio.Nursery
) -> None:
    """Counted in bytes that the agent sends before it, not in time: what it has read already is ahead of it."""
    connections = [await client.ports.connect(address_of(listener)) for _ in range(200)]
    peers = [await listener.accept() for _ in range(200)]

    async def talk(peer: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await peer.send_all(bytes(64 * 1024))

    received = 0

    async def listen(connection: ByteStream) -> None:
        nonlocal received
        while data := await connection.receive():
            received += len(data)

    async with trio.open_nursery() as talking:
        for peer, connection in zip(peers, connections, strict=True):
            talking.start_soon(talk, peer)
            talking.start_soon(listen, connection)
        while received < 8 * MIB:
            await trio.lowlevel.checkpoint()
        for _ in range(10):
            before = received
            command = await client.start_command(CommandSpec(argv=["true"]))
            assert received - before < 2 * MIB
            await command.aclose()
        talking.cancel_scope.cancel()
    for connection in connections:
        await connection.aclose()
    for peer in peers:
        await peer.aclose()


# -- what guests say -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def talking_to(
    answer: Callable[[int, dict[str, Any]], bytes], nursery: trio.Nursery
) -> AsyncIterator[AgentClient]:
    """A guest that says this to the request of a stream, and nothing of its own."""
    ours, theirs = memory_stream_pair()

    async def talk() -> None:
        await theirs.send_all(hello_reply(await read_hello(theirs)))
        decoder = wire.Decoder(max_message=wire.MAX_REQUEST)
        decoder.feed(wire.MARKER)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await theirs.receive_some():
                for kind, stream, payload in decoder.feed(bytes(data)):
                    if kind == wire.REQUEST:
                        await theirs.send_all(answer(stream, values.unpack(payload)))

    nursery.start_soon(talk)
    client = await AgentClient.connect(ours, nursery=nursery)
    yield client
    await client.aclose()


def reply(stream: int, **fields: object) -> bytes:
    return wire.encode(wire.REPLY, stream, values.pack(fields))


def said(stream: int, packed: bytes) -> bytes:
    return wire.encode_data(wire.STDOUT, stream, wire.COUNT.pack(len(packed)) + packed)


def connection_said(stream: int, number: object) -> bytes:
    return said(stream, values.pack({"connection": number}))


@pytest.mark.parametrize(
    "fields", [{}, {"window": 1}, {"window": "all"}, {"window": wire.WINDOW + 1}, {"window": None}], ids=str
)
async def test_a_window_that_was_not_requested(nursery: trio.Nursery, fields: dict[str, Any]) -> None:
    async with talking_to(lambda stream, _: reply(stream, **fields), nursery) as client:
        with pytest.raises(AgentProtocolError, match="window"):
            await client.ports.connect(TcpAddress(port=80))


@pytest.mark.parametrize("port", [None, "80", 0, -1, 65536, True, 8081], ids=str)
async def test_another_port_than_was_asked_for(nursery: trio.Nursery, port: object) -> None:
    async with talking_to(
        lambda stream, request: reply(stream, window=request["window"], port=port), nursery
    ) as client:
        with pytest.raises(AgentProtocolError, match="another port"):
            await client.ports.listen(TcpAddress(port=8080))
        with pytest.raises(AgentProtocolError):
            await client.ping()


@pytest.mark.parametrize(
    "lie",
    [
        lambda stream: connection_said(stream, 0),
        lambda stream: connection_said(stream, 2),
        lambda stream: connection_said(stream, -1),
        lambda stream: connection_said(stream, "1"),
        lambda stream: connection_said(stream, True),
        lambda stream: connection_said(stream, 1) * 2,
        lambda stream: said(stream, values.pack({})),
        lambda stream: said(stream, values.pack([1])),
        lambda stream: said(stream, b"?"),
        lambda stream: wire.encode_data(wire.STDOUT, stream, wire.COUNT.pack(2**32 - 1)),
        lambda stream: wire.encode_data(wire.STDERR, stream, b"x"),
        lambda stream: wire.encode(wire.CREDIT + wire.STDIN, stream, wire.COUNT.pack(1)),
        lambda stream: reply(stream, window=4096, port=8080),
        lambda stream: wire.encode_data(wire.STDOUT, stream, bytes(4097)),
    ],
)
async def test_connections_that_there_are_not(nursery: trio.Nursery, lie: Callable[[int], bytes]) -> None:
    def answer(stream: int, request: dict[str, Any]) -> bytes:
        return reply(stream, window=request["window"], port=8080) + lie(stream)

    async with talking_to(answer, nursery) as client:
        with pytest.raises(AgentProtocolError):
            listener = await client.ports.listen(TcpAddress(port=8080))
            while True:
                await listener.accept()


async def test_a_listener_that_the_guest_ends(nursery: trio.Nursery) -> None:
    def answer(stream: int, request: dict[str, Any]) -> bytes:
        return reply(stream, window=request["window"], port=8080) + wire.encode(wire.EOF + wire.STDOUT, stream)

    async with talking_to(answer, nursery) as client:
        listener = await client.ports.listen(TcpAddress(port=0))
        with pytest.raises(AgentRequestError, match="closed"):
            await listener.accept()
        await listener.aclose()


async def test_credit_that_comes_after_both_ends_is_no_breach(nursery: trio.Nursery) -> None:
    """The guest may give some before it hears of the end of the input. Connections end so again and again."""

    def answer(stream: int, request: dict[str, Any]) -> bytes:
        if request["op"] == "ping":
            return reply(stream, version=wire.VERSION, kernel="6.1")
        credit = wire.encode(wire.CREDIT + wire.STDIN, stream, wire.COUNT.pack(wire.WINDOW // 4))
        late[stream] = wire.encode(wire.EOF + wire.STDOUT, stream) + 4 * credit
        earlier = late.pop(stream - 1, b"")
        return reply(stream, window=wire.WINDOW) + earlier

    late: dict[int, bytes] = {}
    async with talking_to(answer, nursery) as client:
        for _ in range(100):
            connection = await client.ports.connect(TcpAddress(port=80))
            await send_whole(connection, bytes(wire.WINDOW))
        await client.ping()
