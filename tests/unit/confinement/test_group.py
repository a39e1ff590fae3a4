"""Groups that cannot be made, joined or removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmm.errors import StopError
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement import group as group_module
from vmm.qemu.confinement.group import VmGroup, settings_of
from vmm.qemu.confinement.limits import Limits
from vmm.qemu.confinement.plan import CgroupPlan, CgroupVersion, Controller
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator

LIMITS = Limits(memory_bytes=2**29, cpus=2, processes=130)


def test_what_version_1_is_told() -> None:
    said = {c: settings_of(c, LIMITS, version=CgroupVersion.V1) for c in Controller}
    assert said == {
        Controller.MEMORY: {"memory.limit_in_bytes": str(2**29)},
        Controller.CPU: {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "200000"},
        Controller.PIDS: {"pids.max": "130"},
    }


def test_without_a_place_there_is_no_group_and_no_record(tmp_path: Path) -> None:
    group = VmGroup.create(CgroupPlan(), name="vm", limits=LIMITS, record=tmp_path / "cgroups")
    assert group == VmGroup()
    assert group.entrances(version=None) == []
    assert list(tmp_path.iterdir()) == []


def test_no_record_is_no_group(tmp_path: Path) -> None:
    assert VmGroup.recorded_in(tmp_path / "cgroups") == VmGroup()


@pytest.mark.parametrize(
    "damaged",
    ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/vmpool-vm-2", "vmpool-vm-1", "/sys\0/vmpool-vm-1", "\tpids.max 1"],
)
def test_a_damaged_record_leads_to_no_other_group(tmp_path: Path, damaged: str) -> None:
    """Or all that is in that group would be killed."""
    record = tmp_path / "vm-1" / "cgroups"
    record.parent.mkdir()
    record.write_text(f"{damaged}\n/place/vmpool-vm-1\n\tpids.max 7\n\t../escape 1\n")
    group = VmGroup.recorded_in(record)
    assert group.directories == (Path("/place/vmpool-vm-1"),)
    assert group.settings == {Path("/place/vmpool-vm-1/pids.max"): "7"}


def test_a_group_that_takes_no_limit_is_taken_back(tmp_path: Path) -> None:
    """The files of limits are the kernel's: they are never made by us."""
    plan = CgroupPlan(version=CgroupVersion.V1, places={Controller.PIDS: tmp_path})
    with pytest.raises(FileNotFoundError, match=r"pids\.max"):
        VmGroup.create(plan, name="vm", limits=LIMITS, record=tmp_path / "cgroups")
    assert not (tmp_path / "vmpool-vm").exists()


def test_a_group_that_is_there_already_is_somebody_elses(tmp_path: Path) -> None:
    places = {Controller.CPU: tmp_path / "cpu", Controller.PIDS: tmp_path / "pids"}
    for place in places.values():
        place.mkdir()
    (places[Controller.PIDS] / "vmpool-vm").mkdir()
    with pytest.raises(FileExistsError):
        VmGroup.create(
            CgroupPlan(version=CgroupVersion.V1, places=places),
            name="vm",
            limits=LIMITS,
            record=tmp_path / "cgroups",
        )
    assert (places[Controller.PIDS] / "vmpool-vm").exists()
    assert not (places[Controller.CPU] / "vmpool-vm").exists()


@pytest.mark.parametrize(("version", "entrance"), [(CgroupVersion.V1, "tasks"), (CgroupVersion.V2, "cgroup.procs")])
def test_a_thread_enters_by_a_file_of_the_group(tmp_path: Path, version: CgroupVersion, entrance: str) -> None:
    assert VmGroup(directories=(tmp_path,)).entrances(version=version) == [str(tmp_path / entrance)]


async def test_a_group_whose_members_do_not_die_is_an_error_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_module, "REMOVE_LIMIT_S", 0.0)
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append(pid))
    (tmp_path / "cgroup.procs").write_text("123456\n")
    busy = OSError(16, "Device or resource busy")
    monkeypatch.setattr(Path, "rmdir", lambda path: (_ for _ in ()).throw(busy))
    with pytest.raises(StopError, match=r"process 123456 .* has \[123456\]"):
        await VmGroup(directories=(tmp_path,)).remove()
    assert killed[0] == 123456


async def test_a_member_that_the_kernel_does_not_name_is_no_process_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows those of other pid namespaces as 0, and that is our own process group to kill()."""
    monkeypatch.setattr(group_module, "REMOVE_LIMIT_S", 0.0)
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append(pid))
    (tmp_path / "cgroup.procs").write_text("0\n123456\n")
    busy = OSError(16, "Device or resource busy")
    monkeypatch.setattr(Path, "rmdir", lambda path: (_ for _ in ()).throw(busy))
    with pytest.raises(StopError, match=r"process 123456 .* 0 stands for a process of another pid namespace"):
        await VmGroup(directories=(tmp_path,)).remove()
    assert set(killed) == {123456}


# -- a mount that goes -------------------------------------------------------------------------------------------------


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where our groups are, by the mounts that there are now."""
    places: list[Path] = []

    def find(name: str) -> tuple[Path, ...]:
        return tuple(place / name for place in places if (place / name).is_dir())

    monkeypatch.setattr(group_module, "find_below_ours", find)
    return places


async def test_a_group_whose_mount_has_gone_is_removed_where_it_still_is(tmp_path: Path, mounts: list[Path]) -> None:
    mounts.append(tmp_path / "standard")
    (tmp_path / "standard" / "vmpool-vm-1").mkdir(parents=True)
    await VmGroup(directories=(tmp_path / "chroot" / "vmpool-vm-1",)).remove()
    assert list((tmp_path / "standard").iterdir()) == []


async def test_one_that_is_out_of_reach_is_not_taken_for_removed(tmp_path: Path, mounts: list[Path]) -> None:
    with pytest.raises(FileNotFoundError, match="mount is gone"):
        await VmGroup(directories=(tmp_path / "chroot" / "vmpool-vm-1",)).remove()


@pytest.mark.parametrize("directory", ["vmpool-vm-1", "place/that/was/vmpool-vm-1"])
async def test_one_that_was_removed_is(tmp_path: Path, mounts: list[Path], directory: str) -> None:
    """Its place may have been, too, after it."""
    (tmp_path / "cgroup.procs").touch()
    await VmGroup(directories=(tmp_path / directory,)).remove()


async def test_the_mount_point_that_is_left_is_no_cgroup(tmp_path: Path, mounts: list[Path]) -> None:
    (tmp_path / "chroot").mkdir()
    with pytest.raises(FileNotFoundError, match="mount is gone"):
        await VmGroup(directories=(tmp_path / "chroot" / "vmpool-vm-1",)).remove()


SPEC = MachineSpec(qemu=Path("qemu"), kernel=Path("k"), initrd=Path("i"), accelerator=Accelerator.TCG)


def confinement(*places: Path, anew: CgroupPlan | None) -> Confinement:
    plan = CgroupPlan(version=CgroupVersion.V1, places=dict(zip((Controller.PIDS,), places, strict=True)))
    return Confinement(cgroups=plan, look_anew=None if anew is None else lambda: anew)


def test_a_place_that_has_gone_is_looked_for_anew(tmp_path: Path) -> None:
    """Or no VM would be made any more."""
    (tmp_path / "vm-1").mkdir()
    without = confinement(tmp_path / "gone", anew=CgroupPlan(missing={Controller.PIDS: "not mounted"}))
    for _ in range(2):
        assert without.make_group(SPEC, name="vm-1", record=tmp_path / "vm-1" / "cgroups") == VmGroup()
    assert list((tmp_path / "vm-1").iterdir()) == [], "nothing is written down of what is not there"


def test_a_place_that_is_there_is_not_to_blame(tmp_path: Path) -> None:
    """The files of limits are not."""
    kept = confinement(tmp_path, anew=CgroupPlan())
    with pytest.raises(FileNotFoundError, match=r"pids\.max"):
        kept.make_group(SPEC, name="vm-1", record=tmp_path / "cgroups")


def test_without_one_who_looks_it_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "vm-1").mkdir()
    with pytest.raises(FileNotFoundError):
        confinement(tmp_path / "gone", anew=None).make_group(SPEC, name="vm-1", record=tmp_path / "vm-1" / "cgroups")
