"""One user asks for all he can: the others' calls, and root's, go on as before."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from pool.ledger.policy import ServicePolicy
from pool.rpc.server import ServerSettings
from tests.unit.rpc.raw import ACQUIRE, RELEASE, STATUS, connected
from tests.unit.rpc.served import serving
from vmm.simulated import BootHangs, Fault
from vmpool.wire.generated.vmpool import v1 as wire

GREEDY, OTHER = 4242, 4343

RENEW, WATCH, DRAIN = "/vmpool.v1.Pool/Renew", "/vmpool.v1.Pool/Watch", "/vmpool.v1.Admin/Drain"

RESOURCE_EXHAUSTED = "8"

PER_USER = 30


def only_the_first_two_boot(number: int) -> tuple[Fault, ...]:
    return () if number < 2 else (BootHangs(),)


async def test_who_waits_keeps_nobody_from_anything(vm_home: Path, call_as: Callable[[int], None]) -> None:
    service = serving(
        vm_home,
        faults=only_the_first_two_boot,
        settings=ServerSettings(allowed_uids=frozenset({0, GREEDY, OTHER})),
        service=ServicePolicy(requests_per_uid=PER_USER, requests=2 * PER_USER),
    )
    async with service as served, contextlib.AsyncExitStack() as connections:
        call_as(OTHER)
        others = await connections.enter_async_context(connected(served.path))
        call_as(GREEDY)
        greedy = await connections.enter_async_context(connected(served.path))
        await served.until(lambda: served.coordinator.views()[0].ready == 2)
        call = await others.request(ACQUIRE, wire.AcquireRequest())
        mine = await others.message(call, wire.AcquireReply)
        assert isinstance(mine, wire.AcquireReply)
        assert mine.lease is not None

        calls = [await greedy.request(ACQUIRE, wire.AcquireRequest()) for _ in range(PER_USER + 3)]
        assert isinstance(await greedy.message(calls[0], wire.AcquireReply), wire.AcquireReply), "what was ready is his"
        for call in calls[-2:]:
            status, message = await greedy.status(call)
            assert status == RESOURCE_EXHAUSTED
            assert message.startswith(f"user {GREEDY} already has {PER_USER} requests waiting; ")
        await served.until(lambda: served.coordinator.views()[0].waiting == PER_USER)

        waits = await others.request(ACQUIRE, wire.AcquireRequest())
        await served.until(lambda: served.coordinator.views()[0].waiting == PER_USER + 1)
        renewal = wire.RenewRequest(lease_id=mine.lease.lease_id, ttl_ms=1000)
        for path, request in (
            (RENEW, renewal),
            (STATUS, wire.StatusRequest()),
            (RELEASE, wire.ReleaseRequest(lease_id=mine.lease.lease_id)),
        ):
            assert await others.status(await others.request(path, request)) == ("0", "")
        watch = await others.request(WATCH, wire.WatchRequest())
        assert isinstance(await others.message(watch, wire.WatchReply), wire.WatchReply)

        call_as(0)
        root = await connections.enter_async_context(connected(served.path))
        drain = await root.request(DRAIN, wire.DrainRequest(profile="default"))
        assert await root.status(drain) == ("0", "")
        assert (await others.status(waits))[1].startswith("profile default is drained")
