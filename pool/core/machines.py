"""Resolves a profile's settings to a machine that can be launched: QEMU, image, accelerator."""

from __future__ import annotations

from pathlib import Path

import attrs
import trio

from actors.machine import ResolvedMachine, identify_all
from pool.settings.config import ProfileSettings
from vmm.backend import Backend
from vmm.initramfs.image import load_image, verify_image
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator


@attrs.frozen(kw_only=True)
class MachineResolver:
    """Resolves one profile, again whenever its producer restarts, so that fixes of the host take effect."""

    profile: ProfileSettings
    image_directory: Path
    trial_directory: Path
    """Directory of the trial VM of accelerator `auto`."""
    cache_directory: Path
    backend: Backend

    def check(self) -> MachineSpec:
        """The machine, as far as it is known without starting QEMU; the accelerator in the spec is a guess.

        Raises MissingFileError, ImageError or SpecError, each naming the field and the remedy.
        """
        qemu = self.backend.find_program(self.profile.qemu)
        kernel, initrd = self.profile.kernel, self.profile.initrd
        if kernel is None or initrd is None:
            image = load_image(self.image_directory)
            verify_image(image)
            kernel, initrd = image.kernel, image.initrd
        spec = self.profile.machine(qemu=qemu, kernel=kernel, initrd=initrd, accelerator=Accelerator.TCG)
        self.backend.check(spec)
        return spec

    async def resolve(self) -> ResolvedMachine:
        """Decides the accelerator; under `auto` that may boot a guest. Raises VmmError, OSError."""
        spec = await trio.to_thread.run_sync(self.check)  # it reads the whole image
        # Before the files are read for the fingerprint, so that no change is missed.
        inputs = identify_all((spec.qemu, spec.kernel, spec.initrd))
        decided = await self.backend.decide(
            spec,
            accelerator=self.profile.accelerator,
            trial_directory=self.trial_directory,
            cache_directory=self.cache_directory,
        )
        return ResolvedMachine(spec=decided.spec, reason=decided.reason, fingerprint=decided.fingerprint, inputs=inputs)
