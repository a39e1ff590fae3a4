"""The trial boot: it says why a guest did not come up, and leaves nothing."""

from __future__ import annotations

from pathlib import Path

import attrs

from vmm.qemu import trial
from vmm.qemu.version import MINIMUM_VERSION, detect_version
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator


async def test_a_guest_that_does_not_answer_in_time(spec: MachineSpec, vm_home: Path) -> None:
    failure = await trial.boot_under_kvm(spec, directory=vm_home, limit_s=0.3)
    assert failure is not None


async def test_a_qemu_that_refuses(spec: MachineSpec, vm_home: Path) -> None:
    failure = await trial.boot_under_kvm(attrs.evolve(spec, machine_type="nonsense"), directory=vm_home)
    assert failure is not None
    assert "unsupported machine type" in failure.reason


async def test_a_guest_that_answers(spec: MachineSpec, vm_home: Path) -> None:
    emulated = attrs.evolve(spec, accelerator=Accelerator.TCG)
    assert await trial.boot(emulated, directory=vm_home, limit_s=120) is None


async def test_the_version_of_this_hosts_qemu(spec: MachineSpec) -> None:
    assert await detect_version(spec.qemu) >= MINIMUM_VERSION
