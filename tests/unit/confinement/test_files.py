"""What QEMU writes to is on the host's tmpfs, and has an end."""

from __future__ import annotations

import resource
from pathlib import Path

from tests.unit.confinement.jailed import jailer_alone, start
from vmm.qemu.confinement.limits import MAX_FILE_BYTES
from vmm.words.processes import ExitReport


async def run(script: str, log: Path) -> ExitReport:
    with jailer_alone() as confinement:
        return await start(confinement, "/bin/sh", "-c", script, log=log).wait_exited()


async def test_a_log_ends_at_the_limit_and_its_writer_lives_on(tmp_path: Path) -> None:
    """A signal, the kernel's default, would end an honest VM that says much."""
    log = tmp_path / "log"
    report = await run("exec cat /dev/zero 2>/dev/null", log)
    assert (report.status, report.signal) == (1, None)
    assert log.stat().st_size == MAX_FILE_BYTES


async def test_nobody_below_can_raise_it(tmp_path: Path) -> None:
    soft_and_hard = await run("ulimit -S -f; ulimit -H -f", tmp_path / "log")
    assert soft_and_hard == ExitReport(status=0, stderr_tail="\n".join([str(MAX_FILE_BYTES // 512)] * 2))


async def test_there_is_no_core_file(tmp_path: Path) -> None:
    """It would hold the guest's memory."""
    assert await run("ulimit -S -c; ulimit -H -c", tmp_path / "log") == ExitReport(status=0, stderr_tail="0\n0")


async def test_it_opens_no_more_descriptors_than_a_vm_needs(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    report = await run("ulimit -S -n; ulimit -H -n", tmp_path / "log")
    assert report.stderr_tail.split() == [str(min(2048, hard))] * 2
