"""What a killed service left: which processes are taken for its QEMUs. /bin/sh plays QEMU."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from vmm.errors import VmExitedError
from vmm.places import place_of
from vmm.qemu.adopt import adopt
from vmm.qemu.confinement.user import QemuUser
from vmm.qemu.orphans import end_orphan, find_orphans

NOBODY = QemuUser(name="nobody", uid=65534, gid=65534)

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def vms(vm_home: Path) -> Iterator[Path]:
    directory = vm_home / "vms"
    directory.mkdir()
    yield directory
    directory.rmdir()


@pytest.fixture
def start(vms: Path) -> Iterator[Start]:
    """Starts a process that names a path as QEMU does; it runs once this returns."""
    started: list[subprocess.Popen[bytes]] = []

    def make(place: str, *, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        argv = [*prefix, "sh", "-c", "echo; read line", "-add-fd", f"fd=3,set=0,opaque={place}"]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield make
    for process in started:
        process.kill()
        process.communicate()


async def test_a_process_is_found_by_the_directory_that_it_names(vms: Path, start: Start) -> None:
    process = start(f"{vms}/vm-1/console.log")
    [orphan] = find_orphans(vms)
    assert (orphan.vm_id, [identity.pid for identity in orphan.processes]) == ("vm-1", [process.pid])
    await end_orphan(orphan)
    assert find_orphans(vms) == []


async def test_a_directory_without_a_process_is_one_too(vms: Path) -> None:
    (vms / "vm-2").mkdir()
    [orphan] = find_orphans(vms)
    assert (orphan.vm_id, orphan.processes) == ("vm-2", ())
    await end_orphan(orphan)
    assert find_orphans(vms) == []


async def test_one_whose_files_are_none_is_ended_all_the_same(vms: Path, start: Start) -> None:
    """To read a FIFO would wait for ever."""
    process = start(f"{vms}/vm-1/console.log")
    (vms / "vm-1").mkdir()
    for name in ("cgroups", "qemu.log", "vm.json"):
        os.mkfifo(vms / "vm-1" / name)
    [orphan] = find_orphans(vms)
    await end_orphan(orphan)
    assert find_orphans(vms) == []
    assert not psutil.pid_exists(process.pid)


async def test_one_whose_files_are_none_is_not_adopted_but_ended(vms: Path, start: Start) -> None:
    process = start(f"{vms}/vm-1/console.log")
    (vms / "vm-1").mkdir()
    os.mkfifo(vms / "vm-1" / "cgroups")
    [orphan] = find_orphans(vms)
    with pytest.raises(VmExitedError, match="its files cannot be read"):
        await adopt(orphan.processes[0], vm_id="vm-1", directory=vms / "vm-1")
    assert find_orphans(vms) == []
    assert not psutil.pid_exists(process.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts QEMU as another user")
async def test_a_process_of_qemus_user_is_found_and_ended(vms: Path, start: Start) -> None:
    process = start(f"{vms}/vm-3/console.log", prefix=tuple(NOBODY.command()))
    assert psutil.Process(process.pid).uids().real == NOBODY.uid
    [orphan] = find_orphans(vms)
    assert [identity.pid for identity in orphan.processes] == [process.pid]
    await end_orphan(orphan)
    assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_a_command_line_that_would_lead_elsewhere_names_nothing(vms: Path, start: Start, name: str) -> None:
    start(f"{vms}/{name}/console.log")
    assert find_orphans(vms) == []


def test_other_places_are_not_ours(vms: Path, start: Start) -> None:
    start(f"{vms}-other/vm-1/console.log")
    assert find_orphans(vms) == []


def test_a_shell_that_has_the_command_line_in_one_of_its_words_is_no_qemu(vms: Path, start: Start) -> None:
    start("elsewhere/vm-1/console.log", prefix=("env", f"X=-add-fd fd=3,set=0,opaque={vms}/vm-1/console.log"))
    text = f"read line # -add-fd fd=3,set=0,opaque={vms}/vm-1/console.log"
    with subprocess.Popen(["sh", "-c", f"echo; {text}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        assert find_orphans(vms) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the root directory")
@pytest.mark.parametrize("exists", [True, False])
def test_a_service_in_a_container_with_the_same_path_keeps_its_vms(
    vms: Path, vm_home: Path, start: Start, exists: bool
) -> None:
    """Its processes can be seen from the host, and so can the name in their command lines."""
    inside = vm_home / "root"
    if exists:
        (inside / vms.relative_to("/")).mkdir(parents=True)
    inside.mkdir(exist_ok=True)
    enter = "mkdir -p $0/usr && mount --rbind /usr $0/usr && for d in bin lib lib64; do ln -s usr/$d $0/$d; done"
    prefix = ("unshare", "--mount", "sh", "-c", f'{enter} && exec chroot "$@"', str(inside), str(inside))
    process = start(f"{vms}/vm-1/console.log", prefix=prefix)
    assert find_orphans(vms) == []
    process.kill()
    process.wait()
    shutil.rmtree(inside)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes as somebody else")
def test_who_is_not_root_looks_at_its_own_only(vms: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start(f"{vms}/vm-4/console.log", prefix=tuple(NOBODY.command()))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert find_orphans(vms) == []


def test_what_is_no_directory_is_no_vms(vms: Path) -> None:
    for name, make in (("file", Path.touch), ("link", lambda path: path.symlink_to(vms.parent))):
        make(vms / name)
        assert find_orphans(vms) == []
        (vms / name).unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the root directory")
@pytest.mark.parametrize(("device", "root", "ours"), [(0, 0, True), (1, 0, False), (0, 1, False)])
def test_a_qemu_with_a_root_directory_of_its_own_says_where_it_belongs(
    vms: Path, vm_home: Path, start: Start, device: int, root: int, ours: bool
) -> None:
    """Each has, in its mount namespace: what it sees of the host tells nothing."""
    inside = vm_home / "root"
    inside.mkdir()
    enter = "mkdir -p $0/usr && mount --rbind /usr $0/usr && for d in bin lib lib64; do ln -s usr/$d $0/$d; done"
    prefix = ("unshare", "--mount", "sh", "-c", f'{enter} && exec chroot "$@"', str(inside), str(inside))
    place = f"{vms.stat().st_dev + device}:{Path('/').stat().st_ino + root}"
    process = start(f"{vms}/vm-1/console.log@{place}", prefix=prefix)
    assert [orphan.vm_id for orphan in find_orphans(vms)] == ["vm-1"] * ours
    process.kill()
    process.wait()
    shutil.rmtree(inside)


def test_a_vms_directory_that_was_made_anew_is_still_the_place(vms: Path, start: Start) -> None:
    place = place_of(vms)
    vms.rmdir()
    vms.mkdir()
    start(f"{vms}/vm-1/console.log@{place}")
    assert [orphan.vm_id for orphan in find_orphans(vms)] == ["vm-1"]
