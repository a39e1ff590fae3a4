"""The service's part of the cgroup tree: prepared at its start, and restored at its end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from vmm.qemu.confinement.group import VmGroup, write_setting
from vmm.qemu.confinement.limits import Limits
from vmm.qemu.confinement.plan import CgroupPlan, CgroupVersion, Controller

SERVICE_LEAF: Final = "vmpool-service"
"""The service's own group under version 2: a group with members cannot enable controllers for groups below it."""


@contextlib.contextmanager
def occupied(
    plan: CgroupPlan, *, largest: Limits, own_memory_bytes: int | None = None, visiting: bool = False
) -> Iterator[CgroupPlan]:
    """Prepares the places of the plan, and tries each controller with the limits of the largest VM.

    `own_memory_bytes` limits the service, if it has a group of its own: under version 2.

    Yields the plan without controllers that do not work. At the end all changes are undone, except that a caller that
    is only `visiting`, to see what would work, leaves the changes of a running service. Blocks for some ms.
    """
    with contextlib.ExitStack() as cleanup:
        if plan.version is CgroupVersion.V2:
            plan = _enter(plan, cleanup, visiting=visiting)
            if own_memory_bytes is not None and Controller.MEMORY in plan.places:
                _limit_ourselves(plan.places[Controller.MEMORY] / SERVICE_LEAF, own_memory_bytes)
        lost = {}
        for controller in plan.places:
            try:
                _try(attrs.evolve(plan, places={controller: plan.places[controller]}), largest)
            except OSError as error:
                lost[controller] = f"{error.strerror}: {error.filename or plan.places[controller]}"
        yield plan.without(lost)


def _limit_ourselves(leaf: Path, memory_bytes: int) -> None:
    """Limits the service's own group beside the VMs'. A group that another program moved it to stays as it is."""
    if leaf.is_dir():
        write_setting(leaf / "memory.high", str(memory_bytes))
        write_setting(leaf / "memory.max", str(memory_bytes * 3 // 2))


def _try(plan: CgroupPlan, largest: Limits) -> None:
    group = VmGroup.planned(plan, name=f"probe-{os.getpid()}", limits=largest)
    group.make()
    group.discard()


def _enter(plan: CgroupPlan, cleanup: contextlib.ExitStack, *, visiting: bool) -> CgroupPlan:
    """Version 2: enables the controllers for the groups below."""
    (place,) = set(plan.places.values())
    control = place / "cgroup.subtree_control"
    with contextlib.ExitStack() as steps:
        try:
            _move_aside(place, steps)
            handed = control.read_text(encoding="ascii").split() if visiting else []
            handing = [controller.value for controller in plan.places if controller.value not in handed]
            if handing:
                write_setting(control, " ".join(f"+{name}" for name in handing))
        except OSError as error:
            reason = f"{error.strerror}: {error.filename}"
            return plan.without(dict.fromkeys(plan.places, reason))
        if handing:
            steps.callback(_take_back, control, " ".join(f"-{name}" for name in handing))
        cleanup.push(steps.pop_all())
    return plan


def _move_aside(place: Path, steps: contextlib.ExitStack) -> None:
    root_of_all = not (place / "cgroup.type").exists()  # the root may have both members and groups below it
    if root_of_all or str(os.getpid()) not in (place / "cgroup.procs").read_text(encoding="ascii").split():
        return
    leaf = place / SERVICE_LEAF
    leaf.mkdir(exist_ok=True)
    steps.callback(leaf.rmdir)
    write_setting(leaf / "cgroup.procs", "0")
    steps.callback(write_setting, place / "cgroup.procs", "0")


def _take_back(control: Path, value: str) -> None:
    with contextlib.suppress(OSError):  # groups are left below it, which was reported
        write_setting(control, value)
