"""The four calls through the SDK, and their statuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from h2.settings import SettingCodes

from pool.core.coordinator import Coordinator
from pool.ledger.records import Owner
from pool.ledger.views import ProfileView
from pool.rpc.admin import may_administer
from pool.rpc.server import ServerSettings
from tests.unit.rpc.raw import ACQUIRE, STATUS, connected
from tests.unit.rpc.served import EVIDENCE, CoordinatorWithEvidence, Served, serving
from vmm.simulated import BootFails, scripted
from vmpool.client import CallError, OnEmpty
from vmpool.wire.generated.vmpool import v1 as wire


async def test_acquire_tells_all_of_the_vm_and_where_the_time_went(served: Served) -> None:
    async with served.client() as client:
        vm = await client.acquire()
    (lease,) = served.coordinator.leases()
    assert (vm.lease_id, vm.vm_id, vm.profile) == (lease.lease_id, lease.vm_id, "default")
    assert vm.guest.hostname == vm.vm_id
    assert vm.guest.reseeded
    assert vm.timings.was_ready
    assert vm.timings.total_s >= vm.timings.prepare_s > 0


async def test_a_lease_outlives_its_connection_and_ends_with_release(served: Served) -> None:
    async with served.client() as client:
        vm = await client.acquire()
    async with served.client() as client:
        await client.release(vm.lease_id)
        with pytest.raises(CallError, match="has already ended \\(released") as refused:
            await client.release(vm.lease_id)
    assert refused.value.status == "FAILED_PRECONDITION"


async def test_lease_releases_at_the_end_of_its_block_even_if_cancelled(served: Served) -> None:
    async with served.client() as client:
        with trio.CancelScope() as scope:
            async with client.lease():
                assert served.coordinator.leases()
                scope.cancel()
                await trio.sleep_forever()
    assert served.coordinator.leases() == ()


async def test_an_idempotency_key_gives_the_same_lease(served: Served) -> None:
    async with served.client() as client:
        first = await client.acquire(idempotency_key="job-7")
        again = await client.acquire(idempotency_key="job-7")
    assert first.lease_id == again.lease_id


async def test_a_reply_and_its_status_come_in_one_packet(served: Served) -> None:
    """Each packet wakes the client."""
    async with connected(served.path) as raw:
        await raw.status(await raw.request(STATUS, wire.StatusRequest()))
        (connection,) = served.server._server.connections
        packets: list[bytes] = []
        write = connection.transport.write

        def note(data: bytes) -> None:
            packets.append(data)
            write(data)

        connection.transport.write = note  # type: ignore[assignment, method-assign]
        assert await raw.status(await raw.request(STATUS, wire.StatusRequest())) == ("0", "")
        assert len([packet for packet in packets if packet]) == 1


async def test_a_reply_that_does_not_fit_into_the_window_comes_in_pieces(served: Served) -> None:
    async with connected(served.path) as raw:
        raw.http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
        await raw.flush()
        call = await raw.request(STATUS, wire.StatusRequest())
        assert await raw.status(call) == ("0", "")
        reply = await raw.message(call, wire.StatusReply)
    assert reply is not None
    assert reply.version == "1.2.3"


async def test_unknown_profile(served: Served) -> None:
    async with served.client() as client:
        with pytest.raises(CallError, match="profile: there is no profile 'gpu'; configured: default") as refused:
            await client.acquire(profile="gpu")
    assert refused.value.status == "NOT_FOUND"


async def test_unknown_lease(served: Served) -> None:
    async with served.client() as client:
        with pytest.raises(CallError, match="lease_id: there is no lease 'lease-0'") as refused:
            await client.release("lease-0")
    assert refused.value.status == "NOT_FOUND"


async def test_on_empty_fail_is_refused_at_once_and_boot_boots(vm_home: Path) -> None:
    async with serving(vm_home, size=0) as service, service.client() as client:
        with pytest.raises(CallError, match="no VM is ready") as refused:
            await client.acquire(on_empty=OnEmpty.FAIL)
        assert refused.value.status == "RESOURCE_EXHAUSTED"
        vm = await client.acquire(on_empty=OnEmpty.BOOT)
        assert not vm.timings.was_ready


async def test_a_boot_that_fails_is_unavailable_and_says_why(vm_home: Path) -> None:
    plan = scripted({0: (BootFails(reason="no kernel"),)})
    async with serving(vm_home, size=0, faults=plan) as service, service.client() as client:
        with pytest.raises(CallError, match="no kernel") as refused:
            await client.acquire(on_empty=OnEmpty.BOOT)
    assert refused.value.status == "UNAVAILABLE"


async def test_the_deadline_comes_with_the_pools_explanation(vm_home: Path) -> None:
    async with serving(vm_home, size=1, boot_s=1000) as service, service.client() as client:
        with pytest.raises(CallError, match="no VM became available in time \\(1 in production") as refused:
            await client.acquire(timeout_s=1.0)  # a tenth of it is for the explanation, on a busy machine, too
    assert refused.value.status == "DEADLINE_EXCEEDED"


async def test_a_deadline_that_has_passed_already_is_one(served: Served) -> None:
    async with connected(served.path) as raw:
        call = await raw.request(ACQUIRE, wire.AcquireRequest(), headers={"grpc-timeout": "0n"})
        assert (await raw.status(call))[0] == "4"
    await served.until(served.lost)


async def test_without_a_deadline_the_services_own_limit_holds(vm_home: Path) -> None:
    settings = ServerSettings(acquire_timeout_s=0.1)
    async with serving(vm_home, size=1, boot_s=1000, settings=settings) as service, connected(service.path) as raw:
        call = await raw.request(ACQUIRE, wire.AcquireRequest())
        status, message = await raw.status(call)
    assert status == "4"
    assert "no VM became available in time" in message


@pytest.mark.parametrize("timeout", ["never", "1", "-1S", "1e3S", "9" * 5000 + "H", "9" * 400 + "S"])
async def test_a_timeout_that_is_none_ends_the_call(served: Served, timeout: str) -> None:
    async with connected(served.path) as raw:
        call = await raw.request(ACQUIRE, wire.AcquireRequest(), headers={"grpc-timeout": timeout})
        status, message = await raw.status(call)
    assert (status, message) in {("2", "Invalid grpc-timeout header"), ("", "")}
    await served.until(served.lost)


async def test_status_counts_and_lists_ones_own_leases(served: Served) -> None:
    async with served.client() as client:
        vm = await client.acquire()
        status = await client.status()
    (profile,) = status.profiles
    assert (status.version, status.pid, status.draining) == ("1.2.3", os.getpid(), False)
    assert (profile.name, profile.size, profile.leased, profile.counters.hits) == ("default", 2, 1, 1)
    assert (profile.producer.kind, profile.producer.accelerator, profile.vcpus) == ("direct", "tcg", 1)
    assert [lease.lease_id for lease in status.leases] == [vm.lease_id]
    assert attrs.asdict(status)["leases"][0]["owner_uid"] == os.geteuid()


async def test_status_tells_why_production_fails(vm_home: Path) -> None:
    plan = scripted(dict.fromkeys(range(99), (BootFails(reason="no kernel"),)))
    async with serving(vm_home, size=1, faults=plan) as service, service.client() as client:
        await service.until(lambda: service.coordinator.views()[0].last_error != "")
        (profile,) = (await client.status()).profiles
    assert "no kernel" in profile.last_error
    assert profile.failures_in_a_row >= 1


async def test_evidence_is_for_root_and_the_services_own_user(vm_home: Path) -> None:
    async with serving(vm_home, coordinator_type=CoordinatorWithEvidence) as service, service.client() as client:
        (profile,) = (await client.status()).profiles
    assert profile.last_evidence == EVIDENCE


class CoordinatorOfAnOddPlace(Coordinator):
    """Its runtime directory is not UTF-8, as is what quotes it."""

    def views(self) -> tuple[ProfileView, ...]:
        odd = os.fsdecode(b"/run/odd-\xff/qemu.log")
        told: dict[str, Any] = {"last_evidence": odd, "last_error": odd}
        return tuple(attrs.evolve(view, **told) for view in super().views())


async def test_what_is_not_utf8_of_a_text_is_written_out(vm_home: Path) -> None:
    async with serving(vm_home, coordinator_type=CoordinatorOfAnOddPlace) as service, service.client() as client:
        (profile,) = (await client.status()).profiles
    assert (profile.last_evidence, profile.last_error) == (r"/run/odd-\udcff/qemu.log",) * 2


def test_evidence_is_not_for_others() -> None:
    assert not may_administer(Owner(uid=1001), service_uid=1000)
    assert may_administer(Owner(uid=1000), service_uid=1000)
    assert may_administer(Owner(uid=0), service_uid=1000)


async def test_the_leases_of_others_are_not_ones_own(served: Served) -> None:
    lease = await served.coordinator.acquire(profile="default", owner=Owner(uid=4242))
    async with served.client() as client:
        status = await client.status()
        if os.geteuid() != 0:
            assert status.leases == ()
            with pytest.raises(CallError) as refused:
                await client.release(lease.lease_id)
            assert refused.value.status == "PERMISSION_DENIED"
        else:
            assert [found.owner_uid for found in status.leases] == [4242]
            await client.release(lease.lease_id)
