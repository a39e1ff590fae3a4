"""Whoever started the service may stop listening to it."""

from __future__ import annotations

from tests.running import service_home
from vmm.guest.image import GuestImage

CONFIG = '[profiles.default]\nsize = 0\naccelerator = "tcg"'


def test_nobody_to_tell_of_the_end_does_not_change_how_it_ends(guest_image: GuestImage) -> None:
    """It would end the VMs that it is to hand over, and say that it failed."""
    with service_home(CONFIG, image_directory=guest_image.kernel.parent) as home:
        service = home.start()
        home.notices.close()
        assert service.stop() == 0, home.log.read_text()
        assert "takes no notice" in home.log.read_text()
