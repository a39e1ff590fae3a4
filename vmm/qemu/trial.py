"""The trial boot behind `accelerator = "auto"`: a real guest under KVM, with a deadline."""

from __future__ import annotations

import uuid
from pathlib import Path

import attrs
import trio

from vmm.errors import BootError, VmmError
from vmm.qemu.accelerator import TrialFailure
from vmm.qemu.confinement import UNCONFINED, Confinement
from vmm.qemu.launch import launch
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator
from vmm.words.processes import BootStage

TRIAL_LIMIT_S = 20.0
"""Working KVM needs about a second, broken KVM never ends."""


async def boot_under_kvm(
    spec: MachineSpec, *, directory: Path, limit_s: float = TRIAL_LIMIT_S, confinement: Confinement = UNCONFINED
) -> TrialFailure | None:
    """`boot` of `spec` with KVM in place of its accelerator."""
    under_kvm = attrs.evolve(spec, accelerator=Accelerator.KVM)
    return await boot(under_kvm, directory=directory, limit_s=limit_s, confinement=confinement)


async def boot(
    spec: MachineSpec, *, directory: Path, limit_s: float, confinement: Confinement = UNCONFINED
) -> TrialFailure | None:
    """Boots `spec` in a new directory below `directory`, waits for its agent, and stops it again.

    Returns None if the agent answered, otherwise the failure. Never leaves anything. Raises MissingFileError,
    SpecError, and BootError if QEMU could not be started; these have nothing to do with the accelerator.
    """
    vm_id = f"trial-{uuid.uuid4().hex[:8]}"
    unrelated: VmmError | None = None
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(limit_s):
            try:
                vm = await launch(
                    spec, vm_id=vm_id, directory=directory / vm_id, nursery=nursery, confinement=confinement
                )
            except VmmError as error:
                if isinstance(error, BootError) and error.stage is not BootStage.SPAWN:
                    return TrialFailure(reason=str(error), timed_out=False)
                unrelated = error  # raised below: the nursery would wrap it
            else:
                await vm.stop()
                return None
    if unrelated is not None:
        raise unrelated
    return TrialFailure(reason=f"the guest agent did not answer within {limit_s:g} s", timed_out=True)
