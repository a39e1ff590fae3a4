"""Version 2 on a tree of files laid out like it: what is written where, and that all is given back."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from tests.unit.confinement import kernel
from tests.unit.confinement.jailed import jailer_alone, start
from tests.unit.confinement.kernel import CgroupFileSystem, delegated_group
from vmm.qemu.confinement import host
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.confinement.host import offers_of
from vmm.qemu.confinement.limits import Limits
from vmm.qemu.confinement.plan import CgroupVersion, Controller, OwnGroups, decide_cgroups
from vmm.qemu.confinement.tree import occupied
from vmm.words.confinement import Requirement

LIMITS = Limits(memory_bytes=512 * 2**20, cpus=3, processes=130)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


@pytest.fixture
def unit(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The group that systemd delegated to us."""
    group = delegated_group(root)
    CgroupFileSystem(root).install(monkeypatch)
    monkeypatch.setattr(host, "_has_attribute", lambda path, name: path == group and name == "trusted.delegate")
    return group


def own(root: Path, group: Path) -> OwnGroups:
    return OwnGroups(v1={}, v2=group, v2_mount=root)


def test_a_delegated_group_is_offered_with_its_controllers(root: Path, unit: Path) -> None:
    plan = decide_cgroups(Requirement.REQUIRED, offers_of(own(root, unit)))
    assert plan.version is CgroupVersion.V2
    assert set(plan.places) == set(Controller)
    assert set(plan.places.values()) == {unit}


def test_in_a_subgroup_of_the_delegated_one_the_upper_is_offered(root: Path, unit: Path) -> None:
    (unit / "main").mkdir()
    assert offers_of(own(root, unit / "main"))[Controller.MEMORY].place == unit


def test_so_it_is_if_both_are_the_units_users(root: Path, unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (unit / "main").mkdir()
    monkeypatch.setattr(host, "_is_ours", lambda _group: True)
    assert offers_of(own(root, unit / "main"))[Controller.MEMORY].place == unit


def test_a_group_that_nobody_delegated_is_not_touched(root: Path, unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_has_attribute", lambda path, name: False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    offers = offers_of(own(root, unit))
    assert {offer.place for offer in offers.values()} == {None}
    assert "Delegate=yes" in offers[Controller.CPU].obstacle


def test_a_controller_that_the_group_was_not_given_is_missing(root: Path, unit: Path) -> None:
    (unit / "cgroup.controllers").write_text("memory pids")
    plan = decide_cgroups(Requirement.AUTO, offers_of(own(root, unit)))
    assert set(plan.missing) == {Controller.CPU}
    assert set(plan.places) == {Controller.MEMORY, Controller.PIDS}


def test_the_service_makes_way_and_comes_back(root: Path, unit: Path) -> None:
    plan = decide_cgroups(Requirement.AUTO, offers_of(own(root, unit)))
    with occupied(plan, largest=LIMITS) as applied:
        assert applied == plan
        assert (unit / "vmpool-service" / "cgroup.procs").read_text() == "0"
        assert (unit / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
        assert {path.name for path in unit.iterdir() if path.is_dir()} == {"vmpool-service"}, "the trial leaves nothing"
        (unit / "vmpool-service" / "cgroup.procs").write_text("")  # the kernel's part of the way back
    assert (unit / "cgroup.procs").read_text().startswith("0")
    assert (unit / "cgroup.subtree_control").read_text().startswith("-memory -cpu -pids")
    assert not any(path.is_dir() for path in unit.iterdir())


def test_who_only_visits_leaves_what_a_service_has_made_of_the_place(root: Path, unit: Path) -> None:
    """To take a controller back would take the limits of its VMs with it."""
    plan = decide_cgroups(Requirement.AUTO, offers_of(own(root, unit)))
    control = unit / "cgroup.subtree_control"
    (unit / "cgroup.procs").write_text("")
    control.write_text("memory cpu pids")
    with occupied(plan, largest=LIMITS, visiting=True) as applied:
        assert applied == plan
    assert control.read_text() == "memory cpu pids"
    control.write_text("memory pids")
    with occupied(plan, largest=LIMITS, visiting=True):
        assert control.read_text().startswith("+cpu")
    assert control.read_text().startswith("-cpu"), "what it has given it takes back, and nothing else"
    assert not any(path.is_dir() for path in unit.iterdir())


def test_a_controller_that_takes_no_limit_is_left_out_and_told(
    root: Path, unit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = decide_cgroups(Requirement.AUTO, offers_of(own(root, unit)))
    monkeypatch.setitem(kernel._FILES, "cpu", ())
    with occupied(plan, largest=LIMITS) as applied:
        assert set(applied.places) == {Controller.MEMORY, Controller.PIDS}
        assert "No such file" in applied.missing[Controller.CPU]
        (unit / "vmpool-service" / "cgroup.procs").write_text("")


async def test_a_vm_has_one_group_with_all_limits(root: Path, unit: Path, tmp_path: Path) -> None:
    plan = decide_cgroups(Requirement.AUTO, offers_of(own(root, unit)))
    record = tmp_path / "vm-1" / "cgroups"
    record.parent.mkdir()
    with occupied(plan, largest=LIMITS) as applied:
        group = VmGroup.create(applied, name="vm-1", limits=LIMITS, record=record)
        [directory] = group.directories
        assert directory == unit / "vmpool-vm-1"
        assert (directory / "memory.max").read_text() == str(512 * 2**20)
        assert (directory / "cpu.max").read_text() == "300000 100000"
        assert (directory / "pids.max").read_text() == "130"

        with jailer_alone() as alone:
            confinement = attrs.evolve(alone, cgroups=applied)
            assert (await start(confinement, "/bin/true", log=tmp_path / "log", group=group).wait_exited()).status == 0
        assert (directory / "cgroup.procs").read_text() == "0\n", "it joined itself"

        (directory / "cgroup.procs").write_text("")
        assert VmGroup.recorded_in(record) == group

        (directory / "cpu.max").write_text("max 100000")
        VmGroup.recorded_in(record).restrict()
        assert (directory / "cpu.max").read_text().startswith("300000 100000")
        await group.remove()
        await group.remove()
        assert not directory.exists()
        (unit / "vmpool-service" / "cgroup.procs").write_text("")


@pytest.fixture
def leaf(unit: Path) -> Path:
    """Ours, with the files that it has once the controllers are handed down."""
    (unit / "cgroup.subtree_control").write_text("+memory")
    leaf = unit / "vmpool-service"
    leaf.mkdir()
    (unit / "cgroup.subtree_control").write_text("")
    return leaf


def test_the_service_has_a_limit_of_its_own_beside_its_vms(root: Path, unit: Path, leaf: Path) -> None:
    plan = decide_cgroups(Requirement.AUTO, offers_of(own(root, unit)))
    with occupied(plan, largest=LIMITS, own_memory_bytes=2 * 2**30):
        assert (leaf / "memory.high").read_text() == str(2 * 2**30)
        assert (leaf / "memory.max").read_text() == str(3 * 2**30)
        (leaf / "cgroup.procs").write_text("")


def test_who_only_looks_limits_nobody(root: Path, unit: Path, leaf: Path) -> None:
    plan = decide_cgroups(Requirement.AUTO, offers_of(own(root, unit)))
    with occupied(plan, largest=LIMITS, visiting=True):
        assert (leaf / "memory.max").read_text() == ""
        (leaf / "cgroup.procs").write_text("")
