"""A real service with real VMs, shared by the tests of a module that leave it as it was.

Its VMs are clones: to boot one takes twenty times as long, and is the subject of other tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.integration.service.templates import config, is_full
from tests.running import RunningService, running_service
from tests.templates import place_for_template
from tests.waiting import until
from vmm.initramfs.image import GuestImage
from vmpool.client import open_client


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.qemu)


@pytest.fixture(scope="session")
def kept_template(guest_image: GuestImage) -> Iterator[Path]:
    """As a service builds it whose machine is that of `config`; services begin with copies of it."""

    async def built(service: RunningService) -> None:
        async with open_client(service.socket_path) as client:
            await until(lambda: is_full(client))

    with place_for_template() as place:
        with running_service(config(place, size=0), image_directory=guest_image.kernel.parent) as service:
            trio.run(built, service)
        yield place


@pytest.fixture(scope="module")
def service(kept_template: Path, guest_image: GuestImage) -> Iterator[RunningService]:
    with (
        place_for_template(kept_template) as place,
        running_service(config(place, size=2), image_directory=guest_image.kernel.parent) as service,
    ):
        yield service
