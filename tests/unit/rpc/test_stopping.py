"""A service that stops tells everyone, hangs up, and leaves nobody waiting."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing
from grpclib.client import Channel
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.unit.rpc.raw import ACQUIRE, EXEC, RELEASE, STATUS, connected, framed
from tests.unit.rpc.served import Served, serving
from vmpool.client import CallError, ClientError, ServiceUnavailableError, open_client
from vmpool.wire.crossing import open_loop
from vmpool.wire.generated.vmpool import v1 as wire

UNAVAILABLE = "14"
SERVICE = "vmpool.v1.Pool"


async def test_a_waiting_acquire_and_a_running_exec_end_with_unavailable(vm_home: Path) -> None:
    async with serving(vm_home, size=1) as served, served.client() as client:
        vm = await client.acquire()
        async with connected(served.path) as raw:
            start = wire.ExecStart(lease_id=vm.lease_id, argv=["sleep", "1000"])
            execution = await raw.start(EXEC)
            await raw.send(execution, framed(wire.ExecRequest(start=start)))
            await served.until(lambda: served.coordinator.views()[0].ready == 1)
            await served.coordinator.acquire(profile="default", owner=served.coordinator.leases()[0].owner)
            waiting = await raw.request(ACQUIRE, wire.AcquireRequest())
            await served.until(lambda: served.server.statistics().calls == 2)
            served.server.stop()
            for call in (waiting, execution):
                status, message = await raw.status(call)
                assert status == UNAVAILABLE
                assert "shutting down; try again later" in message
            await raw.hung_up()


async def test_within_the_grace_running_calls_go_on_and_new_ones_are_refused(served: Served) -> None:
    async with served.client() as client:
        vm = await client.acquire()
        async with connected(served.path) as raw, client.exec(vm.lease_id, ["cat"]) as command:
            served.server.stop(grace_s=20)
            status = await client.status()
            while not status.draining:
                status = await client.status()
            for path, request in ((ACQUIRE, wire.AcquireRequest()), (RELEASE, wire.ReleaseRequest(lease_id="x"))):
                call = await raw.request(path, request)
                assert (await raw.status(call))[0] == UNAVAILABLE
            call = await raw.request(STATUS, wire.StatusRequest())
            assert (await raw.status(call))[0] == "0"
            await command.send_stdin(b"still here")
            await command.close_stdin()
            assert (await command.collect()).stdout == b"still here"
            await raw.hung_up()


async def test_idle_connections_and_new_ones_are_closed(vm_home: Path) -> None:
    async with serving(vm_home) as served:
        async with connected(served.path) as idle, connected(served.path) as never_reads:
            await never_reads.request(STATUS, wire.StatusRequest())
            served.server.stop()
            await idle.hung_up()
            assert idle.told_to_go
            await served.until(lambda: served.server.statistics().connections == 0)
        with pytest.raises(ServiceUnavailableError):
            async with open_client(served.path):
                pass


async def test_cancelling_serve_also_tells_everyone(vm_home: Path) -> None:
    async with serving(vm_home, size=1, boot_s=1000) as served, connected(served.path) as raw:
        waiting = await raw.request(ACQUIRE, wire.AcquireRequest())
        await served.until(lambda: served.server.statistics().calls == 1)
        served.nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert (await raw.status(waiting))[0] == UNAVAILABLE


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(served: Served) -> None:
    async with served.client() as client, connected(served.path) as raw:
        vm = await client.acquire()
        call = await raw.start(EXEC)
        await raw.send(call, framed(wire.ExecRequest(start=wire.ExecStart(lease_id=vm.lease_id, argv=["yes"]))))
        raw.http2.increment_flow_control_window(2**30)
        raw.http2.increment_flow_control_window(2**30, call)
        await raw.flush()
        await trio.testing.wait_all_tasks_blocked(0.05)  # the socket is full
        with trio.fail_after(20):
            served.server.stop()
            await served.until(lambda: served.server.statistics().connections == 0)


async def test_the_sdk_calls_it_unavailable(vm_home: Path) -> None:
    async with serving(vm_home, size=1, boot_s=1000) as served, served.client() as client:
        caught: list[ClientError] = []
        async with trio.open_nursery() as nursery:

            async def acquire() -> None:
                with pytest.raises(CallError) as error:
                    await client.acquire()
                caught.append(error.value)

            nursery.start_soon(acquire)
            await served.until(lambda: served.server.statistics().calls == 1)
            served.server.stop()
        assert [getattr(error, "status", "") for error in caught] == ["UNAVAILABLE"]


async def test_health(served: Served) -> None:
    async def open_stub() -> tuple[Channel, HealthStub]:
        channel = Channel(path=os.fspath(served.path))
        return channel, HealthStub(channel)

    async with open_loop() as loop:
        channel, stub = await loop.run(open_stub)

        async def check(request: HealthCheckRequest) -> HealthCheckResponse:
            return await loop.run(stub.Check.__call__, request)

        for service in ("", SERVICE):
            assert (await check(HealthCheckRequest(service=service))).status == HealthCheckResponse.SERVING
        async with served.client() as client, client.lease() as vm, client.exec(vm.lease_id, ["cat"]):
            served.server.stop(grace_s=20)
            await served.until(lambda: served.server._calls.stopping)
            for service in ("", SERVICE):
                assert (await check(HealthCheckRequest(service=service))).status == HealthCheckResponse.NOT_SERVING
        channel.close()


async def test_a_duplicate_of_the_socket_takes_nobody_after_the_stop(vm_home: Path) -> None:
    """The service keeps one, to start the server again if it crashes."""
    async with serving(vm_home) as served:
        with served.listener.dup():
            served.server.stop()
            await served.until(lambda: served.listener.fileno() == -1)
            with pytest.raises(ServiceUnavailableError, match="no service listens"):
                async with open_client(served.path):
                    pass


async def test_a_socket_that_cannot_be_listened_on_is_closed(served: Served) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with pytest.raises(ValueError, match="does not listen"):
        await served.server.listen_also(sock)
    assert sock.fileno() == -1
