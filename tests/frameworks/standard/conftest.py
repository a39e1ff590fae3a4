"""One service for all of the frameworks' own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.running import RunningService, running_service
from vmm.initramfs.image import GuestImage

CONFIG = """
[profiles.default]
size = 1
memory_mib = 512
accelerator = "tcg"
"""


@pytest.fixture(scope="session")
def service(guest_image: GuestImage) -> Iterator[RunningService]:
    with running_service(CONFIG, image_directory=guest_image.kernel.parent) as service:
        yield service
