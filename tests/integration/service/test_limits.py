"""What the kernel lets a service have, which is started from a shell."""

from __future__ import annotations

import resource

import attrs

from tests.running import service_home
from vmm.initramfs.image import GuestImage

CONFIG = '[profiles.default]\nsize = 0\naccelerator = "tcg"'
SOFT, HARD = 100, 3000


def test_descriptors_end_at_the_hard_limit(guest_image: GuestImage) -> None:
    with service_home(CONFIG, image_directory=guest_image.kernel.parent) as plain:
        home = attrs.evolve(plain, prefix=("prlimit", f"--nofile={SOFT}:{HARD}", "--"))
        service = home.start()
        try:
            assert resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE) == (HARD, HARD)
        finally:
            home.end(service)
