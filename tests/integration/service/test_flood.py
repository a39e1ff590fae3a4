"""Guests whose root floods the service's channel, as fast as a guest can write. Nobody else's VM is any the worse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.integration.service.flooding import FLOOD, FLOOD_OF_EVENTS
from tests.integration.service.templates import config, output
from tests.running import RunningService, running_service
from tests.templates import place_for_template
from vmm.initramfs.image import GuestImage
from vmpool.client import CallError, Client, open_client

FLOODING = 3


@pytest.fixture
def service(kept_template: Path, guest_image: GuestImage) -> Iterator[RunningService]:
    with (
        place_for_template(kept_template) as place,
        running_service(config(place, size=FLOODING + 1), image_directory=guest_image.kernel.parent) as running,
    ):
        yield running


async def test_the_leases_of_those_end_with_the_reason_and_the_others_go_on(service: RunningService) -> None:
    async with open_client(service.socket_path) as client:
        other = await client.acquire()
        told: list[str] = []

        async def flood(client: Client) -> None:
            vm = await client.acquire()
            with pytest.raises(CallError) as caught:
                async with client.exec(vm.lease_id, ["python3", "-c", FLOOD]) as command:
                    await command.wait()
            told.append(str(caught.value))

        async with trio.open_nursery() as nursery:
            for _ in range(FLOODING):
                nursery.start_soon(flood, client)
        assert all("keeps sending frames that were not requested" in reason for reason in told), told
        assert await output(client, other.lease_id, "hostname") == f"{other.vm_id}\n"
        log = service.log.read_text()
        assert log.count("VM lost") == FLOODING
        assert log.count("keeps sending frames that were not requested") >= FLOODING
        await client.release(other.lease_id)


async def test_a_guest_that_has_qemu_flood_its_monitor_loses_its_lease_with_the_reason(service: RunningService) -> None:
    async with open_client(service.socket_path) as client:
        other = await client.acquire()
        flooding = await client.acquire()
        with pytest.raises(CallError, match="QEMU floods its QMP connection"):
            async with client.exec(flooding.lease_id, ["python3", "-c", FLOOD_OF_EVENTS]) as command:
                await command.wait()
        assert await output(client, other.lease_id, "hostname") == f"{other.vm_id}\n"
        assert service.log.read_text().count("VM lost") == 1
        await client.release(other.lease_id)
