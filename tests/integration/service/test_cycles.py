"""Acquire and Release, over and over, on real VMs: never the same VM twice, nothing left.

VMPOOL_CYCLES sets how many, VMPOOL_CYCLES_PRODUCER with which producer alone; `scripts/cycles` runs the 60 that the
project promises, or more.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from tests.integration.service.templates import config, is_full
from tests.running import RunningService, running_service
from tests.templates import place_for_template
from tests.waiting import until
from vmm.initramfs.image import GuestImage
from vmpool.client import open_client

CYCLES = {"direct": 12, "template": 24}
if "VMPOOL_CYCLES" in os.environ:
    CYCLES = dict.fromkeys(CYCLES, int(os.environ["VMPOOL_CYCLES"]))
PRODUCERS = [os.environ["VMPOOL_CYCLES_PRODUCER"]] if "VMPOOL_CYCLES_PRODUCER" in os.environ else list(CYCLES)
CLIENTS = 8
WAIT_S = 600

CLOCK_SLACK_NS = 50_000_000
"""The guest's clock runs by the host's time from the moment at which it is set; its steps are coarser."""


@attrs.frozen(kw_only=True)
class Cycle:
    """What one client saw of its VM."""

    vm_id: str
    lease_id: str
    drawn: bytes
    made_by: str


@pytest.fixture(params=PRODUCERS)
def producer(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def service(kept_template: Path, guest_image: GuestImage, producer: str) -> Iterator[RunningService]:
    with place_for_template(kept_template) as place:
        settings = config(place, size=3, producer=producer, strict_uniqueness=True)
        with running_service(settings, image_directory=guest_image.kernel.parent) as service:
            yield service


@pytest.mark.timeout(60 + 20 * max(CYCLES.values()))
async def test_no_vm_is_handed_out_twice_and_nothing_is_left(service: RunningService, producer: str) -> None:
    cycles = CYCLES[producer]
    seen: list[Cycle] = []
    todo = iter(range(cycles))

    async def client_loop() -> None:
        async with open_client(service.socket_path) as client:
            for _ in todo:
                began_ns = time.time_ns()
                async with client.lease(timeout_s=WAIT_S) as vm:
                    ended_ns = time.time_ns()
                    assert began_ns - CLOCK_SLACK_NS <= vm.guest.wall_clock_ns <= ended_ns + CLOCK_SLACK_NS
                    mark = uuid.uuid4().hex
                    # A VM that was anyone's before would still have the file.
                    script = f"cat /tmp/mark 2>/dev/null; echo {mark} > /tmp/mark; head -c 16 /dev/urandom | xxd -p"
                    async with client.exec(vm.lease_id, ["sh", "-c", script]) as command:
                        done = await command.collect()
                    assert done.exit.status == 0, done
                    seen.append(Cycle(vm_id=vm.vm_id, lease_id=vm.lease_id, drawn=done.stdout, made_by=vm.made_by))

    async with open_client(service.socket_path) as observer:
        await until(lambda: is_full(observer))
        descriptors = service.descriptors()
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(client_loop)
        await until(lambda: is_full(observer))

        assert len(seen) == cycles
        for what in ("vm_id", "lease_id", "drawn"):
            assert len({getattr(cycle, what) for cycle in seen}) == cycles, f"a {what} came twice"
        assert all(len(cycle.drawn) == 33 for cycle in seen), "a VM was somebody's before"
        assert {cycle.made_by for cycle in seen} == {producer}
        assert set(service.qemus()).isdisjoint(cycle.vm_id for cycle in seen)
        assert len(list((service.runtime / "vms").iterdir())) == 3
        assert service.descriptors() == descriptors
