"""A service that was stopped for a while (SIGSTOP, as a busy host or a debugger does) has as many VMs as before.

Time is the subject here: nothing tells when a process has stood still for long enough.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from actors.parking import CHECK_TIMEOUT_S
from tests.integration.service.templates import config, is_full, output, profile_of
from tests.running import RunningService, running_service
from tests.templates import place_for_template
from tests.waiting import until
from vmm.initramfs.image import GuestImage
from vmpool.client import open_client

pytestmark = pytest.mark.timeout(240)

CHECK_EACH_S = 1.0
LEASE_S = 6.0


@pytest.fixture
def service(kept_template: Path, guest_image: GuestImage) -> Iterator[RunningService]:
    with (
        place_for_template(kept_template) as place,
        running_service(
            config(place, size=2, check_interval_s=CHECK_EACH_S), image_directory=guest_image.kernel.parent
        ) as running,
    ):
        yield running


async def test_idle_vms_outlive_a_standstill_of_their_service(service: RunningService) -> None:
    """It stops while it asks them: they answer when it cannot hear it."""
    async with open_client(service.socket_path) as client:
        await until(lambda: is_full(client))
        qemus = service.qemus()
        for qemu in qemus.values():
            qemu.send_signal(signal.SIGSTOP)
        await trio.sleep(CHECK_EACH_S * 1.2)  # a check of each is on its way
        service.process.send_signal(signal.SIGSTOP)
        for qemu in qemus.values():
            qemu.send_signal(signal.SIGCONT)
        await trio.sleep(CHECK_TIMEOUT_S + 0.5)
        service.process.send_signal(signal.SIGCONT)
        await until(lambda: is_full(client))
        assert service.qemus().keys() == qemus.keys()
        assert (await profile_of(client)).counters.lost_idle == 0


async def test_a_lease_that_its_owner_renewed_meanwhile_lives(service: RunningService) -> None:
    """Its time was over before the service could read the request."""
    async with open_client(service.socket_path) as client:
        vm = await client.acquire(ttl_s=LEASE_S)
        service.process.send_signal(signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.renew, vm.lease_id, ttl_s=60))
            await trio.sleep(LEASE_S + 0.5)
            service.process.send_signal(signal.SIGCONT)
        assert await output(client, vm.lease_id, "hostname") == f"{vm.vm_id}\n"
        await client.release(vm.lease_id)
