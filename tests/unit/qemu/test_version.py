"""Finding out which QEMU is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from vmm.errors import MissingFileError, SpecError
from vmm.qemu.version import QemuVersion, detect_version, parse_version


def program(directory: Path, script: str) -> Path:
    path = directory / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) ...", "7.2.22 (Debian 1:7.2+"),
        ("QEMU emulator version 9.1.0\nCopyright", "9.1.0"),
        ("QEMU emulator version 10.0.50 (v10.0.0-1234-gdeadbeef)", "10.0.50 (v10.0.0-1234-gdeadbeef)"),
    ],
)
def test_versions_are_read(output: str, version: str) -> None:
    assert str(parse_version(output)).startswith(version)


def test_versions_compare_by_number_not_by_package() -> None:
    assert QemuVersion(7, 2, 9) < QemuVersion(7, 2, 10) < QemuVersion(10, 0)
    assert QemuVersion(7, 2, 9, "Debian") == QemuVersion(7, 2, 9, "Fedora")


async def test_not_installed(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="apt-get install qemu-system-x86"):
        await detect_version(tmp_path / "qemu")


async def test_too_old(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"is version 5.2.0 .Debian 5.2., older than 7.2.0; install a newer QEMU"):
        await detect_version(program(tmp_path, "echo 'QEMU emulator version 5.2.0 (Debian 5.2)'"))


@pytest.mark.parametrize("script", ["echo hello", "exit 1", "exec cat /dev/zero | head -c 100"])
async def test_not_qemu(tmp_path: Path, script: str) -> None:
    with pytest.raises(SpecError, match="is not QEMU's system emulator"):
        await detect_version(program(tmp_path, script))


async def test_one_that_hangs_is_killed_with_its_caller(tmp_path: Path) -> None:
    with trio.move_on_after(0.05) as limit:
        await detect_version(program(tmp_path, "exec sleep 100"))
    assert limit.cancelled_caught
