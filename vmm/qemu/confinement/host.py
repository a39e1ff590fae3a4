"""The cgroups that the host offers. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vmm.qemu.confinement.plan import CgroupVersion, Controller, Offer, OwnGroups, own_groups

_DELEGATION_ATTRIBUTES: Final = ("trusted.delegate", "user.delegate")
"""systemd's mark of a delegated cgroup."""


def look_at_host() -> dict[Controller, Offer]:
    """The offers for the cgroups of this process. Raises OSError."""
    return offers_of(_own())


def find_below_ours(name: str) -> tuple[Path, ...]:
    """The groups of that name at all possible places, by the current mounts. Raises OSError."""
    own = _own()
    places = [*own.v1.values(), *(() if own.v2 is None else (own.v2, own.v2.parent))]
    return tuple(dict.fromkeys(place / name for place in places if (place / name).is_dir()))


def _own() -> OwnGroups:
    return own_groups(
        mountinfo=Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"),
        membership=Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape"),
        is_there=Path.is_dir,
    )


def offers_of(own: OwnGroups) -> dict[Controller, Offer]:
    """The offers for a process in these cgroups. Raises OSError."""
    unified = _unified_controllers(own)
    return {
        controller: unified[controller] if controller in unified else _legacy(own.v1.get(controller))
        for controller in Controller
    }


def _legacy(place: Path | None) -> Offer:
    if place is None:
        return Offer(version=None, obstacle="the host does not have this controller, or has not mounted it")
    if not os.access(place, os.W_OK | os.X_OK):
        return Offer(version=CgroupVersion.V1, obstacle=f"{place} is not writable by this user")
    return Offer(version=CgroupVersion.V1, place=place)


def _unified_controllers(own: OwnGroups) -> Mapping[Controller, Offer]:
    if own.v2 is None or own.v2_mount is None:
        return {}
    place = own.v2 if own.v2 == own.v2_mount else _delegated((own.v2, own.v2.parent))
    if place is not None and not os.access(place, os.W_OK | os.X_OK):
        place = None
    listing = own.v2 if place is None else place
    has = (listing / "cgroup.controllers").read_text(encoding="ascii").split()
    if place is None:
        obstacle = f"{own.v2} is not delegated to the service; run it in a systemd unit with Delegate=yes"
        # A controller that our own group lacks may still exist in version 1.
        return {c: Offer(version=CgroupVersion.V2, obstacle=obstacle) for c in Controller if c.value in has}
    return {c: Offer(version=CgroupVersion.V2, place=place) for c in Controller if c.value in has}


def _delegated(groups: tuple[Path, ...]) -> Path | None:
    """The first group that the host's manager of cgroups delegates to the service.

    With DelegateSubgroup= systemd starts the service in a group below the delegated one, and both belong to the unit's
    user. So systemd's mark counts first, and the owner only if no group has the mark.
    """
    return next(filter(_is_marked, groups), None) or next(filter(_is_ours, groups), None)


def _is_marked(group: Path) -> bool:
    return any(_has_attribute(group, name) for name in _DELEGATION_ATTRIBUTES)


def _is_ours(group: Path) -> bool:
    return group.stat().st_uid == os.geteuid() != 0


def _has_attribute(path: Path, name: str) -> bool:
    try:
        return os.getxattr(path, name) == b"1"
    except OSError:  # not set, or not supported by the file system
        return False
