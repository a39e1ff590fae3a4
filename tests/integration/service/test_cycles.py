"""Acquire and Release, over and over, on real VMs: never the same VM twice, nothing left.

VMPOOL_CYCLES sets how many; `scripts/cycles` runs the 60 that the project promises, or more.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
import trio

from pool.client import Client, open_client
from tests.running import RunningService, running_service
from tests.waiting import until
from vmm.guest.image import GuestImage

CYCLES = int(os.environ.get("VMPOOL_CYCLES", "12"))
CLIENTS = 8
WAIT_S = 600


@pytest.fixture
def service(guest_image: GuestImage) -> Iterator[RunningService]:
    config = '[profiles.default]\nsize = 3\naccelerator = "tcg"'
    with running_service(config, image_directory=guest_image.kernel.parent) as service:
        yield service


@pytest.mark.timeout(60 + 20 * CYCLES)
async def test_no_vm_is_handed_out_twice_and_nothing_is_left(service: RunningService) -> None:
    seen: list[tuple[str, str, bytes]] = []
    todo = iter(range(CYCLES))

    async def client_loop() -> None:
        async with open_client(service.socket_path) as client:
            for _ in todo:
                async with client.lease(timeout_s=WAIT_S) as vm:
                    mark = uuid.uuid4().hex
                    # A VM that was anyone's before would still have the file.
                    script = f"cat /tmp/mark 2>/dev/null; echo {mark} > /tmp/mark; head -c 16 /dev/urandom | xxd -p"
                    async with client.exec(vm.lease_id, ["sh", "-c", script]) as command:
                        done = await command.collect()
                    assert done.exit.status == 0, done
                    seen.append((vm.vm_id, vm.lease_id, done.stdout))

    async with open_client(service.socket_path) as observer:
        await until(lambda: is_full(observer))
        descriptors = service.descriptors()
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(client_loop)
        await until(lambda: is_full(observer))

        assert len(seen) == CYCLES
        for column, what in enumerate(("VM", "lease", "random bytes")):
            assert len({row[column] for row in seen}) == CYCLES, f"a {what} came twice"
        assert all(len(output) == 33 for _, _, output in seen), "a VM was somebody's before"
        assert set(service.qemus()).isdisjoint(vm_id for vm_id, _, _ in seen)
        assert len(list((service.runtime / "vms").iterdir())) == 3
        assert service.descriptors() == descriptors


async def is_full(client: Client) -> bool:
    """The pool is full and nothing is on its way."""
    (profile,) = (await client.status()).profiles
    return profile.ready == profile.size and not (profile.producing or profile.stopping or profile.leased)
