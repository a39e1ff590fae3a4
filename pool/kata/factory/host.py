"""The means by which a factory makes VMs: QEMU on this host, or a substitute."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import attrs
import trio

from actors.journal import Journal
from actors.machine import ResolveMachine
from actors.producer import Launch
from pool.core.machines import MachineResolver
from pool.core.recovery import recover
from pool.host.paths import cache_directory, default_image_directory
from pool.host.runtime import open_vms_directory
from pool.settings.config import ProfileSettings
from vmm.backend import Backend, TemplateBackend
from vmm.contract import Vm
from vmm.qemu.attach import attach
from vmm.qemu.backend import QemuBackend


class Attach(Protocol):
    """Takes over a paused VM that was given away; see `vmm.qemu.attach.attach`."""

    async def __call__(self, *, vm_id: str, directory: Path, uuid: str, nursery: trio.Nursery) -> Vm: ...


@attrs.frozen(kw_only=True)
class FactoryHost:
    launch: Launch
    attach: Attach
    resolver: Callable[[ProfileSettings], ResolveMachine]
    templates: Callable[[Path], TemplateBackend]
    """Keeps one template in that directory."""
    journal: Journal

    @property
    def vms_directory(self) -> Path:
        return self.journal.directory


@contextlib.asynccontextmanager
async def open_qemu_host(runtime: Path) -> AsyncIterator[FactoryHost]:
    """QEMU, with the VMs' directories below `runtime`, an absolute path.

    No service and no other factory may use it meanwhile. VMs that a killed predecessor left there are ended.
    Raises EndpointError, StopError.
    """
    with open_vms_directory(runtime) as vms:
        backend = QemuBackend()
        journal = Journal(directory=vms.path, backend=backend.kind)
        await recover(journal, profiles=(), backend=backend)
        yield FactoryHost(
            launch=backend.launch,
            attach=attach,
            resolver=lambda profile: _resolver(profile, trials=vms.path, backend=backend).resolve,
            templates=backend.templates,
            journal=journal,
        )


def _resolver(profile: ProfileSettings, *, trials: Path, backend: Backend) -> MachineResolver:
    return MachineResolver(
        profile=profile,
        image_directory=default_image_directory(),
        trial_directory=trials,
        cache_directory=cache_directory(),
        backend=backend,
    )
