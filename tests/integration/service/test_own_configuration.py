"""Requests that describe a machine, of a real service: served from its pool, or booted as described."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.service.templates import config
from tests.running import RunningService, running_service
from tests.templates import place_for_template
from tests.unit.rpc.raw import ACQUIRE, connected
from tests.waiting import LIMIT_S
from vmm.initramfs.image import GuestImage
from vmpool.client import open_client
from vmpool.wire.generated.vmpool import v1 as wire

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def one_pool(guest_image: GuestImage) -> Iterator[RunningService]:
    with (
        place_for_template() as place,
        running_service(
            config(place, kernel_parameters="vmpool.pool=1"), image_directory=guest_image.kernel.parent
        ) as service,
    ):
        yield service


async def acquire(service: RunningService, wanted: wire.VmConfig) -> wire.AcquireReply:
    async with connected(service.socket_path) as raw:
        call = await raw.request(ACQUIRE, wire.AcquireRequest(config=wanted))
        reply = await raw.message(call, wire.AcquireReply, limit_s=LIMIT_S)
        assert isinstance(reply, wire.AcquireReply), await raw.status(call)
        assert await raw.status(call) == ("0", "")
        return reply


async def test_one_is_served_from_the_pool_and_another_is_booted_as_described(
    one_pool: RunningService, guest_image: GuestImage
) -> None:
    async with open_client(one_pool.socket_path) as client:
        pooled = await acquire(one_pool, wire.VmConfig())
        image = guest_image.kernel.parent
        kernel = f"{image}/../{image.name}/{guest_image.kernel.name}"  # another path to the same
        again = await acquire(one_pool, wire.VmConfig(kernel=kernel, cpu_model="max"))
        own = await acquire(one_pool, wire.VmConfig(kernel_parameters="vmpool.own=1"))

        for reply in (pooled, again):
            assert reply.lease is not None
            assert reply.match == wire.Match(profile="default")
            assert reply.lease.profile == "default"
        assert own.lease is not None
        assert own.match == wire.Match(mismatches=[wire.Mismatch(profile="default", fields=["kernel_parameters"])])
        assert own.timings is not None
        assert not own.timings.was_ready
        for reply, there, not_there in (
            (pooled, "vmpool.pool=1", "vmpool.own=1"),
            (own, "vmpool.own=1", "vmpool.pool=1"),
        ):
            assert reply.lease is not None
            async with client.exec(reply.lease.lease_id, ["cat", "/proc/cmdline"]) as command:
                parameters = (await command.collect()).stdout.decode().split()
            assert there in parameters
            assert not_there not in parameters
        for reply in (pooled, again, own):
            assert reply.lease is not None
            await client.release(reply.lease.lease_id)


async def test_what_qemu_says_of_a_model_that_it_does_not_know_is_in_the_log_alone(one_pool: RunningService) -> None:
    async with connected(one_pool.socket_path) as raw:
        call = await raw.request(ACQUIRE, wire.AcquireRequest(config=wire.VmConfig(cpu_model="nonesuch")))
        status, message = await raw.status(call)
    assert status == "14"
    assert "nonesuch" not in message
    assert message.endswith("the service's log has QEMU's output")
