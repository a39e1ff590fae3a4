"""What QEMU writes to is on the host's tmpfs, and has an end."""

from __future__ import annotations

from pathlib import Path

from vmm.contract import ExitReport
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.files import MAX_FILE_BYTES
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.process import QemuProcess
from vmm.spec import Accelerator, MachineSpec

SPEC = MachineSpec(
    qemu=Path("/qemu"), kernel=Path("/kernel"), initrd=Path("/initrd"), accelerator=Accelerator.TCG, memory_mib=256
)


def start(script: str, log: Path) -> QemuProcess:
    argv = Confinement().command(["/bin/sh", "-c", script], spec=SPEC, group=VmGroup())
    return QemuProcess.spawn(argv, log=log)


async def test_a_log_ends_at_the_limit_and_its_writer_lives_on(tmp_path: Path) -> None:
    """A signal, the kernel's default, would end an honest VM that says much."""
    log = tmp_path / "log"
    process = start("exec cat /dev/zero 2>/dev/null", log)
    report = await process.wait_exited()
    assert (report.status, report.signal) == (1, None)
    assert log.stat().st_size == MAX_FILE_BYTES


async def test_nobody_below_can_raise_it(tmp_path: Path) -> None:
    soft_and_hard = await start("ulimit -S -f; ulimit -H -f", tmp_path / "log").wait_exited()
    assert soft_and_hard == ExitReport(status=0, stderr_tail="\n".join([str(MAX_FILE_BYTES // 512)] * 2))


async def test_the_program_gets_its_arguments_as_they_are(tmp_path: Path) -> None:
    argv = Confinement().command(["printf", "<%s>", "a b", "", "$HOME", "*"], spec=SPEC, group=VmGroup())
    report = await QemuProcess.spawn(argv, log=tmp_path / "log").wait_exited()
    assert report.stderr_tail == "<a b><><$HOME><*>"
