"""How long a lease lives: held open by a call, or for a time that can be renewed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.unit.rpc.raw import connected, framed
from tests.unit.rpc.served import Served, serving
from vmm.simulated import BootHangs, SimulatedVm
from vmm.words.processes import ExitReport
from vmpool.client import CallError
from vmpool.wire.generated.vmpool import v1 as wire

HOLD = "/vmpool.v1.Pool/Hold"


async def test_a_held_lease_ends_with_its_block(served: Served) -> None:
    async with served.client() as client, client.lease() as vm:
        assert [lease.lease_id for lease in served.coordinator.leases()] == [vm.lease_id]
        assert vm.expires_in_s is None
    assert served.lost()


async def test_a_held_lease_ends_with_its_connection(served: Served) -> None:
    async with connected(served.path) as raw:
        call = await raw.start(HOLD)
        await raw.send(call, framed(wire.AcquireRequest()))
        await served.until(lambda: len(served.coordinator.leases()) == 1)
    await served.until(served.lost)


async def test_a_held_lease_that_is_to_be_handed_over_does_not_end_with_its_connection(served: Served) -> None:
    served.coordinator.keep_held_leases()
    async with connected(served.path) as raw:
        call = await raw.start(HOLD)
        await raw.send(call, framed(wire.AcquireRequest()))
        await served.until(lambda: len(served.coordinator.leases()) == 1)
    await served.until(lambda: served.server.statistics().calls == 0)
    (lease,) = served.coordinator.leases()
    await served.coordinator.renew(lease.lease_id, owner=lease.owner, ttl_s=60)


async def test_a_held_lease_ends_with_its_process(served: Served, tmp_path: Path) -> None:
    """SIGKILL: no block of the client's is left in good order."""
    script = (
        "import os, sys, trio\n"
        "from pathlib import Path\n"
        "from vmpool.client import open_client\n"
        "async def main():\n"
        "    async with open_client(Path(sys.argv[1])) as client, client.lease():\n"
        "        os.write(1, b'held')\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    process = await trio.lowlevel.open_process([sys.executable, "-c", script, str(served.path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.receive_some(100) == b"held"
    assert len(served.coordinator.leases()) == 1
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await process.stdout.aclose()
    await served.until(served.lost)


async def test_who_holds_a_lease_is_told_when_its_vm_dies(served: Served) -> None:
    async with connected(served.path) as raw:
        call = await raw.start(HOLD)
        await raw.send(call, framed(wire.AcquireRequest()))
        await served.until(lambda: len(served.coordinator.leases()) == 1)
        (lease,) = served.coordinator.leases()
        vm = served.coordinator.vm_of(lease.lease_id, owner=lease.owner)
        assert isinstance(vm, SimulatedVm)
        vm.crash(ExitReport(signal=9))
        assert (await raw.status(call))[0] == "0"
        assert b"killed by signal 9 (SIGKILL)" in raw.data[call]
    await served.until(served.lost)


async def test_a_lease_ends_when_its_time_is_over(served: Served) -> None:
    async with served.client() as client:
        vm = await client.acquire(ttl_s=0.05)
        assert vm.expires_in_s is not None
        assert 0 < vm.expires_in_s <= 0.05
        await served.until(served.lost)
        with pytest.raises(CallError, match=r"already ended \(expired: it was not renewed") as refused:
            await client.release(vm.lease_id)
    assert refused.value.status == "FAILED_PRECONDITION"


async def test_a_renewed_lease_lives_on(served: Served) -> None:
    async with served.client() as client:
        vm = await client.acquire(ttl_s=1000)
        assert await client.renew(vm.lease_id, ttl_s=2000) > 1000
        (lease,) = (await client.status()).leases
        assert lease.expires_in_s is not None
        assert lease.expires_in_s > 1000

        await client.renew(vm.lease_id, ttl_s=0.01)
        await served.until(served.lost)


async def test_fencing_tokens_grow(served: Served) -> None:
    async with served.client() as client:
        first, second = await client.acquire(), await client.acquire()
    assert 0 < first.fencing_token < second.fencing_token


@pytest.mark.parametrize(
    ("lease_id", "ttl_s", "status", "message"),
    [
        ("lease-none", 10, "NOT_FOUND", "there is no lease"),
        ("", 10, "INVALID_ARGUMENT", "lease_id: is empty"),
        ("lease-none", 0, "INVALID_ARGUMENT", "ttl_ms: is 0"),
        ("lease-none", 31 * 24 * 3600, "INVALID_ARGUMENT", "more than 30 days"),
    ],
)
async def test_a_bad_renewal_is_named(served: Served, lease_id: str, ttl_s: float, status: str, message: str) -> None:
    async with served.client() as client:
        with pytest.raises(CallError, match=message) as refused:
            await client.renew(lease_id, ttl_s=ttl_s)
    assert refused.value.status == status


async def test_the_wait_of_a_hold_has_a_limit_of_its_own(vm_home: Path) -> None:
    async with serving(vm_home, size=1, faults=lambda _: [BootHangs()]) as served, served.client() as client:
        with pytest.raises(CallError) as refused:
            async with client.lease(timeout_s=0.01):
                raise AssertionError("there was none")
    assert refused.value.status == "DEADLINE_EXCEEDED"
