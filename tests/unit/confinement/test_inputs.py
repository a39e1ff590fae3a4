"""What QEMU's user is given to read: the file itself if it may be, wherever it is, and else a copy of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leaks import nothing_left
from vmm.errors import MissingFileError
from vmm.qemu.confinement import UNCONFINED, Confinement, inputs
from vmm.qemu.confinement.inputs import InputFiles
from vmm.qemu.confinement.user import QemuUser
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator

NOBODY = QemuUser(name="nobody", uid=65534, gid=65534)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def path(vm_home: Path) -> Path:
    """A file in a directory that nobody but its owner may enter, as in a home."""
    assert vm_home.stat().st_mode & 0o777 == 0o700
    path = vm_home / "vmlinuz"
    path.write_bytes(b"a kernel")
    return path


@pytest.fixture(autouse=True)
def _checked_for_leaks() -> Iterator[None]:
    with nothing_left():
        yield


def read_by(user: QemuUser, descriptor: int) -> bytes:
    """What a program of that user finds that inherits the descriptor, and opens it anew, as QEMU does."""
    return subprocess.run(
        [*user.command(), "cat", f"/proc/self/fd/{descriptor}"], pass_fds=(descriptor,), check=True, capture_output=True
    ).stdout


def identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


@as_root
def test_a_file_in_a_closed_directory_is_read_all_the_same(path: Path) -> None:
    files = InputFiles()
    path.chmod(0o644)
    with files.open(path, user=NOBODY) as descriptor:
        assert read_by(NOBODY, descriptor) == b"a kernel"
        assert os.path.samestat(os.fstat(descriptor), path.stat()), "it takes no memory: it is the file itself"


@as_root
def test_of_a_closed_file_there_is_a_copy_that_its_reader_cannot_change(path: Path) -> None:
    files = InputFiles()
    path.chmod(0o600)
    with files.open(path, user=NOBODY) as descriptor:
        assert read_by(NOBODY, descriptor) == b"a kernel"
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)


@as_root
def test_it_is_copied_once_for_all_vms(path: Path) -> None:
    files = InputFiles()
    path.chmod(0o600)
    with files.open(path, user=NOBODY) as first, files.open(path, user=NOBODY) as second:
        assert identity(first) == identity(second)


@as_root
@pytest.mark.parametrize("replace", [False, True])
def test_what_was_written_to_is_copied_again(path: Path, replace: bool) -> None:
    files = InputFiles()
    path.chmod(0o600)
    with files.open(path, user=NOBODY):
        pass
    if replace:
        path.unlink()
        path.touch(0o600)
    path.write_bytes(b"another kernel")
    with files.open(path, user=NOBODY) as descriptor:
        assert read_by(NOBODY, descriptor) == b"another kernel"


@as_root
def test_a_file_that_is_closed_later_is_copied_then(path: Path) -> None:
    files = InputFiles()
    path.chmod(0o644)
    with files.open(path, user=NOBODY):
        pass
    path.chmod(0o600)
    with files.open(path, user=NOBODY) as descriptor:
        assert read_by(NOBODY, descriptor) == b"a kernel"


@as_root
def test_copies_of_files_that_nobody_asks_for_any_more_are_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers may name files of their own, one after the other."""
    files = InputFiles()
    monkeypatch.setattr(inputs, "REMEMBERED", 2)
    path.chmod(0o600)
    with files.open(path, user=NOBODY) as descriptor:
        used = identity(descriptor)
    before = set(Path("/proc/self/fd").iterdir())
    for content in (b"1", b"2", b"3"):
        other = path.with_name("other")
        other.write_bytes(content)
        other.chmod(0o600)
        with files.open(other, user=NOBODY), files.open(path, user=NOBODY) as descriptor:
            assert identity(descriptor) == used, "the one that is asked for again and again stays"
        other.unlink()
    assert len(set(Path("/proc/self/fd").iterdir()) - before) == 1


def test_where_qemu_runs_as_the_service_there_is_nothing_to_ask(path: Path) -> None:
    files = InputFiles()
    path.chmod(0o400)
    with files.open(path, user=None) as descriptor:
        assert os.path.samestat(os.fstat(descriptor), path.stat())


@pytest.fixture
def machine(path: Path) -> MachineSpec:
    return MachineSpec(qemu=Path("/bin/true"), kernel=path, initrd=path, accelerator=Accelerator.TCG)


@as_root
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_machine_of_files_in_a_closed_directory_is_fine(machine: MachineSpec, mode: int) -> None:
    machine.kernel.chmod(mode)
    Confinement(user=NOBODY).check(machine)


def test_a_file_that_went_away_is_named(machine: MachineSpec) -> None:
    machine.kernel.unlink()
    with pytest.raises(MissingFileError, match=f"kernel: {machine.kernel} does not exist"):
        UNCONFINED.check(machine)
