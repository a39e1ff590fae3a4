"""Pool.Console: the end of a console, for whoever may see it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from pool.core.coordinator import CONSOLE_BYTES
from pool.ledger.records import Owner
from pool.rpc.server import ServerSettings
from pool.settings.limits import EdgeLimits
from tests.unit.rpc.raw import RawClient, connected
from tests.unit.rpc.served import Served, serving
from vmpool.client import CallError
from vmpool.wire.generated.vmpool import v1 as wire

CONSOLE = "/vmpool.v1.Pool/Console"
OK, INVALID, NOT_FOUND, DENIED, EXHAUSTED, PRECONDITION = "0", "3", "5", "7", "8", "9"
ALICE, BOB = 4242, 4243


async def console(raw: RawClient, vm_id: str) -> tuple[str, str]:
    """The status, and the text or the message."""
    call = await raw.request(CONSOLE, wire.ConsoleRequest(vm_id=vm_id))
    reply: Any = await raw.message(call, wire.ConsoleReply)
    status, message = await raw.status(call)
    return status, message if reply is None else reply.text


def shared() -> ServerSettings:
    return ServerSettings(allowed_uids=frozenset({os.geteuid(), ALICE, BOB}))


async def test_who_has_the_lease_sees_the_console_and_no_other_user_does(
    vm_home: Path, call_as: Callable[[int], None]
) -> None:
    async with serving(vm_home, settings=shared()) as served:
        lease = await served.coordinator.acquire(profile="default", owner=Owner(uid=ALICE))
        served.machine(lease.lease_id).console = b"[    0.1] hers\n"
        refusal = (
            f"vm_id: {lease.vm_id} is not leased to you; only its lease's owner and administrators may read its console"
        )
        seen = (OK, "[    0.1] hers")
        for uid, expected in ((ALICE, seen), (BOB, (DENIED, refusal)), (os.geteuid(), seen)):
            call_as(uid)
            async with connected(served.path) as raw:
                assert await console(raw, lease.vm_id) == expected


async def test_the_console_of_a_vm_that_is_nobodys_is_for_administrators(
    vm_home: Path, call_as: Callable[[int], None]
) -> None:
    async with serving(vm_home, settings=shared(), size=1) as served:
        await served.until(lambda: served.coordinator.views()[0].ready == 1)
        (idle,) = served.host.alive
        async with served.client() as client:
            assert "Linux version" in await client.console(idle)
        call_as(ALICE)
        async with connected(served.path) as raw:
            assert (await console(raw, idle))[0] == DENIED


async def test_a_lease_that_has_ended_shows_nothing_more(vm_home: Path, call_as: Callable[[int], None]) -> None:
    async with serving(vm_home, settings=shared()) as served:
        lease = await served.coordinator.acquire(profile="default", owner=Owner(uid=ALICE))
        await served.coordinator.release(lease.lease_id, owner=lease.owner)
        call_as(ALICE)
        async with connected(served.path) as raw:
            assert (await console(raw, lease.vm_id))[0] in {DENIED, NOT_FOUND}


@pytest.mark.parametrize(
    ("vm_id", "expected"),
    [
        ("", (INVALID, "vm_id: is empty; `vmpool watch` lists the VMs")),
        ("v" * 129, (INVALID, "vm_id: has 129 bytes; at most 128 are allowed")),
        ("vm-none", (NOT_FOUND, "vm_id: there is no VM 'vm-none'; `vmpool watch` lists the VMs")),
    ],
)
async def test_a_vm_that_there_is_not(served: Served, vm_id: str, expected: tuple[str, str]) -> None:
    async with connected(served.path) as raw:
        assert await console(raw, vm_id) == expected


async def test_a_vm_that_is_not_up_yet(vm_home: Path) -> None:
    async with serving(vm_home, size=1, boot_s=1000) as served, served.client() as client:
        await served.until(lambda: served.coordinator.views()[0].producing == 1)
        (vm,) = served.coordinator.snapshot().vms
        with pytest.raises(CallError, match=f"{vm.vm_id} is not up yet, or no longer up") as refused:
            await client.console(vm.vm_id)
    assert refused.value.status == "FAILED_PRECONDITION"


async def test_what_a_guest_writes_is_bounded_and_comes_as_it_is(served: Served) -> None:
    """Also of one that does not answer."""
    lease = await served.coordinator.acquire(profile="default", owner=Owner(uid=0))
    machine = served.machine(lease.lease_id)
    machine.console = b"x" * CONSOLE_BYTES + b"\x1b[31m\xff end"
    machine.mute()
    async with served.client() as client:
        text = await client.console(lease.vm_id)
    assert len(text.replace("\\xff", "?")) == CONSOLE_BYTES
    assert text.endswith("x\x1b[31m\\xff end")


async def test_replies_that_nobody_reads_count_against_their_user(vm_home: Path) -> None:
    settings = ServerSettings(limits=EdgeLimits(request_bytes_per_user=3 * CONSOLE_BYTES // 2))
    async with serving(vm_home, settings=settings, size=1) as served:
        await served.until(lambda: served.coordinator.views()[0].ready == 1)
        lease = await served.coordinator.acquire(profile="default", owner=Owner(uid=0))
        served.machine(lease.lease_id).console = "ä".encode() * (CONSOLE_BYTES // 2)
        async with connected(served.path) as raw:
            raw.http2.update_settings({4: 0})  # the window of each call to come
            calls = {await raw.request(CONSOLE, wire.ConsoleRequest(vm_id=lease.vm_id)) for _ in range(2)}
            with trio.fail_after(20):
                while not calls & raw.over:  # either may be answered first; the other one is refused
                    assert await raw.receive()
            (refused,) = calls & raw.over
            assert (await raw.status(refused))[0] == EXHAUSTED
