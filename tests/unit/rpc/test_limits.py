"""What one user does at the service's edge does not keep others out."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from pool.rpc import listening, turned_away, users
from pool.rpc.flood import CONNECT
from pool.rpc.output import LEAST_WINDOW, cost
from pool.rpc.server import ServerSettings
from pool.rpc.users import RESERVED_CALLS, TURNED_AWAY_PER_USER, User
from pool.settings.limits import EdgeLimits
from tests.unit.rpc.raw import ACQUIRE, EXEC, RELEASE, STATUS, RawClient, connected, framed
from tests.unit.rpc.served import Served, serving
from vmm.words.commands import CommandSpec
from vmpool.client import CallError
from vmpool.wire.generated.vmpool import v1 as wire

BOB = 4242
EXHAUSTED, DENIED = "8", "7"
MIB = 1024 * 1024
RENEW = "/vmpool.v1.Pool/Renew"


@contextlib.asynccontextmanager
async def limited(home: Path, **limits: int) -> AsyncIterator[Served]:
    settings = ServerSettings(allowed_uids=frozenset({0, os.geteuid(), BOB}), limits=EdgeLimits(**limits))
    async with serving(home, settings=settings, policy={"max_vms": 2}) as served:
        await served.until(lambda: served.coordinator.views()[0].ready == 2)
        yield served


def user(served: Served, uid: int | None = None) -> User:
    known = served.server._server.users._known
    return known.get(os.geteuid() if uid is None else uid) or User(uid=-1, limits=EdgeLimits())


async def status(raw: RawClient) -> tuple[str, str]:
    return await raw.status(await raw.request(STATUS, wire.StatusRequest()))


async def answered(path: Path) -> tuple[str, str]:
    """What a client hears that comes new."""
    async with connected(path) as raw:
        return await status(raw)


# -- connections -------------------------------------------------------------------------------------------------------


async def test_a_user_has_so_many_connections_and_is_told_which_key_it_is(
    vm_home: Path, call_as: Callable[[int], None]
) -> None:
    async with limited(vm_home, connections_per_user=2) as served:
        async with connected(served.path) as first, connected(served.path) as second:
            assert [(await status(raw))[0] for raw in (first, second)] == ["0", "0"]
            code, message = await answered(served.path)
            assert (code, "(limits.connections_per_user)" in message) == (EXHAUSTED, True)
            assert [(await status(raw))[0] for raw in (first, second)] == ["0", "0"]
            call_as(BOB)
            assert (await answered(served.path))[0] == "0"
        await served.until(lambda: user(served, os.geteuid()).connections == 0)


async def test_whoever_is_turned_away_costs_few_connections_and_one_line(
    vm_home: Path, call_as: Callable[[int], None]
) -> None:
    call_as(7)
    async with limited(vm_home) as served, contextlib.AsyncExitStack() as stack:
        with capture_logs() as lines:
            streams = [await trio.open_unix_socket(str(served.path)) for _ in range(50)]
            for stream in streams:
                await stack.enter_async_context(stream)
            heard = [await stream.receive_some() for stream in streams]
        assert sum(map(bool, heard)) == TURNED_AWAY_PER_USER
        assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["connection refused"]
        assert served.server.statistics().connections == 0


async def test_whoever_is_turned_away_hears_the_reason_from_each_call_and_has_little_time(
    vm_home: Path, call_as: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turned_away, "LIMIT_S", 0.2)
    call_as(7)
    async with limited(vm_home) as served, connected(served.path) as raw:
        for _ in range(3):
            code, message = await status(raw)
            assert (code, "ask its administrator to allow it in [access]" in message) == (DENIED, True)
        await raw.hung_up()
        assert raw.told_to_go


async def test_whoever_is_turned_away_makes_few_calls(
    vm_home: Path, call_as: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turned_away, "LIMIT_S", 1000)
    call_as(7)
    async with limited(vm_home) as served, connected(served.path) as raw:
        for _ in range(50):
            await raw.start(STATUS)
        await raw.hung_up()
        assert 10 < len(raw.headers) < 20


async def test_whoever_calls_may_come_anew_for_each_call(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "USER_CAPACITY", 3 * CONNECT)
    monkeypatch.setattr(users, "USER_REFILL_PER_S", 0)
    async with limited(vm_home) as served:
        for _ in range(20):
            assert (await answered(served.path))[0] == "0"
        for _ in range(3):
            async with connected(served.path) as raw:
                await raw.receive()
        assert (await answered(served.path))[0] == EXHAUSTED


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 9])
async def test_whoever_is_turned_away_and_speaks_no_http_2_is_hung_up_on(
    vm_home: Path, call_as: Callable[[int], None], sent: bytes
) -> None:
    call_as(7)
    async with limited(vm_home) as served, await trio.open_unix_socket(str(served.path)) as stream:
        await stream.send_all(sent)
        with trio.fail_after(20), contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass


async def test_a_connection_that_begins_no_call_is_closed(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "FIRST_CALL_LIMIT_S", 0.05)
    async with limited(vm_home) as served:
        async with await trio.open_unix_socket(str(served.path)) as silent, connected(served.path) as greeted:
            with trio.fail_after(20):
                while await silent.receive_some():
                    pass
            await greeted.hung_up()
            assert greeted.told_to_go
        await served.until(lambda: served.server.statistics().connections == 0)


async def test_a_connection_that_has_made_a_call_may_stay(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "FIRST_CALL_LIMIT_S", 0.2)
    async with limited(vm_home) as served, connected(served.path) as lasting, connected(served.path) as silent:
        await status(lasting)
        await silent.hung_up()
        assert (await status(lasting))[0] == "0"


async def test_our_client_comes_back_by_itself(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "FIRST_CALL_LIMIT_S", 0.05)
    async with limited(vm_home) as served, served.client() as client:
        await served.until(lambda: user(served).connections == 1)
        await served.until(lambda: user(served).connections == 0)
        assert (await client.status()).version == "1.2.3"


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """None are left, for as long as the block lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_descriptors_connections_are_closed_but_for_roots_last_one(
    vm_home: Path, call_as: Callable[[int], None]
) -> None:
    async with limited(vm_home) as served:
        sockets = [trio.socket.socket(socket.AF_UNIX) for _ in range(4)]
        with contextlib.ExitStack() as stack:
            for sock in sockets:
                stack.enter_context(sock)
            with no_descriptors():
                with pytest.MonkeyPatch.context() as patched:
                    patched.setattr("pool.rpc.door.caller_of", _caller(BOB))
                    for sock in sockets[:3]:
                        await sock.connect(str(served.path))
                        assert await sock.recv(1) == b""
                await sockets[3].connect(str(served.path))
                raw = RawClient(trio.SocketStream(sockets[3]))
                await raw.begin()
                assert (await status(raw))[0] == "0"
            assert (await answered(served.path))[0] == "0"
        assert served.server.statistics().loop_errors == 0


def _caller(uid: int) -> Callable[[Any], Any]:
    from pool.settings.permissions import Caller  # noqa: PLC0415

    return lambda _connection: Caller(uid=uid, gid=uid)


# -- calls -------------------------------------------------------------------------------------------------------------


async def test_waiting_calls_end_at_the_limit_and_leave_the_brief_ones(
    vm_home: Path, call_as: Callable[[int], None]
) -> None:
    async with limited(vm_home, calls_per_user=3) as served, served.client() as client, connected(served.path) as raw:
        leases = [await client.acquire() for _ in range(2)]
        waiting = [await raw.request(ACQUIRE, wire.AcquireRequest()) for _ in range(3)]
        await served.until(lambda: user(served).calls == 3)
        code, message = await raw.status(await raw.request(ACQUIRE, wire.AcquireRequest()))
        assert (code, "(limits.calls_per_user)" in message) == (EXHAUSTED, True)
        assert (await status(raw))[0] == "0"
        renewal = wire.RenewRequest(lease_id=leases[0].lease_id, ttl_ms=60_000)
        assert (await raw.status(await raw.request(RENEW, renewal)))[0] == "0"
        call_as(BOB)
        assert (await answered(served.path))[0] == "0"
        for lease in leases:
            release = wire.ReleaseRequest(lease_id=lease.lease_id)
            assert (await raw.status(await raw.request(RELEASE, release)))[0] == "0"
        assert {(await raw.status(call))[0] for call in waiting[:2]} == {"0"}
    assert user(served).calls == 0


async def test_calls_that_begin_and_stop_are_not_without_end_either(vm_home: Path) -> None:
    async with limited(vm_home, calls_per_user=3) as served, connected(served.path) as raw:
        await raw.receive()
        for _ in range(3 + RESERVED_CALLS):
            await raw.start(STATUS)
        assert (await raw.status(await raw.start(STATUS)))[0] == EXHAUSTED


async def test_commands_end_at_the_limit(vm_home: Path) -> None:
    async with limited(vm_home, execs_per_user=2) as served, served.client() as client, client.lease() as vm:
        async with client.exec(vm.lease_id, ["sleep", "1000"]), client.exec(vm.lease_id, ["sleep", "1000"]):
            with pytest.raises(CallError, match=r"limits\.execs_per_user") as refused:
                async with client.exec(vm.lease_id, ["true"]):
                    pass
            assert refused.value.status == "RESOURCE_EXHAUSTED"
        await served.until(lambda: user(served).output.streams == 0)
        async with client.exec(vm.lease_id, ["true"]) as command:
            assert (await command.wait()).status == 0


async def test_commands_end_where_there_is_no_room_for_what_they_write(vm_home: Path) -> None:
    limits = {"execs_per_user": 4, "output_bytes_per_user": 2 * cost(LEAST_WINDOW)}
    async with limited(vm_home, **limits) as served, served.client() as client, client.lease() as vm:
        async with client.exec(vm.lease_id, ["yes"]), client.exec(vm.lease_id, ["yes"]):
            with pytest.raises(CallError, match=r"limits\.output_mib_per_user") as refused:
                async with client.exec(vm.lease_id, ["true"]):
                    pass
            assert refused.value.status == "RESOURCE_EXHAUSTED"
        await served.until(lambda: user(served).output.taken == 0)
        async with client.exec(vm.lease_id, ["true"]) as command:
            assert (await command.wait()).status == 0


def requested() -> int:
    """Requests for a sleep. The simulated guest has a copy, in which there is a directory."""
    return sum(
        isinstance(found, CommandSpec) and found.argv[0] == "sleep" and found.working_directory is None
        for found in gc.get_objects()
    )


async def test_a_command_s_request_is_not_kept_while_it_runs(vm_home: Path) -> None:
    """It has megabytes of arguments, if its caller likes, and counts as a request no more."""
    async with limited(vm_home) as served, served.client() as client, client.lease() as vm:
        before = requested()
        async with client.exec(vm.lease_id, ["sleep", "1000"]):
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            assert requested() == before


# -- requests ----------------------------------------------------------------------------------------------------------


def large(size: int) -> wire.AcquireRequest:
    return wire.AcquireRequest(files=[wire.GuestFile(path="/tmp/x", data=b"x" * size)])


async def leased_out(served: Served) -> list[str]:
    """All VMs, so that who comes next waits."""
    async with served.client() as client:
        return [(await client.acquire()).lease_id for _ in range(2)]


async def send_in_pieces(raw: RawClient, message: Any) -> int:
    call = await raw.start(ACQUIRE)
    data = memoryview(framed(message))
    while data:
        room = min(16384, raw.http2.local_flow_control_window(call))
        if not room:
            if call in raw.over or not await raw.receive():
                return call
            continue
        await raw.send(call, bytes(data[:room]))
        data = data[room:]
    await raw.send(call, end=True)
    return call


async def test_requests_of_one_user_take_so_much_memory_together(vm_home: Path, call_as: Callable[[int], None]) -> None:
    async with limited(vm_home, request_bytes_per_user=3 * MIB) as served, connected(served.path) as raw:
        await leased_out(served)
        waiting = [await send_in_pieces(raw, large(MIB - 1000)) for _ in range(2)]
        await served.until(lambda: user(served).request_bytes > 2 * MIB - 10_000)
        code, message = await raw.status(await send_in_pieces(raw, large(MIB + 1000)))
        assert (code, "(limits.request_mib_per_user)" in message) == (EXHAUSTED, True)
        assert (await status(raw))[0] == "0"
        call_as(BOB)
        async with connected(served.path) as other:
            await send_in_pieces(other, large(2 * MIB))
            await served.until(lambda: user(served, BOB).request_bytes > 2 * MIB)
        raw.http2.reset_stream(waiting[0])
        await raw.flush()
        await served.until(lambda: user(served).request_bytes < 2 * MIB - 10_000)
    await served.until(lambda: user(served).request_bytes == user(served, BOB).request_bytes == 0)


async def test_many_small_fields_count_for_what_they_take(vm_home: Path) -> None:
    async with limited(vm_home, request_bytes_per_user=MIB) as served, connected(served.path) as raw:
        request = wire.AcquireRequest(environment={f"{number}": "" for number in range(3000)})
        assert len(bytes(request)) < 40_000
        code, message = await raw.status(await send_in_pieces(raw, request))
        assert (code, "(limits.request_mib_per_user)" in message) == (EXHAUSTED, True)
    assert user(served).request_bytes == 0


async def test_what_follows_the_only_message_of_a_call_is_not_kept(vm_home: Path) -> None:
    async with limited(vm_home) as served, connected(served.path) as raw:
        await leased_out(served)
        call = await raw.start(ACQUIRE)
        await raw.send(call, framed(wire.AcquireRequest()) + bytes(1000))
        for _ in range(200):
            while raw.http2.local_flow_control_window(call) < 16384:
                await raw.receive()
            await raw.send(call, bytes(16384))
        (protocol,) = (found for found in served.server._server.connections if found.processor.streams)
        assert protocol.processor.streams[call].buffer._data == b""  # type: ignore[attr-defined]


async def test_headers_that_nobody_reads_are_not_kept(vm_home: Path) -> None:
    async with limited(vm_home) as served, connected(served.path) as raw:
        await leased_out(served)
        headers = {"traceparent": "00-1-2-01", "x-much": "x" * 10_000, "user-agent": "y" * 300}
        call = await raw.request(ACQUIRE, wire.AcquireRequest(), headers=headers)
        await served.until(lambda: user(served).calls == 1)
        (protocol,) = (found for found in served.server._server.connections if found.processor.streams)
        (task,) = protocol.handler._tasks.values()
        kept = str(task.get_coro().cr_frame.f_locals["headers"])  # type: ignore[union-attr]
        assert "00-1-2-01" in kept
        assert len(kept) < 400
        raw.http2.reset_stream(call)
        await raw.flush()


@pytest.mark.parametrize("end", ["answered", "reset", "hung up", "refused", "cut short", "stopped"])
async def test_all_of_it_is_given_back_however_a_call_ends(vm_home: Path, end: str) -> None:
    async with limited(vm_home) as served:
        async with connected(served.path) as raw:
            leases = await leased_out(served)
            call = await raw.start(ACQUIRE)
            request = large(10_000)
            if end == "refused":
                request.profile = "none"
            data = framed(request)
            await raw.send(call, data[:5000] if end == "cut short" else data, end=True)
            if end not in ("refused", "cut short"):
                await served.until(lambda: user(served).request_bytes > 10_000)
            match end:
                case "answered":
                    async with served.client() as client:
                        await client.release(leases[0])
                    await raw.status(call)
                case "reset":
                    raw.http2.reset_stream(call)
                    await raw.flush()
                case "stopped":
                    served.server.stop()
                    await raw.status(call)
                case "hung up":
                    pass
                case _:
                    await raw.status(call)
        await served.until(lambda: user(served).request_bytes == 0)
        await served.until(lambda: user(served).calls == 0)


# -- streams without end are refused -----------------------------------------------------------------------------------


async def test_ten_thousand_streams_of_one_user_leave_others_theirs(
    vm_home: Path, call_as: Callable[[int], None]
) -> None:
    async with limited(vm_home, calls_per_user=200) as served, contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            raw = await stack.enter_async_context(connected(served.path))
            await raw.receive()
            for _ in range(100):
                raw.http2.send_headers(
                    raw.http2.get_next_available_stream_id(),
                    [
                        (":method", "POST"),
                        (":scheme", "http"),
                        (":path", EXEC),
                        (":authority", "localhost"),
                        ("te", "trailers"),
                        ("content-type", "application/grpc"),
                    ],
                )
            await raw.flush()
        await served.until(lambda: user(served).calls == 200)
        call_as(BOB)
        assert (await answered(served.path))[0] == "0"
