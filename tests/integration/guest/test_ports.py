"""Connections to and from programs of a real guest."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.agents import collect, until
from tests.integration.guest.conftest import BOOT_LIMIT_S, qemu_argv
from tests.unit.guest.test_ports import read_all, send_whole
from vmm.errors import AgentRequestError, AgentUnreachableError
from vmm.guest.client import AgentClient
from vmm.initramfs.image import GuestImage
from vmm.words.commands import CommandExit, CommandSpec
from vmm.words.ports import GuestAddress, TcpAddress, UnixAddress

pytestmark = pytest.mark.qemu

HTTP = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler)
server.serve_forever()
"""

ECHO = """
import socket, sys, threading
family, address = (socket.AF_UNIX, sys.argv[1]) if len(sys.argv) == 2 else (
    socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, (sys.argv[1], int(sys.argv[2])))
listener = socket.socket(family)
listener.bind(address)
listener.listen(256)
def echo(peer):
    with peer:
        while data := peer.recv(65536):
            peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
while True:
    threading.Thread(target=echo, args=(listener.accept()[0],)).start()
"""

CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as peer:
    peer.sendall(b"who is there?")
    peer.shutdown(socket.SHUT_WR)
    print(b"".join(iter(lambda: peer.recv(65536), b"")).decode())
"""


@asynccontextmanager
async def running(guest: AgentClient, program: str, *arguments: str) -> AsyncIterator[None]:
    command = await guest.start_command(CommandSpec(argv=["python3", "-c", program, *arguments]))
    try:
        yield
    finally:
        await command.aclose()


async def post(guest: AgentClient, body: bytes) -> bytes:
    connection = await guest.ports.connect(TcpAddress(port=8080))
    head = f"POST / HTTP/1.1\r\nhost: guest\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_whole, connection, head.encode() + body)
            reply = await read_all(connection)
    finally:
        await connection.aclose()
    status, _, rest = reply.partition(b"\r\n")
    assert status == b"HTTP/1.1 200 OK", reply
    return rest.partition(b"\r\n\r\n")[2]


async def test_a_web_server_is_waited_for_and_reached(guest: AgentClient, nursery: trio.Nursery) -> None:
    reached = trio.Event()

    async def wait() -> None:
        await guest.ports.wait(TcpAddress(port=8080))
        reached.set()

    with pytest.raises(AgentRequestError) as caught:
        await guest.ports.connect(TcpAddress(port=8080))
    assert caught.value.code == "ECONNREFUSED"
    nursery.start_soon(wait)
    await guest.ping()
    assert not reached.is_set()
    async with running(guest, HTTP):
        with trio.fail_after(BOOT_LIMIT_S):
            await reached.wait()
            await guest.ports.wait(TcpAddress(port=8080))
        body = os.urandom(300_000)
        assert await post(guest, body) == body[::-1]


@pytest.mark.parametrize(
    "address",
    [TcpAddress(port=7000), TcpAddress(port=7001, host="::1"), UnixAddress(path=b"/run/echo")],
    ids=["IPv4", "IPv6", "Unix"],
)
async def test_what_goes_in_comes_back(guest: AgentClient, nursery: trio.Nursery, address: GuestAddress) -> None:
    arguments = [address.path.decode()] if isinstance(address, UnixAddress) else [address.host, str(address.port)]
    data = os.urandom(2**20)
    async with running(guest, ECHO, *arguments):
        await guest.ports.wait(address)
        connection = await guest.ports.connect(address)
        nursery.start_soon(send_whole, connection, data)
        assert await read_all(connection) == data
        await connection.aclose()


async def test_two_hundred_connections_at_once(guest: AgentClient) -> None:
    address = TcpAddress(port=7002)

    async def exchange(number: int) -> None:
        data = bytes([number]) * 5000
        connection = await guest.ports.connect(address)
        await connection.send(data)
        waiting.add(number)
        if len(waiting) == 200:
            all_connected.set()
        await all_connected.wait()
        await connection.send_eof()
        assert await read_all(connection) == data
        await connection.aclose()

    waiting: set[int] = set()
    all_connected = trio.Event()
    async with running(guest, ECHO, address.host, str(address.port)):
        await guest.ports.wait(address)
        async with trio.open_nursery() as exchanging:
            for number in range(200):
                exchanging.start_soon(exchange, number)


async def test_a_program_reaches_what_the_host_offers(guest: AgentClient) -> None:
    listener = await guest.ports.listen(TcpAddress(port=0))
    assert isinstance(listener.address, TcpAddress)
    argv = ["python3", "-c", CLIENT, str(listener.address.port)]
    command = await guest.start_command(CommandSpec(argv=argv))
    connection = await listener.take(await listener.accept())
    assert await read_all(connection) == b"who is there?"
    await send_whole(connection, b"the host")
    await connection.aclose()
    outcome = await collect(command)
    assert (outcome.stdout, outcome.exit) == (b"the host\n", CommandExit(status=0)), outcome
    await listener.aclose()


async def test_the_guests_own_figures(guest: AgentClient) -> None:
    usage = await guest.usage()
    assert usage.cpus_online == 2
    assert 200 * 2**20 < usage.memory_total_bytes < 256 * 2**20
    command = await guest.start_command(CommandSpec(argv=["sh", "-c", "echo; exec yes >/dev/null"]))
    await until(command, bool)
    busier = await guest.usage()
    assert busier.processes == usage.processes + 1
    while (await guest.usage()).cpu_busy_ms < usage.cpu_busy_ms + 100:
        pass
    await command.aclose()
    assert 0 < usage.disk_available_bytes <= usage.disk_total_bytes < 256 * 2**20
    assert 0 < usage.uptime_ms <= busier.uptime_ms


async def test_connections_to_a_vm_that_is_killed(guest_image: GuestImage, nursery: trio.Nursery) -> None:
    with tempfile.TemporaryDirectory(prefix="vmpool-") as home, trio.socket.socket(trio.socket.AF_UNIX) as listener:
        path = Path(home, "agent")
        await listener.bind(str(path))
        listener.listen()
        argv = qemu_argv(guest_image, Path(home, "console"), agent=listener.fileno())
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=[listener.fileno()]) as process:
            try:
                with trio.fail_after(BOOT_LIMIT_S):
                    guest = await AgentClient.connect(await trio.open_unix_socket(path), nursery=nursery)
                offered = await guest.ports.listen(TcpAddress(port=7003))
                connection = await guest.ports.connect(TcpAddress(port=7003))
                assert await offered.accept() == 1
                process.send_signal(signal.SIGKILL)
                for attempt in (connection.receive, offered.accept, lambda: guest.ports.wait(TcpAddress(port=1))):
                    with pytest.raises(AgentUnreachableError):
                        await attempt()
                await connection.aclose()
                await offered.aclose()
                await guest.aclose()
            finally:
                process.kill()
