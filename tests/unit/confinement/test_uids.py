"""A uid for each VM: which ones, whether they are free, and that no two living processes have one."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import attrs
import cattrs
import pytest

from tests.unit.confinement.jailed import SPEC, jailer_alone, start
from vmm.errors import ConfinementError
from vmm.qemu.confinement import uids as module
from vmm.qemu.confinement.uids import UidPool, is_in_use, obstacle
from vmm.qemu.confinement.user import QemuUser
from vmm.qemu.process import QemuProcess
from vmm.words.confinement import UidRange, structure_range

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

FEW = UidRange(first=1_950_000_001, last=1_950_000_003)


@pytest.fixture
def hosts_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this host's subordinate uids would be, and the locks."""
    monkeypatch.setattr(module, "SUBORDINATE_FILES", (tmp_path / "subuid", tmp_path / "subgid"))
    monkeypatch.setattr(module, "LOCKS", tmp_path / "locks")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (7, "must be a range like"),
        ("1000", "must be a range like"),
        ("1000-", "must be a range like"),
        ("2000-1000", "must be ascending"),
        ("0-1000", "must be ascending"),
        ("1000-4294967295", "must be ascending"),
    ],
)
def test_what_is_no_range(text: object, problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        structure_range(text, UidRange)


def test_a_range_is_written_as_it_is_read() -> None:
    converter = cattrs.Converter()
    converter.register_structure_hook(UidRange, structure_range)
    assert converter.structure(str(FEW), UidRange) == FEW


def test_what_nobody_has_is_free(hosts_files: Path) -> None:
    assert obstacle(FEW) == ""


def test_a_users_uid_is_not(hosts_files: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    assert "belongs to the user nobody" in obstacle(UidRange(first=nobody.pw_uid, last=nobody.pw_uid + 1))


@pytest.mark.parametrize(
    ("line", "hindered"),
    [
        ("alice:1950000003:65536", True),
        ("alice:1950000000:2", True),
        ("alice:1950000004:65536", False),
        ("alice:1950000000:1", False),
        ("# nonsense", False),
    ],
)
@pytest.mark.parametrize("name", ["subuid", "subgid"])
def test_nor_is_what_a_user_may_have_in_a_namespace(hosts_files: Path, name: str, line: str, hindered: bool) -> None:
    (hosts_files / name).write_text(f"bob:100000:65536\n{line}\n")
    assert ("gives some of them to alice" in obstacle(FEW)) is hindered


def test_a_namespace_that_has_none_of_them_is_told(hosts_files: Path) -> None:
    """As in most containers, whose root has some 65,536."""
    assert module._is_mapped("         0          0 4294967295\n", FEW)
    assert not module._is_mapped("         0     100000      65536\n", FEW)


def test_one_that_a_process_has_is_in_use() -> None:
    assert is_in_use(os.getuid())
    assert not is_in_use(FEW.first)


def uid_of(process: QemuProcess) -> int:
    return Path(f"/proc/{process.pid}").stat().st_uid


@as_root
async def test_no_two_living_processes_have_one_and_a_dead_ones_is_free_again(tmp_path: Path) -> None:
    pool = UidPool(FEW, tmp_path / "locks")
    user = QemuUser(name="any", uid=FEW.first, gid=FEW.first)
    with jailer_alone() as alone:
        confinement = attrs.evolve(alone, user=user, uids=pool)
        running = [start(confinement, "/bin/sleep", "1000", log=tmp_path / str(n)) for n in range(3)]
        uids = [uid_of(process) for process in running]
        assert sorted(uids) == [FEW.first, FEW.first + 1, FEW.last]
        with pytest.raises(ConfinementError, match=r"service.qemu_uids: all of 1950000001-1950000003 are in use"):
            start(confinement, "/bin/sleep", "1000", log=tmp_path / "4")
        await running[1].kill()
        again = start(confinement, "/bin/sleep", "1000", log=tmp_path / "5")
        assert uid_of(again) == uids[1]
        for process in (running[0], running[2], again):
            await process.kill()
    pool.close()
    assert not (tmp_path / "locks").exists()


@as_root
def test_the_dead_whom_nobody_waited_for_keep_theirs() -> None:
    """Their end may not have been noticed yet."""
    child = subprocess.Popen(["/bin/true"], user=FEW.last)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_in_use(FEW.last)
    child.wait()
    assert not is_in_use(FEW.last)


def test_what_another_service_is_just_taking_is_left_to_it(tmp_path: Path) -> None:
    ours, theirs = (UidPool(FEW, tmp_path / "locks") for _ in range(2))
    with contextlib.ExitStack() as taken:
        got = [taken.enter_context(pool.take()) for pool in (ours, theirs, ours)]
        assert sorted(got) == [FEW.first, FEW.first + 1, FEW.last]
        with pytest.raises(ConfinementError), theirs.take():
            pass
        theirs.close()
    ours.close()
    assert not (tmp_path / "locks").exists()


@as_root
def test_a_vm_has_no_group_but_its_own(tmp_path: Path) -> None:
    confinement_user = QemuUser(name="any", uid=FEW.first, gid=FEW.first)
    with jailer_alone() as alone:
        confinement = attrs.evolve(alone, user=confinement_user, uids=UidPool(FEW, tmp_path / "locks"))
        with confinement._identity(SPEC) as identity:
            assert identity is not None
            assert (identity["gid"], identity["groups"]) == (identity["uid"], [])


def test_a_lock_file_that_somebody_removed_is_made_anew(tmp_path: Path) -> None:
    ours, theirs = (UidPool(UidRange(first=FEW.first, last=FEW.first), tmp_path / "locks") for _ in range(2))
    with ours.take():
        pass
    shutil.rmtree(tmp_path / "locks")
    with ours.take(), pytest.raises(ConfinementError), theirs.take():
        pass
    theirs.close()
    ours.close()
    assert not (tmp_path / "locks").exists()


def test_a_service_that_ends_takes_no_lock_from_another(tmp_path: Path) -> None:
    ours, theirs = (UidPool(UidRange(first=FEW.first, last=FEW.first), tmp_path / "locks") for _ in range(2))
    with theirs.take():
        pass
    with ours.take():
        theirs.close()
        third = UidPool(UidRange(first=FEW.first, last=FEW.first), tmp_path / "locks")
        with pytest.raises(ConfinementError), third.take():
            pass
        third.close()
    ours.close()
    assert not (tmp_path / "locks").exists()
