"""Connections to and from a ready VM's guest, what it uses, and its clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.agents import collect
from vmm.contract import Vm
from vmm.errors import AgentRequestError, AgentUnreachableError
from vmm.words.commands import CommandExit, CommandSpec
from vmm.words.ports import GuestAddress, TcpAddress, UnixAddress

PORT = TcpAddress(port=7000)


@asynccontextmanager
async def echo_server(vm: Vm) -> AsyncIterator[None]:
    command = await vm.agent.start_command(CommandSpec(argv=["nc", "-ll", "-p", str(PORT.port), "-e", "cat"]))
    try:
        await vm.agent.ports.wait(PORT)
        yield
    finally:
        await command.aclose()


async def test_a_server_in_the_guest_is_reached(vm: Vm, nursery: trio.Nursery) -> None:
    data = bytes(range(256)) * 2000
    async with echo_server(vm):
        connection = await vm.agent.ports.connect(PORT)

        async def send() -> None:
            await connection.send(data)
            await connection.send_eof()

        nursery.start_soon(send)
        received = bytearray()
        while piece := await connection.receive():
            received += piece
        assert received == data
        assert await connection.receive() == b""
        with pytest.raises(trio.ClosedResourceError):
            await connection.send(b"after the end")
        await connection.aclose()
        await connection.aclose()


async def test_several_connections_do_not_mix(vm: Vm) -> None:
    async with echo_server(vm):
        connections = [await vm.agent.ports.connect(PORT) for _ in range(3)]
        for number, connection in enumerate(connections):
            await connection.send(b"%d" % number)
        assert [await connection.receive() for connection in reversed(connections)] == [b"2", b"1", b"0"]
        for connection in connections:
            await connection.aclose()


@pytest.mark.parametrize(
    ("address", "code"), [(TcpAddress(port=1), "ECONNREFUSED"), (UnixAddress(path=b"/run/absent"), "ENOENT")]
)
async def test_where_nobody_listens(vm: Vm, address: GuestAddress, code: str) -> None:
    with pytest.raises(AgentRequestError) as caught:
        await vm.agent.ports.connect(address)
    assert (caught.value.request, caught.value.code) == ("connect", code)


async def test_a_server_is_waited_for(vm: Vm, nursery: trio.Nursery) -> None:
    reached = trio.Event()

    async def wait() -> None:
        await vm.agent.ports.wait(PORT)
        reached.set()

    nursery.start_soon(wait)
    await vm.agent.ping()
    assert not reached.is_set()
    async with echo_server(vm):
        await reached.wait()


async def test_a_program_in_the_guest_connects(vm: Vm) -> None:
    listener = await vm.agent.ports.listen(TcpAddress(port=0))
    address = listener.address
    assert isinstance(address, TcpAddress)
    assert address.port > 0
    with pytest.raises(AgentRequestError) as caught:
        await vm.agent.ports.listen(address)
    assert caught.value.code == "EADDRINUSE"
    argv = ["nc", address.host, str(address.port)]
    command = await vm.agent.start_command(CommandSpec(argv=argv, stdin=b"question"))
    number = await listener.accept()
    connection = await listener.take(number)
    assert await connection.receive() == b"question"
    await connection.send(b"answer")
    await connection.send_eof()
    outcome = await collect(command)
    assert (outcome.stdout, outcome.exit) == (b"answer", CommandExit(status=0))
    assert await connection.receive() == b""
    await connection.aclose()
    with pytest.raises(AgentRequestError) as caught:
        await listener.take(number)
    assert caught.value.code == "ENOENT"
    await listener.aclose()
    with pytest.raises(AgentRequestError) as caught:
        await vm.agent.ports.connect(address)
    assert caught.value.code == "ECONNREFUSED"


async def test_what_is_open_when_the_vm_dies(fresh_vm: Vm, nursery: trio.Nursery) -> None:
    ports = fresh_vm.agent.ports
    listener = await ports.listen(TcpAddress(port=0))
    connection = await ports.connect(listener.address)
    failed = 0

    async def expect_failure(wait: object) -> None:
        nonlocal failed
        with pytest.raises(AgentUnreachableError):
            await wait()  # type: ignore[operator]
        failed += 1

    async with trio.open_nursery() as waiting:
        assert await listener.accept() == 1
        for wait in (connection.receive, listener.accept, lambda: ports.wait(TcpAddress(port=1))):
            waiting.start_soon(expect_failure, wait)
        await trio.testing.wait_all_tasks_blocked()
        await fresh_vm.stop()
    assert failed == 3
    with pytest.raises(AgentUnreachableError):
        await connection.send(b"too late")
    await connection.aclose()
    await listener.aclose()


async def test_usage_is_of_the_guest(vm: Vm) -> None:
    usage = await vm.agent.usage()
    assert usage.cpus_online == 1
    assert 100 * 2**20 <= usage.memory_total_bytes <= 256 * 2**20
    assert usage.memory_available_bytes <= usage.memory_total_bytes
    assert usage.disk_available_bytes <= usage.disk_total_bytes
    assert usage.processes >= 1
    assert (await vm.agent.usage()).uptime_ms >= usage.uptime_ms


async def test_the_clock_is_set_and_read(vm: Vm) -> None:
    now_ns = 1_900_000_000 * 10**9
    await vm.agent.set_clock(now_ns)
    clock = (await vm.agent.ping()).clock
    assert clock is not None
    assert 0 <= clock.wall_clock_ns - now_ns < 60 * 10**9
    assert abs(clock.moved_ns) < 10**8
