"""A VM that was given away, at the start of a later run: /bin/sh plays QEMU."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.journal import Journal
from pool.core.recovery import Recovered, recover
from vmm.contract import Survivor
from vmm.qemu.backend import QemuBackend
from vmm.words.processes import ProcessIdentity


async def no_adoption(identity: ProcessIdentity, *, vm_id: str, directory: Path) -> Survivor:
    raise AssertionError("nothing is adopted before the coordinator runs")


@pytest.fixture
def vms(vm_home: Path) -> Path:
    directory = vm_home / "vms"
    directory.mkdir()
    return directory


@pytest.fixture
def qemu(vms: Path) -> Iterator[subprocess.Popen[bytes]]:
    """That of vm-1, running."""
    (vms / "vm-1").mkdir()
    argv = ["sh", "-c", "echo; read line", "-add-fd", f"fd=3,set=0,opaque={vms}/vm-1/console.log"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def left(vms: Path) -> list[str]:
    return sorted(str(path.relative_to(vms)) for path in vms.rglob("*"))


async def recovered(vms: Path) -> Recovered:
    return await recover(Journal(directory=vms), profiles=["default"], backend=QemuBackend())


async def test_a_vm_that_nobody_has_is_ended(vms: Path, qemu: subprocess.Popen[bytes]) -> None:
    await recovered(vms)
    assert qemu.poll() is not None
    assert left(vms) == []


async def test_a_vm_that_was_given_away_is_left_alone_by_every_later_run(
    vms: Path, qemu: subprocess.Popen[bytes]
) -> None:
    Journal(directory=vms).offer("vm-1")
    for _ in range(2):
        assert (await recovered(vms)).found == ()
        assert qemu.poll() is None
        assert left(vms) == ["vm-1", "vm-1/given-away"]


async def test_what_a_given_vm_left_when_it_ended_is_cleared_away(vms: Path, qemu: subprocess.Popen[bytes]) -> None:
    Journal(directory=vms).offer("vm-1")
    qemu.kill()
    qemu.wait()
    await recovered(vms)
    assert left(vms) == []
