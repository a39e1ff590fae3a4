"""From a profile's settings to a machine that can be launched: which QEMU, which image, which accelerator."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import attrs
import trio

from actors.machine import ResolvedMachine, identify_all
from pool.settings.config import ProfileSettings
from vmm.errors import MissingFileError
from vmm.initramfs.image import load_image, verify_image
from vmm.qemu.accelerator import TrialIdentity, decide
from vmm.qemu.confinement import UNCONFINED, Confinement
from vmm.qemu.launch import check_needs
from vmm.qemu.template.fingerprint import fingerprint
from vmm.qemu.trial import boot_under_kvm
from vmm.qemu.version import QEMU_REMEDY, detect_version
from vmm.spec import Accelerator, MachineSpec


@attrs.frozen(kw_only=True)
class MachineResolver:
    """Resolves one profile. Called again whenever its producer starts anew, so that it sees what was mended since."""

    profile: ProfileSettings
    image_directory: Path
    trial_directory: Path
    """Where the trial VM of accelerator `auto` lives for a few seconds."""
    cache_directory: Path
    confinement: Confinement = UNCONFINED
    """What its VMs are started in: QEMU's user must be able to open what it needs."""

    def check(self) -> MachineSpec:
        """What can be told without starting anything; the accelerator in the spec is a guess.

        Raises MissingFileError, ImageError or SpecError, each naming the field and the remedy.
        """
        qemu = shutil.which(self.profile.qemu)
        if qemu is None:
            raise MissingFileError(field="qemu", path=self.profile.qemu, remedy=QEMU_REMEDY)
        kernel, initrd = self.profile.kernel, self.profile.initrd
        if kernel is None or initrd is None:
            image = load_image(self.image_directory)
            verify_image(image)
            kernel, initrd = image.kernel, image.initrd
        spec = self.profile.machine(qemu=Path(qemu), kernel=kernel, initrd=initrd, accelerator=Accelerator.TCG)
        check_needs(spec, confinement=self.confinement)
        self.confinement.check(spec)
        return spec

    async def resolve(self) -> ResolvedMachine:
        """Decides the accelerator; under `auto` that may boot a guest. Raises VmmError, OSError."""
        spec = await trio.to_thread.run_sync(self.check)  # it reads the image whole
        # Before they are read for the fingerprint: a change must not be missed.
        inputs = identify_all((spec.qemu, spec.kernel, spec.initrd))
        version = await detect_version(spec.qemu)
        user = self.confinement.user
        decision = await decide(
            self.profile.accelerator,
            identity=TrialIdentity(
                qemu=spec.qemu,
                qemu_version=version,
                kernel=spec.kernel,
                uid=os.geteuid() if user is None else user.uid,
            ),
            trial_boot=partial(boot_under_kvm, spec, directory=self.trial_directory, confinement=self.confinement),
            cache_directory=self.cache_directory,
            host=self.confinement.host_facts(),
        )
        spec = attrs.evolve(spec, accelerator=decision.accelerator)
        return ResolvedMachine(
            spec=spec,
            reason=f"QEMU {version}; {decision.reason}",
            fingerprint=await fingerprint(spec, qemu_version=version),
            inputs=inputs,
        )
