"""What a trial of an accelerator says nothing of."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from vmm.errors import BootError
from vmm.qemu.trial import boot
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator
from vmm.words.processes import BootStage


async def test_a_guest_that_does_not_answer_in_time_says_so(spec: MachineSpec, vm_home: Path) -> None:
    """That may be the host's fault of the moment, unlike all else."""
    spec.qemu.write_text("#!/bin/sh\nexec sleep 1000\n")
    failure = await boot(spec, directory=vm_home, limit_s=0.2)
    assert failure is not None
    assert failure.timed_out


async def test_a_qemu_that_dies_is_a_verdict(spec: MachineSpec, vm_home: Path) -> None:
    spec.qemu.write_text("#!/bin/sh\necho no such accelerator >&2\nexit 1\n")
    failure = await boot(spec, directory=vm_home, limit_s=60)
    assert failure is not None
    assert not failure.timed_out
    assert "no such accelerator" in failure.reason


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    """Whose QEMU is no program that the kernel executes."""
    for name in ("qemu", "file"):
        (tmp_path / name).write_bytes(b"\x7fELF not really")
    (tmp_path / "qemu").chmod(0o755)
    file = tmp_path / "file"
    return MachineSpec(
        qemu=tmp_path / "qemu", kernel=file, initrd=file, accelerator=Accelerator.KVM, vcpus=1, memory_mib=256
    )


async def test_a_qemu_that_cannot_be_started_is_no_verdict(spec: MachineSpec, vm_home: Path) -> None:
    """It would be remembered, and the host's VMs would run without KVM until its next boot."""
    with pytest.raises(BootError, match="cannot be started") as caught:
        await boot(spec, directory=vm_home, limit_s=60)
    assert caught.value.stage is BootStage.SPAWN


async def test_a_full_disk_is_no_verdict(spec: MachineSpec, vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(BootError, match="No space left on device") as caught:
        await boot(spec, directory=vm_home, limit_s=60)
    assert caught.value.stage is BootStage.SPAWN
