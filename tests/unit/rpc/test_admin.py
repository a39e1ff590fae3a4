"""What an administrator may ask for: the effect of each call, its statuses, and who may not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from pool.core.requests import RefusedError
from pool.ledger.demand import AdaptiveSize
from pool.ledger.policy import OnEmpty
from pool.ledger.records import Owner
from pool.ledger.views import CircuitState, ProfileView
from pool.rpc.server import ServerSettings
from pool.settings.config import MAX_POOL_SIZE
from tests.unit.rpc.raw import RawClient, connected
from tests.unit.rpc.served import Served, serving
from vmm.simulated import BootFails
from vmpool.wire.generated.vmpool import v1 as wire

OK, INVALID, NOT_FOUND, DENIED, PRECONDITION, UNAVAILABLE = "0", "3", "5", "7", "9", "14"
CALLER = Owner(uid=os.geteuid())
STRANGER = 4242

CALLS: dict[str, Any] = {
    "Resize": wire.ResizeRequest(size=1),
    "Drain": wire.DrainRequest(),
    "Undrain": wire.UndrainRequest(),
    "Evict": wire.EvictRequest(profile="default"),
    "Reset": wire.ResetRequest(),
    "HandOver": wire.HandOverRequest(),
}
"""Every method, with a request that is good."""


async def ask(raw: RawClient, method: str, request: Any) -> tuple[str, str]:
    return await raw.status(await raw.request(f"/vmpool.v1.Admin/{method}", request))


def view(served: Served) -> ProfileView:
    (only,) = served.coordinator.views()
    return only


# -- who may -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", CALLS)
async def test_a_stranger_is_refused_and_nothing_happens(
    vm_home: Path, call_as: Callable[[int], None], method: str
) -> None:
    handed_over: list[bool] = []
    settings = ServerSettings(allowed_uids=frozenset({STRANGER}))
    async with serving(vm_home, settings=settings, hand_over=lambda: handed_over.append(True)) as served:
        await served.until(lambda: view(served).ready == 2)
        before = view(served)
        vms = served.host.alive
        call_as(STRANGER)
        async with connected(served.path) as raw:
            status, message = await ask(raw, method, CALLS[method])
        assert (status, handed_over) == (DENIED, [])
        assert message == f"uid {STRANGER} may not administer the service; run this as root or as uid {os.geteuid()}"
        assert (view(served), served.host.alive) == (before, vms)


@pytest.mark.parametrize("method", CALLS)
async def test_a_stranger_learns_no_more_from_a_bad_request(
    vm_home: Path, call_as: Callable[[int], None], method: str
) -> None:
    settings = ServerSettings(allowed_uids=frozenset({STRANGER}))
    call_as(STRANGER)
    async with serving(vm_home, settings=settings) as served, connected(served.path) as raw:
        call = await raw.start(f"/vmpool.v1.Admin/{method}")
        await raw.send(call, end=True)
        assert (await raw.status(call))[0] == DENIED


# -- resize ------------------------------------------------------------------------------------------------------------


async def test_resize_grows_and_shrinks_the_pool(served: Served) -> None:
    async with connected(served.path) as raw:
        assert (await ask(raw, "Resize", wire.ResizeRequest(profile="default", size=4)))[0] == OK
        await served.until(lambda: view(served).ready == 4)
        assert (await ask(raw, "Resize", wire.ResizeRequest(size=1)))[0] == OK
        await served.until(lambda: (view(served).ready, len(served.host.alive)) == (1, 1))
    assert view(served).size == 1


async def test_resize_to_nothing_tells_those_who_wait_for_the_pool(vm_home: Path) -> None:
    async with serving(vm_home, size=1, boot_s=1000) as served, connected(served.path) as raw:
        waiting = await raw.request("/vmpool.v1.Pool/Acquire", wire.AcquireRequest())
        await served.until(lambda: view(served).waiting == 1)
        assert (await ask(raw, "Resize", wire.ResizeRequest(size=0)))[0] == OK
        status, message = await raw.status(waiting)
        assert status == "8"
        assert "raise the pool's size" in message


async def test_a_size_that_follows_demand_is_nobodys_to_set(vm_home: Path) -> None:
    async with serving(vm_home, policy={"adaptive": AdaptiveSize(maximum=4)}) as served, connected(served.path) as raw:
        status, message = await ask(raw, "Resize", wire.ResizeRequest(size=3))
        assert status == PRECONDITION
        assert "default" in message
        assert view(served).size == 1


@pytest.mark.parametrize("size", [MAX_POOL_SIZE + 1, 2**32 - 1])
async def test_an_absurd_size_is_refused(served: Served, size: int) -> None:
    async with connected(served.path) as raw:
        status, message = await ask(raw, "Resize", wire.ResizeRequest(size=size))
    assert (status, message) == (INVALID, f"size: {size} is out of range; the maximum is {MAX_POOL_SIZE}")
    assert view(served).size == 2


# -- drain and undrain -----------------------------------------------------------------------------------------------


async def test_drain_stops_idle_vms_and_refuses_who_comes_until_resume(served: Served) -> None:
    lease = await served.coordinator.acquire(profile="default", owner=CALLER)
    async with connected(served.path) as raw:
        assert (await ask(raw, "Drain", wire.DrainRequest()))[0] == OK
        await served.until(lambda: served.host.alive == {lease.vm_id})
        assert view(served).drained
        with pytest.raises(RefusedError, match="is drained"):
            await served.coordinator.acquire(profile="default", owner=CALLER, on_empty=OnEmpty.BOOT)
        assert (await ask(raw, "Undrain", wire.UndrainRequest()))[0] == OK
        await served.until(lambda: view(served).ready == 2)
    assert served.coordinator.leases() == (lease,)


async def test_drain_refuses_who_waits(vm_home: Path) -> None:
    async with serving(vm_home, size=1, boot_s=1000) as served, connected(served.path) as raw:
        waiting = await raw.request("/vmpool.v1.Pool/Acquire", wire.AcquireRequest())
        await served.until(lambda: view(served).waiting == 1)
        assert (await ask(raw, "Drain", wire.DrainRequest()))[0] == OK
        assert (await raw.status(waiting))[0] == UNAVAILABLE


# -- evict -------------------------------------------------------------------------------------------------------------


async def test_evict_stops_one_idle_vm_and_the_pool_replaces_it(served: Served) -> None:
    victim, other = sorted(served.host.alive)
    async with connected(served.path) as raw:
        assert (await ask(raw, "Evict", wire.EvictRequest(vm_id=victim)))[0] == OK
    await served.until(lambda: view(served).ready == 2 and victim not in served.host.alive)
    assert other in served.host.alive
    assert view(served).counters.evicted == 1


async def test_evict_of_a_profile_replaces_all_that_are_idle(served: Served) -> None:
    lease = await served.coordinator.acquire(profile="default", owner=CALLER)
    await served.until(lambda: view(served).ready == 2)
    before = served.host.alive
    async with connected(served.path) as raw:
        assert (await ask(raw, "Evict", wire.EvictRequest(profile="default")))[0] == OK
    await served.until(lambda: view(served).ready == 2 and served.host.alive & before == {lease.vm_id})


async def test_a_vm_in_use_is_not_evicted(served: Served) -> None:
    lease = await served.coordinator.acquire(profile="default", owner=CALLER)
    async with connected(served.path) as raw:
        status, message = await ask(raw, "Evict", wire.EvictRequest(vm_id=lease.vm_id))
    assert status == PRECONDITION
    assert lease.vm_id in message
    assert served.coordinator.leases() == (lease,)


@pytest.mark.parametrize("request_", [wire.EvictRequest(), wire.EvictRequest(vm_id="")], ids=["nothing", "no id"])
async def test_evict_needs_to_be_told_what(served: Served, request_: wire.EvictRequest) -> None:
    async with connected(served.path) as raw:
        assert await ask(raw, "Evict", request_) == (INVALID, "what: is not set; set vm_id or profile")


async def test_an_unknown_vm_is_named(served: Served) -> None:
    async with connected(served.path) as raw:
        status, message = await ask(raw, "Evict", wire.EvictRequest(vm_id="vm-0"))
    assert status == NOT_FOUND
    assert "vm-0" in message


# -- reset -------------------------------------------------------------------------------------------------------------


async def test_reset_forgets_failures_and_production_goes_on(vm_home: Path) -> None:
    def failing_at_first(number: int) -> tuple[BootFails, ...]:
        return (BootFails(reason="no kernel"),) if number < 1 else ()

    policy = {"breaker_threshold": 1}
    async with serving(vm_home, size=1, faults=failing_at_first, policy=policy) as served:
        await served.until(lambda: view(served).circuit is CircuitState.OPEN)
        async with connected(served.path) as raw:
            assert (await ask(raw, "Reset", wire.ResetRequest()))[0] == OK
        assert (view(served).circuit, view(served).failures_in_a_row) == (CircuitState.CLOSED, 0)
        await served.until(lambda: view(served).ready == 1)


# -- hand over ---------------------------------------------------------------------------------------------------------


async def test_hand_over_begins_when_its_caller_has_the_reply(vm_home: Path) -> None:
    begun: list[str] = []
    async with serving(vm_home, hand_over=lambda: begun.append("now")) as served, connected(served.path) as raw:
        flush = raw.flush
        silent = trio.lowlevel.checkpoint
        call = await raw.request("/vmpool.v1.Admin/HandOver", wire.HandOverRequest())
        raw.flush = silent  # type: ignore[method-assign]  # the receipt stays here
        assert await raw.message(call, wire.HandOverReply) == wire.HandOverReply()
        assert begun == []
        raw.flush = flush  # type: ignore[method-assign]
        await raw.flush()
        assert (await raw.status(call))[0] == OK
        assert begun == ["now"]


async def test_hand_over_does_not_begin_for_a_caller_who_never_read_the_reply(vm_home: Path) -> None:
    begun: list[str] = []
    async with serving(vm_home, hand_over=lambda: begun.append("now")) as served:
        async with connected(served.path) as raw:
            await raw.request("/vmpool.v1.Admin/HandOver", wire.HandOverRequest())
            await served.until(lambda: served.server.statistics().calls == 1)
        await served.until(lambda: served.server.statistics().calls == 0)
    assert begun == []


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [method for method in CALLS if method != "HandOver"])
async def test_an_unknown_profile_is_named(served: Served, method: str) -> None:
    request = type(CALLS[method])(profile="gpu")
    async with connected(served.path) as raw:
        assert await ask(raw, method, request) == (
            NOT_FOUND,
            "profile: there is no profile 'gpu'; configured: default",
        )


@pytest.mark.parametrize("method", [method for method in CALLS if method != "HandOver"])
async def test_a_name_that_is_too_long_is_refused(served: Served, method: str) -> None:
    request = type(CALLS[method])(profile="p" * 129)
    async with connected(served.path) as raw:
        assert await ask(raw, method, request) == (INVALID, "profile: has 129 bytes; at most 128 are allowed")


@pytest.mark.parametrize("method", CALLS)
async def test_a_request_without_a_message(served: Served, method: str) -> None:
    async with connected(served.path) as raw:
        call = await raw.start(f"/vmpool.v1.Admin/{method}")
        await raw.send(call, end=True)
        assert await raw.status(call) == (INVALID, "request: is missing; send one message")


@pytest.mark.parametrize("method", CALLS)
async def test_a_service_that_shuts_down_refuses(served: Served, method: str) -> None:
    connection = connected(served.path)
    running = ["cat"]
    async with served.client() as client, client.lease() as vm, client.exec(vm.lease_id, running), connection as raw:
        served.server.stop(grace_s=20)
        while not (await client.status()).draining:
            pass
        assert (await ask(raw, method, CALLS[method]))[0] == UNAVAILABLE
