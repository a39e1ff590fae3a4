"""What makes the service's VMs: the one place that chooses it, and all else of the pool knows `vmm.backend` only."""

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
    """`opened` is closed by the caller, when nothing is tried any more."""
    return QemuHostChecks(wish=settings.service.confinement_wish, opened=opened)
