"""Whoever started the service may stop listening to it, or hang up."""

from __future__ import annotations

import signal

import attrs

from tests.running import STOP_LIMIT_S, service_home
from vmm.initramfs.image import GuestImage

CONFIG = '[profiles.default]\nsize = 0\naccelerator = "tcg"'


def test_nobody_to_tell_of_the_end_does_not_change_how_it_ends(guest_image: GuestImage) -> None:
    """It would end the VMs that it is to hand over, and say that it failed."""
    with service_home(CONFIG, image_directory=guest_image.kernel.parent) as home:
        service = home.start()
        home.notices.close()
        assert service.stop() == 0, home.log.read_text()
        assert "notification not sent" in home.log.read_text()


def test_who_hangs_up_ends_it_in_good_order(guest_image: GuestImage) -> None:
    """A terminal that is closed sends SIGHUP; without a word, VMs, socket and locks would stay."""
    with service_home(CONFIG, image_directory=guest_image.kernel.parent) as home:
        # Also where the tests themselves were started to outlive that.
        service = attrs.evolve(home, prefix=("env", "--default-signal=HUP")).start()
        service.process.send_signal(signal.SIGHUP)
        service.process.wait(STOP_LIMIT_S)
        home.end(service)
        assert not service.runtime.exists()


def test_unless_it_was_started_to_outlive_that(guest_image: GuestImage) -> None:
    with service_home(CONFIG, image_directory=guest_image.kernel.parent) as home:
        service = attrs.evolve(home, prefix=("env", "--ignore-signal=HUP")).start()
        service.process.send_signal(signal.SIGHUP)
        assert service.command("status").returncode == 0
        home.end(service)
        assert "SIGHUP" not in home.log.read_text()
