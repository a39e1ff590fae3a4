"""A caller that goes away before it has read its reply takes no VM with it, whenever and however it goes."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio
import trio.testing

from actors.vm import VmActor
from pool.ledger.records import EndReason, Owner
from tests.unit.rpc.fake_guest import lease_with, refusal
from tests.unit.rpc.raw import ACQUIRE, EXEC, RawClient, connected, framed
from tests.unit.rpc.served import Served, serving
from vmm.simulated import PrepareIsSlow
from vmm.words.guest_processes import ProcessRef
from vmpool.wire.generated.vmpool import v1 as wire


def request_bytes() -> bytes:
    """All that a client sends for an Acquire, without having read anything."""
    with contextlib.closing(socket.socket()) as unused:
        client = RawClient(trio.SocketStream(trio.socket.from_stdlib_socket(unused)))
    client.http2.initiate_connection()
    call = client.http2.get_next_available_stream_id()
    names = {":method": "POST", ":scheme": "http", ":path": ACQUIRE, ":authority": "x", "te": "trailers"}
    client.http2.send_headers(call, [*names.items(), ("content-type", "application/grpc")])
    client.http2.send_data(call, framed(wire.AcquireRequest(profile="default")), end_stream=True)
    return client.http2.data_to_send()


async def back_to_rest(served: Served) -> None:
    """No lease, no claim; every VM is one of the pool's."""
    await served.until(lambda: served.lost() and served.server.statistics().connections == 0)
    await served.until(lambda: served.coordinator.views()[0].ready == 2)
    assert len(served.host.alive) == 2


@pytest.mark.parametrize("share", range(0, 101, 5))
async def test_within_the_request(served: Served, share: int) -> None:
    data = request_bytes()
    async with await trio.open_unix_socket(str(served.path)) as stream:
        await stream.send_all(data[: len(data) * share // 100] or b"P")
    await back_to_rest(served)


@pytest.mark.parametrize("steps", range(40))
async def test_some_task_switches_after_the_request(served: Served, steps: int) -> None:
    """Between arrival and reply there are fewer than 40 switches, so the connection drops at every one of them."""
    async with await trio.open_unix_socket(str(served.path)) as stream:
        await stream.send_all(request_bytes())
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
    await back_to_rest(served)


@pytest.mark.parametrize("steps", range(0, 40, 2))
async def test_reset_some_task_switches_after_the_request(served: Served, steps: int) -> None:
    """As a client does whose deadline passes. Its connection stays."""
    async with connected(served.path) as raw:
        call = await raw.request(ACQUIRE, wire.AcquireRequest())
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        raw.http2.reset_stream(call)
        await raw.flush()
        await served.until(served.lost)


async def test_while_it_waits(vm_home: Path) -> None:
    async with serving(vm_home, size=1, boot_s=1000) as served:
        async with connected(served.path) as raw:
            await raw.request(ACQUIRE, wire.AcquireRequest())
            await served.until(lambda: served.coordinator.views()[0].waiting == 1)
        await served.until(served.lost)


async def test_while_its_vm_is_handed_out(vm_home: Path) -> None:
    async with serving(vm_home, size=1, faults=lambda _: (PrepareIsSlow(delay_s=0.3),)) as served:
        async with connected(served.path) as raw:
            await raw.request(ACQUIRE, wire.AcquireRequest())
            await served.until(lambda: served.coordinator.views()[0].handing_out == 1)
        await served.until(served.lost)


async def test_after_the_grant_with_the_reply_unread(served: Served) -> None:
    async with connected(served.path) as raw:
        await raw.request(ACQUIRE, wire.AcquireRequest())
        await served.until(lambda: bool(served.coordinator.leases()))
        (lease,) = served.coordinator.leases()
        await trio.testing.wait_all_tasks_blocked(0.01)  # the reply lies in the socket
        assert served.coordinator.leases()
    await back_to_rest(served)
    refusal = served.coordinator._ledger.find_lease(lease.lease_id, owner=Owner(uid=0))
    assert EndReason.ABANDONED.value in refusal.message  # type: ignore[union-attr]


async def test_after_the_reply_was_read_the_lease_stays(served: Served) -> None:
    async with connected(served.path) as raw:
        call = await raw.request(ACQUIRE, wire.AcquireRequest())
        assert (await raw.status(call))[0] == "0"
    await served.until(lambda: served.server.statistics().connections == 0)
    assert len(served.coordinator.leases()) == 1


async def test_a_client_that_never_answers_pings_gets_its_vm(served: Served) -> None:
    async with connected(served.path) as raw:
        call = await raw.request(ACQUIRE, wire.AcquireRequest())
        raw.flush = trio.lowlevel.checkpoint  # type: ignore[method-assign]
        assert (await raw.status(call))[0] == "0"
    assert len(served.coordinator.leases()) == 1


@pytest.mark.parametrize("steps", range(60))
async def test_cancelling_the_sdks_acquire_takes_no_vm(served: Served, steps: int) -> None:
    async with served.client() as client:
        acquired = None
        async with trio.open_nursery() as nursery:

            async def acquire() -> None:
                nonlocal acquired
                acquired = await client.acquire()

            nursery.start_soon(acquire)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        if acquired is not None:
            await client.release(acquired.lease_id)
        await served.until(served.lost)


async def test_two_callers_with_one_key_and_one_of_them_leaves(vm_home: Path) -> None:
    released = trio.Event()

    class SlowActor(VmActor):
        def hand_out(self, *order: Any) -> None:
            trio.lowlevel.spawn_system_task(self._later, *order)

        async def _later(self, *order: Any) -> None:
            await released.wait()
            super().hand_out(*order)

    async with serving(vm_home, size=1, make_actor=SlowActor) as served, connected(served.path) as stays:
        request = wire.AcquireRequest(idempotency_key="job-7")
        async with connected(served.path) as leaves:
            await leaves.request(ACQUIRE, request)
            call = await stays.request(ACQUIRE, request)
            await served.until(lambda: served.server.statistics().calls == 2)
        await served.until(lambda: served.server.statistics().calls == 1)
        released.set()
        assert (await stays.status(call))[0] == "0"
        assert len(served.coordinator.leases()) == 1


@pytest.mark.parametrize("steps", range(0, 60, 4))
async def test_leaving_an_exec_kills_the_command_and_keeps_the_lease(served: Served, steps: int) -> None:
    async with served.client() as client, client.lease() as vm:
        async with connected(served.path) as raw:
            call = await raw.start(EXEC)
            start = wire.ExecStart(lease_id=vm.lease_id, argv=["sleep", "1000"])
            await raw.send(call, framed(wire.ExecRequest(start=start)))
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
        await served.until(lambda: served.server.statistics().calls == 1)  # the one that holds the lease
        assert len(served.coordinator.leases()) == 1


class FailsWhenLeft:
    """Fails in the moment in which its caller goes away."""

    def __init__(self) -> None:
        self.asked, self.left = trio.Event(), trio.Event()

    async def wait(self, _process: ProcessRef) -> NoReturn:
        self.asked.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            self.left.set()
            raise BaseExceptionGroup("both", [refusal("EIO"), cancelled]) from None
        raise AssertionError("it sleeps")


async def test_nobody_is_told_of_what_fails_as_a_caller_goes_away(served: Served) -> None:
    """No ERROR is logged, which would fail the test."""
    guest = FailsWhenLeft()
    lease_id = await lease_with(served, processes=guest)
    async with connected(served.path) as raw:
        process = wire.ProcessRef(lease_id=lease_id, process_id=7)
        call = await raw.request("/vmpool.v1.Processes/Wait", wire.WaitProcessRequest(process=process))
        await guest.asked.wait()
        raw.http2.reset_stream(call)
        await raw.flush()
        await guest.left.wait()
        await served.until(lambda: served.server.statistics().calls == 0)
