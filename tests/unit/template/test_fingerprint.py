"""What makes clones of one template stand for each other."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import attrs
import pytest

from vmm.qemu.template.fingerprint import fingerprint
from vmm.qemu.version import QemuVersion
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator

VERSION = QemuVersion(7, 2, 22)


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    for name in ("qemu", "vmlinuz", "initrd"):
        (tmp_path / name).write_text(name)
    return MachineSpec(
        qemu=tmp_path / "qemu",
        kernel=tmp_path / "vmlinuz",
        initrd=tmp_path / "initrd",
        accelerator=Accelerator.TCG,
    )


@pytest.mark.parametrize("file", ["qemu", "kernel", "initrd"])
async def test_another_file_under_the_same_name_is_another_machine(spec: MachineSpec, file: str) -> None:
    """QEMU's version is the same: it may have been built otherwise, or be a script that adds an option."""
    before = await fingerprint(spec, qemu_version=VERSION)
    getattr(spec, file).write_text("another one")
    assert await fingerprint(spec, qemu_version=VERSION) != before


async def test_the_same_program_elsewhere_finds_other_firmware(spec: MachineSpec, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("qemu")
    moved = attrs.evolve(spec, qemu=elsewhere)
    assert await fingerprint(spec, qemu_version=VERSION) != await fingerprint(moved, qemu_version=VERSION)


async def test_kernel_and_initrd_may_lie_anywhere(spec: MachineSpec, tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("vmlinuz")
    moved = attrs.evolve(spec, kernel=tmp_path / "copy")
    assert await fingerprint(spec, qemu_version=VERSION) == await fingerprint(moved, qemu_version=VERSION)


async def test_what_was_read_is_not_read_again(spec: MachineSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await fingerprint(spec, qemu_version=VERSION)

    def read(*_: object) -> str:
        raise AssertionError("it is the same file")

    monkeypatch.setattr(hashlib, "file_digest", read)
    assert await fingerprint(spec, qemu_version=VERSION) == before


async def test_a_file_that_was_written_to_within_its_size_is_read_again(spec: MachineSpec) -> None:
    before = await fingerprint(spec, qemu_version=VERSION)
    spec.qemu.write_text("umeq")
    os.utime(spec.qemu, ns=(1, 1))  # a file system whose clock ticks slowly would have the old time
    assert await fingerprint(spec, qemu_version=VERSION) != before
