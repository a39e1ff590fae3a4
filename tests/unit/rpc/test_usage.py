"""Pool.VmMetrics: what the guest tells, and the share of its CPUs that was busy since the call before."""

from __future__ import annotations

import gc
import weakref

import attrs
import pytest

from pool.ledger.records import Owner
from pool.rpc.machine.usage import busy_share
from tests.unit.rpc.fake_guest import USAGE, lease_with, refusal
from tests.unit.rpc.raw import connected
from tests.unit.rpc.served import Served
from vmm.words.usage import Usage
from vmpool.wire.generated.vmpool import v1 as wire

METRICS = "/vmpool.v1.Pool/VmMetrics"


@pytest.mark.parametrize(
    ("before", "now", "share"),
    [
        (None, (1000, 3000), 0.25),
        ((1000, 3000), (1500, 3500), 0.5),
        ((1000, 3000), (1500, 3000), 1.0),
        ((1000, 3000), (1000, 3000), 0.0),
        (None, (0, 0), 0.0),
        ((1000, 3000), (0, 0), 0.0),
        ((1000, 3000), (2000, 0), 1.0),
    ],
)
def test_a_share_is_between_0_and_1_whatever_a_guest_says(
    before: tuple[int, int] | None, now: tuple[int, int], share: float
) -> None:
    def usage(times: tuple[int, int]) -> Usage:
        return attrs.evolve(USAGE, cpu_busy_ms=times[0], cpu_idle_ms=times[1])

    assert busy_share(usage(now), since=None if before is None else usage(before)) == share


async def test_each_call_tells_of_the_time_since_the_one_before(served: Served) -> None:
    answers = [USAGE, attrs.evolve(USAGE, cpu_busy_ms=1300, cpu_idle_ms=3100)]

    async def usage() -> Usage:
        return answers.pop(0)

    lease_id = await lease_with(served, usage=usage)
    async with connected(served.path) as raw:
        request = wire.VmMetricsRequest(lease_id=lease_id)
        first, reply = [await raw.reply(await raw.request(METRICS, request), wire.VmMetricsReply) for _ in range(2)]
    assert (first.cpu_share, reply.cpu_share) == (0.25, 0.75)
    assert (reply.cpus_online, reply.cpu_busy_ms, reply.memory_available_bytes) == (2, 1300, 2**27)
    assert (reply.load_1m, reply.disk_available_bytes, reply.wall_clock_ns) == (0.5, 2**29, 10**18)


async def test_nothing_of_a_vm_that_was_asked_is_kept_when_it_is_gone(served: Served) -> None:
    async def usage() -> Usage:
        return USAGE

    lease_id = await lease_with(served, usage=usage)
    async with connected(served.path) as raw:
        call = await raw.request(METRICS, wire.VmMetricsRequest(lease_id=lease_id))
        await raw.status(call)
    agent = weakref.ref(served.coordinator.vm_of(lease_id, owner=Owner(uid=0)).agent)
    await served.coordinator.release(lease_id, owner=Owner(uid=0))
    await served.until(lambda: served.coordinator.views()[0].stopping == 0)
    gc.collect()
    assert agent() is None


async def test_a_guest_that_does_not_tell(served: Served) -> None:
    async def usage() -> Usage:
        raise refusal("UNSUPPORTED")

    lease_id = await lease_with(served, usage=usage)
    async with connected(served.path) as raw:
        call = await raw.request(METRICS, wire.VmMetricsRequest(lease_id=lease_id))
        assert (await raw.status(call))[0] == "9"
        assert (await raw.detail(call)).reason == "UNSUPPORTED"
