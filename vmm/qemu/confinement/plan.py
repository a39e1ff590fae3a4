"""The cgroup controllers that limit the VMs, and their places, decided from the settings and the host's offers."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

import attrs

from vmm.errors import ConfinementError
from vmm.words.confinement import Requirement


class Controller(enum.Enum):
    MEMORY = "memory"
    CPU = "cpu"
    PIDS = "pids"


class CgroupVersion(enum.Enum):
    V1 = "v1"
    V2 = "v2"


@attrs.frozen(kw_only=True)
class Offer:
    """One controller of the host: a place for the VMs' groups, or the obstacle."""

    version: CgroupVersion | None
    """None: the host does not have the controller."""
    place: Path | None = None
    """The directory below which the service may make groups."""
    obstacle: str = ""


@attrs.frozen(kw_only=True)
class CgroupPlan:
    """The applied controllers, and the missing ones with the reasons."""

    version: CgroupVersion | None = None
    """None: the VMs have no cgroups."""
    places: Mapping[Controller, Path] = attrs.field(factory=dict)
    missing: Mapping[Controller, str] = attrs.field(factory=dict)
    """Wanted but not available: a sentence each."""

    def without(self, lost: Mapping[Controller, str]) -> CgroupPlan:
        """The plan without controllers that turned out not to work."""
        places = {controller: place for controller, place in self.places.items() if controller not in lost}
        return CgroupPlan(version=self.version if places else None, places=places, missing={**self.missing, **lost})


_REMEDY: Final = (
    'run the service as root, or in a systemd unit with Delegate=yes, or set service.cgroups to "auto" or "off"'
)


def decide_cgroups(setting: Requirement, offers: Mapping[Controller, Offer]) -> CgroupPlan:
    """One version for all controllers: 2 if it offers any of them, otherwise 1.

    Raises ConfinementError if all are required and one is not available.
    """
    if setting is Requirement.OFF:
        return CgroupPlan()
    usable = {controller: offer for controller, offer in offers.items() if offer.place is not None}
    versions = {offer.version for offer in usable.values()}
    version = next((version for version in (CgroupVersion.V2, CgroupVersion.V1) if version in versions), None)
    plan = CgroupPlan(
        version=version,
        places={
            controller: offer.place
            for controller, offer in usable.items()
            if offer.place is not None and offer.version is version
        },
        missing={
            controller: f"the host has this controller in {offer.version.value} only"
            if offer.place and offer.version
            else offer.obstacle
            for controller, offer in offers.items()
            if offer.place is None or offer.version is not version
        },
    )
    require_cgroups(setting, plan)
    return plan


_Part = TypeVar("_Part", bound=enum.Enum)


def require(setting: Requirement, missing: Mapping[_Part, str], *, what: str, remedy: str) -> None:
    """Raises ConfinementError if everything is required and a part is `missing`, with a reason for each."""
    if setting is Requirement.REQUIRED and missing:
        reason = "; ".join(f"{part.value}: {obstacle}" for part, obstacle in missing.items())
        raise ConfinementError(what=f'{what} = "required"', reason=reason, remedy=remedy)


def require_cgroups(setting: Requirement, plan: CgroupPlan) -> None:
    """Raises ConfinementError if the setting requires controllers that the plan lacks."""
    require(setting, plan.missing, what="service.cgroups", remedy=_REMEDY)


@attrs.frozen(kw_only=True)
class OwnGroups:
    """The directories of the cgroups that a process is in."""

    v1: Mapping[Controller, Path]
    v2: Path | None
    v2_mount: Path | None = None
    """The mount point of that hierarchy."""


STANDARD_MOUNTS: Final = PurePosixPath("/sys/fs/cgroup")


def own_groups(
    *, mountinfo: str, membership: str, is_there: Callable[[Path], bool] = lambda _directory: True
) -> OwnGroups:
    """Reads /proc/self/mountinfo and /proc/self/cgroup (proc_pid_mountinfo(5), cgroups(7)).

    A hierarchy may be mounted more than once, for example in a chroot whose mount comes and goes: the mount at the
    standard place counts, otherwise the first in which the process's group `is_there`.
    """
    paths = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[name] = path
    v1: dict[Controller, Path] = {}
    v2: Path | None = None
    v2_mount: Path | None = None
    for mount in sorted(map(_mount, mountinfo.splitlines()), key=lambda mount: not mount.is_standard):
        if mount.kind == "cgroup2" and "" in paths and v2 is None:
            directory = _directory(paths[""], root=mount.root, mount_point=mount.point)
            if is_there(directory):
                v2, v2_mount = directory, Path(mount.point)
        elif mount.kind == "cgroup":
            for controller in Controller:
                if controller.value in mount.options and controller.value in paths and controller not in v1:
                    directory = _directory(paths[controller.value], root=mount.root, mount_point=mount.point)
                    if is_there(directory):
                        v1[controller] = directory
    return OwnGroups(v1=v1, v2=v2, v2_mount=v2_mount)


@attrs.frozen(kw_only=True)
class _Mount:
    kind: str
    root: str
    point: str
    options: tuple[str, ...]

    @property
    def is_standard(self) -> bool:
        return PurePosixPath(self.point).is_relative_to(STANDARD_MOUNTS)


def _mount(line: str) -> _Mount:
    left, _, right = line.partition(" - ")
    kind, _, options = right.split(" ", 2)
    root, point = (_unescape(field) for field in left.split(" ")[3:5])
    return _Mount(kind=kind, root=root, point=point, options=tuple(options.split(",")))


def _directory(path: str, *, root: str, mount_point: str) -> Path:
    """A container may see only a part of the hierarchy: its mount's root is a group, and paths may begin above it."""
    inside = PurePosixPath(path)
    if inside.is_relative_to(root):
        inside = inside.relative_to(root)
    return Path(mount_point, *(part for part in inside.parts if part not in ("/", "..")))


def _unescape(field: str) -> str:
    return field.replace("\\040", " ")
