"""A real service with real VMs, shared by the tests of a module that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import RunningService, running_service
from vmm.guest.image import GuestImage

CONFIG = """
[profiles.default]
size = 2
accelerator = "tcg"
backoff_initial_s = 0.1
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.qemu)


@pytest.fixture(scope="module")
def service(guest_image: GuestImage) -> Iterator[RunningService]:
    with running_service(CONFIG, image_directory=guest_image.kernel.parent) as service:
        yield service
