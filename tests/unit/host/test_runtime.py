"""The directory of the VMs: private, and one service's alone, whatever becomes of its lock file."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pool.host.endpoint import EndpointError, ServiceRunningError
from pool.host.runtime import open_vms_directory


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def vms_refused(runtime: Path, *, why: str) -> None:
    with pytest.raises(EndpointError, match=why), open_vms_directory(runtime):
        pass


def test_the_directory_of_vms_is_made_private_and_removed(vm_home: Path) -> None:
    before = os.umask(0o002)
    try:
        with open_vms_directory(vm_home / "run") as vms:
            assert mode_of(vms.path) == mode_of(vms.path.parent) == 0o700
    finally:
        os.umask(before)
    assert not vms.path.exists()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o755])
def test_a_directory_of_vms_that_others_can_enter_is_refused(vm_home: Path, mode: int) -> None:
    """What is in it is believed: records of VMs to adopt, groups whose members are killed."""
    vms = vm_home / "vms"
    vms.mkdir()
    vms.chmod(mode)
    vms_refused(vm_home, why=rf"{vms} is open to others \(mode {mode:o}")


def test_a_directory_of_vms_that_is_a_link_is_refused(vm_home: Path, tmp_path: Path) -> None:
    (vm_home / "vms").symlink_to(tmp_path)
    vms_refused(vm_home, why="is not a directory; remove it, or choose")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("whose", [".", "vms"])
def test_a_directory_of_vms_that_somebody_else_made_is_refused(vm_home: Path, whose: str) -> None:
    """As in /tmp, when runtime_directory is below it and somebody else was there first."""
    (vm_home / "vms").mkdir(mode=0o700)
    os.chown(vm_home / whose, 65534, 65534)
    vms_refused(vm_home, why=r"is open to others \(mode 700, uid 65534\)")
    os.chown(vm_home, 0, 0)


def test_in_a_directory_like_tmp_it_is_taken(vm_home: Path) -> None:
    vm_home.chmod(0o1777)
    with open_vms_directory(vm_home):
        pass
    vm_home.chmod(0o777)
    vms_refused(vm_home, why="is open to others")


# -- what somebody removes while it runs -------------------------------------------------------------------------------


def test_a_second_service_is_refused_though_the_lock_file_was_removed(vm_home: Path, leak_check: None) -> None:
    """It would adopt the VMs of one that lives."""
    with open_vms_directory(vm_home / "run") as first:
        (vm_home / "run" / "vms.lock").unlink()
        vms_refused(vm_home / "run", why="already running")
        first.look_after()
        vms_refused(vm_home / "run", why=f"pid {os.getpid()}")
    assert not (vm_home / "run" / "vms.lock").exists()
    (vm_home / "run").rmdir()


def remove_vms(runtime: Path) -> None:
    (runtime / "vms").rmdir()


def remove_all(runtime: Path) -> None:
    shutil.rmtree(runtime)


@pytest.mark.parametrize("harm", [remove_vms, remove_all])
def test_what_somebody_removed_is_put_back(vm_home: Path, leak_check: None, harm: Callable[[Path], None]) -> None:
    runtime = vm_home / "run"
    with open_vms_directory(runtime) as vms:
        harm(runtime)
        vms.look_after()
        assert mode_of(vms.path) == 0o700
        (runtime / "vms.lock").unlink()
        vms_refused(runtime, why="already running")
    runtime.rmdir()


def test_a_removal_under_way_leaves_no_directory_that_is_open_to_others(
    vm_home: Path, leak_check: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be refused from then on. The next look puts all back."""
    runtime = vm_home / "run"
    real = Path.mkdir

    def mkdir(self: Path, *args: Any, **kwargs: Any) -> None:
        if self == runtime / "vms":
            monkeypatch.undo()
            shutil.rmtree(runtime)
        real(self, *args, **kwargs)

    with open_vms_directory(runtime) as vms:
        monkeypatch.setattr(Path, "mkdir", mkdir)
        with pytest.raises(EndpointError, match="No such file"):
            vms.look_after()
        vms.look_after()
        assert mode_of(runtime) == mode_of(vms.path) == 0o700
    runtime.rmdir()


def test_one_in_whose_place_another_came_says_so(vm_home: Path, leak_check: None) -> None:
    runtime = vm_home / "run"
    with open_vms_directory(runtime) as first:
        remove_all(runtime)
        with open_vms_directory(runtime) as second:
            with pytest.raises(ServiceRunningError, match="already running"):
                first.look_after()
            second.look_after()
    runtime.rmdir()
