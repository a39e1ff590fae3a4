"""The choice of the backend; the rest of the pool knows only `vmm.backend`."""

from __future__ import annotations

import contextlib

from pool.settings.config import Settings
from vmm.backend import Backend, HostChecks
from vmm.qemu.backend import QemuBackend
from vmm.qemu.diagnosis import QemuHostChecks


def make_backend(settings: Settings) -> Backend:
    """Raises ConfinementError, MissingFileError."""
    return QemuBackend.wishing(settings.service.confinement_wish)


def host_checks(settings: Settings, opened: contextlib.ExitStack) -> HostChecks:
    """The caller closes `opened` after the last check."""
    return QemuHostChecks(wish=settings.service.confinement_wish, opened=opened)
