"""A matcher over profiles of a test's own, with files that are really there and machines that are simulated."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from actors.machine import ResolvedMachine
from actors.producer import Launch
from pool.core.matching import Matcher
from pool.settings.config import ProfileSettings
from vmm.qemu.launch import check_needs
from vmm.simulated import SimulatedHost
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator


def machine(settings: ProfileSettings) -> MachineSpec:
    assert settings.kernel is not None
    assert settings.initrd is not None
    return settings.machine(
        qemu=Path(sys.executable),  # any program will do
        kernel=settings.kernel,
        initrd=settings.initrd,
        accelerator=Accelerator.TCG,
    )


@attrs.frozen
class Resolver:
    """As `MachineResolver`, without starting anything."""

    profile: ProfileSettings

    async def resolve(self) -> ResolvedMachine:
        spec = machine(self.profile)
        check_needs(spec)
        parts = (
            spec.kernel.read_bytes(),
            spec.initrd.read_bytes(),
            str(attrs.evolve(spec, kernel=Path(), initrd=Path())),
        )
        return ResolvedMachine(
            spec=spec, reason="simulated", fingerprint=hashlib.sha256(repr(parts).encode()).hexdigest()
        )


def image(directory: Path, name: str, *, kernel: bytes = b"kernel", initrd: bytes = b"initrd") -> dict[str, Any]:
    """A kernel and an initrd of these contents: the fields of a profile."""
    files = {"kernel": directory / f"{name}.kernel", "initrd": directory / f"{name}.initrd"}
    files["kernel"].write_bytes(kernel)
    files["initrd"].write_bytes(initrd)
    return files


def make_matcher(
    profiles: Mapping[str, ProfileSettings], *, base: str = "default", launch: Launch | None = None
) -> Matcher:
    return Matcher(
        profiles=profiles,
        specs={name: machine(profile) for name, profile in profiles.items()},
        base=base,
        make_resolver=Resolver,  # type: ignore[arg-type]
        launch=launch or SimulatedHost().launch,
        vms_directory=Path("/nowhere"),
    )
