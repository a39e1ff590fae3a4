"""Which cgroups are used: from what the host has, and what is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmm.errors import ConfinementError
from vmm.qemu.confinement.plan import CgroupPlan, CgroupVersion, Controller, Offer, decide_cgroups, own_groups
from vmm.words.confinement import Requirement

V1 = {c: Offer(version=CgroupVersion.V1, place=Path("/cg", c.value)) for c in Controller}
V2 = {c: Offer(version=CgroupVersion.V2, place=Path("/cg")) for c in Controller}
NONE = {c: Offer(version=None, obstacle="not there") for c in Controller}


def test_version_1_has_a_place_for_each_controller() -> None:
    plan = decide_cgroups(Requirement.AUTO, V1)
    assert plan.version is CgroupVersion.V1
    assert plan.places == {c: Path("/cg", c.value) for c in Controller}
    assert plan.missing == {}


def test_version_2_has_one_place_for_all() -> None:
    plan = decide_cgroups(Requirement.REQUIRED, V2)
    assert (plan.version, set(plan.places.values())) == (CgroupVersion.V2, {Path("/cg")})


def test_of_a_mixture_version_2_is_taken_and_the_rest_is_told() -> None:
    plan = decide_cgroups(Requirement.AUTO, {**V2, Controller.CPU: V1[Controller.CPU]})
    assert plan.version is CgroupVersion.V2
    assert plan.missing == {Controller.CPU: "the host has this controller in v1 only"}


def test_version_1_serves_where_version_2_is_not_ours() -> None:
    foreign = Offer(version=CgroupVersion.V2, obstacle="not ours")
    plan = decide_cgroups(Requirement.AUTO, {**V1, Controller.PIDS: foreign})
    assert plan.version is CgroupVersion.V1
    assert plan.missing == {Controller.PIDS: "not ours"}


def test_nothing_is_asked_of_the_host_when_it_is_off() -> None:
    assert decide_cgroups(Requirement.OFF, NONE) == CgroupPlan()


def test_what_the_host_lacks_is_told_with_the_reason() -> None:
    plan = decide_cgroups(Requirement.AUTO, NONE)
    assert (plan.version, plan.places) == (None, {})
    assert plan.missing == dict.fromkeys(Controller, "not there")


def test_what_is_required_and_lacking_is_an_error_that_names_it() -> None:
    offers = {**V1, Controller.PIDS: NONE[Controller.PIDS]}
    with pytest.raises(ConfinementError, match=r'service\.cgroups = "required": pids: not there; run the service as'):
        decide_cgroups(Requirement.REQUIRED, offers)


def test_a_plan_without_what_did_not_work() -> None:
    plan = decide_cgroups(Requirement.AUTO, V2).without({Controller.CPU: "Invalid argument"})
    assert (set(plan.places), plan.missing) == (
        {Controller.MEMORY, Controller.PIDS},
        {Controller.CPU: "Invalid argument"},
    )
    assert plan.without(dict.fromkeys(plan.places, "no")).version is None


V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw
"""


def test_our_groups_are_read_from_the_mounts_and_our_membership() -> None:
    own = own_groups(mountinfo=V1_MOUNTS, membership="4:memory:/a/b:c\n3:cpuacct,cpu:/d\n1:name=systemd:/e\n0::/f\n")
    assert own.v1 == {
        Controller.MEMORY: Path("/sys/fs/cgroup/memory/a/b:c"),
        Controller.CPU: Path("/sys/fs/cgroup/cpu,cpuacct/d"),
    }
    assert own.v2 == Path("/sys/fs/cgroup/uni fied/f")
    assert own.v2_mount == Path("/sys/fs/cgroup/uni fied")


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("/docker/c1", "/docker/c1", "/cg"),
        ("/docker/c1", "/docker/c1/x", "/cg/x"),
        ("/", "/user.slice", "/cg/user.slice"),
    ],
)
def test_in_a_container_the_mount_shows_a_part_of_the_hierarchy(root: str, path: str, expected: str) -> None:
    own = own_groups(mountinfo=f"31 23 0:28 {root} /cg rw - cgroup2 cgroup2 rw", membership=f"0::{path}")
    assert own.v2 == Path(expected)


def test_a_host_with_version_2_alone_has_nothing_of_version_1() -> None:
    own = own_groups(mountinfo="31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", membership="0::/user.slice")
    assert own.v1 == {}


# -- a hierarchy that is mounted more than once ------------------------------------------------------------------------

STANDARD = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
CHROOT = "60 50 0:32 / /chroot/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
OTHER_CHROOT = "61 50 0:32 / /other/memory rw - cgroup cgroup rw,memory"
STANDARD_V2 = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
CHROOT_V2 = "62 50 0:38 / /chroot/unified rw - cgroup2 cgroup2 rw"
MEMBERSHIP = "4:memory:/a\n0::/f\n"


@pytest.mark.parametrize("mounts", [(STANDARD, CHROOT), (CHROOT, STANDARD)])
def test_the_standard_place_counts_wherever_else_it_is_mounted(mounts: tuple[str, ...]) -> None:
    """A chroot's mount goes some day, and with it all that was to be made there."""
    own = own_groups(mountinfo="\n".join(mounts), membership=MEMBERSHIP)
    assert own.v1 == {Controller.MEMORY: Path("/sys/fs/cgroup/memory/a")}


@pytest.mark.parametrize("mounts", [(STANDARD_V2, CHROOT_V2), (CHROOT_V2, STANDARD_V2)])
def test_and_so_it_is_with_version_2(mounts: tuple[str, ...]) -> None:
    own = own_groups(mountinfo="\n".join(mounts), membership=MEMBERSHIP)
    assert (own.v2, own.v2_mount) == (Path("/sys/fs/cgroup/unified/f"), Path("/sys/fs/cgroup/unified"))


def test_elsewhere_it_is_the_first_one_in_which_our_group_is() -> None:
    there = {Path("/other/memory/a")}
    own = own_groups(
        mountinfo=f"{STANDARD}\n{CHROOT}\n{OTHER_CHROOT}", membership=MEMBERSHIP, is_there=there.__contains__
    )
    assert own.v1 == {Controller.MEMORY: Path("/other/memory/a")}
    nowhere = own_groups(mountinfo=f"{STANDARD}\n{CHROOT_V2}", membership=MEMBERSHIP, is_there=lambda _: False)
    assert (nowhere.v1, nowhere.v2, nowhere.v2_mount) == ({}, None, None)
