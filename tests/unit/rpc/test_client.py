"""The SDK: where there is no service, or not the right one, or another one later; what it asks, and what it tells."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.unit.cli.scripted import Answer, scripted_service, status
from tests.unit.rpc.served import Served, serving
from vmpool.client import (
    CallError,
    Client,
    LeaseChange,
    ProfileChange,
    ServiceUnavailableError,
    Snapshot,
    VmChange,
    VmConfig,
    Wishes,
    open_client,
)
from vmpool.wire.generated.vmpool import v1 as wire


async def unavailable(path: Path) -> ServiceUnavailableError:
    with pytest.raises(ServiceUnavailableError) as error:
        async with open_client(path):
            pass
    return error.value


async def test_no_socket(vm_home: Path) -> None:
    error = await unavailable(vm_home / "pool.sock")
    assert str(error) == (
        f"{vm_home}/pool.sock: the socket does not exist; start the service with `vmpool serve`, or name its socket"
    )


async def test_the_socket_of_a_dead_service(vm_home: Path) -> None:
    path = vm_home / "pool.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    assert "no service listens on this socket; start the service" in str(await unavailable(path))


async def test_a_socket_path_that_is_too_long(vm_home: Path) -> None:
    assert "too long" in str(await unavailable(vm_home / ("x" * 200)))


async def test_a_file_that_is_no_socket(vm_home: Path) -> None:
    (vm_home / "file").touch()
    await unavailable(vm_home / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
async def test_a_socket_that_one_may_not_use(served: Served) -> None:
    served.path.chmod(0)
    assert "no permission for this socket" in str(await unavailable(served.path))


async def test_a_service_that_accepts_nobody(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmpool.client.connection.CONNECT_LIMIT_S", 0.1)
    path = vm_home / "pool.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(os.fspath(path))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(os.fspath(path))
            assert "did not accept a connection within 0.1 s" in str(await unavailable(path))


async def test_a_service_that_says_nothing(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmpool.client.sdk.ANSWER_LIMIT_S", 0.05)
    monkeypatch.setattr("vmpool.client.connection.LATE_ANSWER_S", 0.05)
    path = vm_home / "pool.sock"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(os.fspath(path))
        mute.listen()
        async with open_client(path) as client:
            with pytest.raises(CallError, match="no answer") as error:
                await client.status()
    assert error.value.status == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 100])
async def test_a_service_that_is_another(vm_home: Path, answer: bytes) -> None:
    path = vm_home / "pool.sock"

    async def talk(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(answer)

    with trio.socket.socket(socket.AF_UNIX) as sock:
        await sock.bind(os.fspath(path))
        sock.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, talk, [trio.SocketListener(sock)])
            with pytest.raises(ServiceUnavailableError, match="the connection broke"):
                async with open_client(path) as client:
                    await client.status()
            nursery.cancel_scope.cancel()


async def test_a_new_service_on_the_same_socket_is_found(vm_home: Path) -> None:
    async with serving(vm_home) as served, open_client(served.path) as client:
        await client.status()
        served.server.stop()
        await served.until(lambda: served.server.statistics().connections == 0)
        served.path.unlink()
        async with serving(vm_home):
            assert (await client.status()).version == "1.2.3"


async def test_more_waiting_calls_than_a_connection_takes(vm_home: Path) -> None:
    async with serving(vm_home, size=1, boot_s=1000) as served, served.client() as client:
        async with trio.open_nursery() as nursery:
            for _ in range(250):
                nursery.start_soon(client.acquire)
            await served.until(lambda: served.coordinator.views()[0].waiting == 250)
            nursery.cancel_scope.cancel()
        await served.until(served.lost)


async def test_a_client_serves_tasks_that_were_there_before_it(served: Served) -> None:
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[object](0)
        answers = []

        async def early() -> None:
            client = await receive.receive()
            answers.append(await client.status())  # type: ignore[attr-defined]

        nursery.start_soon(early)
        await trio.testing.wait_all_tasks_blocked()
        async with served.client() as client:
            await send.send(client)
            await served.until(lambda: bool(answers))


async def test_two_clients_in_one_another(served: Served) -> None:
    async with served.client() as outer, served.client() as inner:
        assert (await outer.status()).pid == (await inner.status()).pid
        async with inner.lease() as vm:
            assert [lease.lease_id for lease in (await outer.status()).leases] == [vm.lease_id]


def test_importing_the_sdk_brings_no_server_and_no_protobuf_runtime() -> None:
    code = "import sys, vmpool.client; print(*(name for name in sys.modules))"
    modules = set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )
    assert not modules & {
        "google.protobuf",
        "grpclib.health",
        "pool.rpc.server",
        "pool.core.coordinator",
        "structlog",
        "rich",
    }


# -- a service that comes later ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("remains", [False, True], ids=["no socket yet", "the socket of a dead service"])
async def test_a_service_that_is_on_its_way_is_waited_for(vm_home: Path, remains: bool) -> None:
    versions = []
    if remains:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(os.fspath(vm_home / "pool.sock"))

    async def ask() -> None:
        async with open_client(vm_home / "pool.sock", wait_s=60) as client:
            versions.append((await client.status()).version)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        async with scripted_service(vm_home / "pool.sock") as service:
            service.answers["Status"] = lambda _: status()
            await service.called("Status")
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert versions == [""]


async def test_a_service_that_does_not_come_is_told_of(vm_home: Path) -> None:
    with pytest.raises(ServiceUnavailableError, match="the socket does not exist"):
        async with open_client(vm_home / "pool.sock", wait_s=0.05):
            pass


# -- what it asks, and what it tells -----------------------------------------------------------------------------------


async def test_watching_shows_the_pools_and_then_every_change(served: Served) -> None:
    async with served.client() as client:
        async with client.watch() as changes:
            snapshot = await anext(changes)
            assert isinstance(snapshot, Snapshot)
            assert [profile.name for profile in snapshot.profiles] == ["default"]
            assert [vm.state for vm in snapshot.vms] == ["ready", "ready"]

            vm = await client.acquire()
            lease = await next_of(changes, LeaseChange)
            assert (lease.lease_id, lease.vm_id, lease.change) == (vm.lease_id, vm.vm_id, "granted")

            await client.release(vm.lease_id)
            assert (await next_of(changes, LeaseChange)).change == "ended"
            stopping = await next_of(changes, VmChange, vm_id=vm.vm_id)
            assert stopping.state == "stopping"
            assert stopping.reason

            await client.drain("default")
            assert (await next_of(changes, ProfileChange)).change == "drained"
        await served.until(lambda: served.server.statistics().calls == 0)


async def next_of(changes: AsyncIterator[Any], kind: type[Any], *, vm_id: str = "") -> Any:
    with trio.fail_after(20):
        async for change in changes:
            if isinstance(change, kind) and (not vm_id or change.vm_id == vm_id):
                return change
    raise AssertionError(f"no {kind.__name__} came")


async def drain_and_resume(client: Client) -> None:
    await client.drain("default")
    await client.undrain("default")


async def test_an_administrator_changes_a_pool(served: Served) -> None:
    async with served.client() as client:
        await client.resize("default", 3)
        await served.until(lambda: served.coordinator.views()[0].ready == 3)
        await drain_and_resume(client)
        await client.reset("default")
        await client.evict_all("default")
        await served.until(lambda: served.coordinator.views()[0].ready == 3)
        (profile,) = (await client.status()).profiles
    assert (profile.size, profile.drained, profile.circuit) == (3, False, "closed")


async def test_an_answer_that_comes_in_one_packet_with_the_end_of_the_connection_is_whole(vm_home: Path) -> None:
    """A service that stops says a command's last words and goodbye before the client has ended its own side."""
    replies = (
        wire.ExecReply(started=wire.ExecStarted()),
        wire.ExecReply(stdout=b"last words"),
        wire.ExecReply(exit=wire.ExecExit(status=3)),
    )
    async with scripted_service(vm_home / "pool.sock") as service:
        service.answers["Exec"] = lambda _: Answer(replies, then_hangs_up=True)
        async with open_client(service.path) as client, client.exec("lease-1", ["true"]) as command:
            completed = await command.collect()
    assert (completed.stdout, completed.exit.status) == (b"last words", 3)


async def test_a_word_that_is_not_utf8_is_named(vm_home: Path) -> None:
    odd = os.fsdecode(b"odd-\xff")
    async with scripted_service(vm_home / "pool.sock") as service, open_client(service.path) as client:
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: client.acquire(profile=odd),
            lambda: client.acquire(wishes=Wishes(environment={odd: ""})),
            lambda: client.acquire(config=VmConfig(kernel=f"/{odd}")),
            lambda: client.renew(odd, ttl_s=1.0),
            lambda: client.release(odd),
            lambda: client.drain(odd),
            lambda: client.evict(odd),
            lambda: client.lease(profile=odd).__aenter__(),
            lambda: client.exec("lease-1", ["echo", odd]).__aenter__(),
        ]
        for call in calls:
            with pytest.raises(CallError, match=r"odd-\\udcff' is not UTF-8") as caught:
                await call()
            assert caught.value.status == "INVALID_ARGUMENT"
        assert service.calls == []
