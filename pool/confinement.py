"""What the service's VMs are confined to: from the settings and the host to what is applied, and what is not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import structlog

from pool.config import Settings
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.host import look_at_host
from vmm.qemu.confinement.limits import Limits, limits_for
from vmm.qemu.confinement.plan import CgroupPlan, CgroupSetting, decide_cgroups, require
from vmm.qemu.confinement.record import host_memory_bytes
from vmm.qemu.confinement.tree import occupied
from vmm.qemu.confinement.user import UserDecision, check_tools, decide_user
from vmm.spec import MachineSpec

_log = structlog.get_logger("vmpool.confinement")


def user_for(settings: Settings) -> UserDecision:
    """Whom QEMU runs as. Raises ConfinementError, MissingFileError."""
    decision = decide_user(settings.service.qemu_user, euid=os.geteuid())
    if decision.user is not None:
        check_tools(decision.user)
    return decision


def cgroups_for(settings: Settings) -> CgroupPlan:
    """Which controllers the host offers; nothing is changed. Raises ConfinementError, OSError."""
    setting = settings.service.cgroups
    return CgroupPlan() if setting is CgroupSetting.OFF else decide_cgroups(setting, look_at_host())


def applied_cgroups(settings: Settings, *, specs: dict[str, MachineSpec]) -> CgroupPlan:
    """What `confined` would have: tried, and given back. Raises ConfinementError, OSError. Blocks for some ms."""
    with _places(settings, specs=specs, visiting=True) as plan:
        return plan


@contextlib.contextmanager
def confined(settings: Settings, *, user: UserDecision, specs: dict[str, MachineSpec]) -> Iterator[Confinement]:
    """Has the places for cgroups ready within the block, and logs what is applied. Raises ConfinementError, OSError."""
    with _places(settings, specs=specs) as plan:
        _tell(user, plan, setting=settings.service.cgroups)
        yield Confinement(user=user.user, cgroups=plan, look_anew=lambda: _look_anew(settings))


def _look_anew(settings: Settings) -> CgroupPlan:
    """A mount of cgroups has gone while the service runs. Raises ConfinementError, OSError."""
    plan = cgroups_for(settings)
    _log.warning(
        "the place for cgroups has gone; looked anew",
        controllers=[controller.value for controller in plan.places],
        missing={controller.value: obstacle for controller, obstacle in plan.missing.items()},
    )
    return plan


@contextlib.contextmanager
def _places(settings: Settings, *, specs: dict[str, MachineSpec], visiting: bool = False) -> Iterator[CgroupPlan]:
    with occupied(cgroups_for(settings), largest=_largest(specs), visiting=visiting) as plan:
        require(settings.service.cgroups, plan)
        yield plan


def _largest(specs: dict[str, MachineSpec]) -> Limits:
    """Of machines that are there: at least one."""
    host = host_memory_bytes()
    limits = [limits_for(spec, image_bytes=0, host_memory_bytes=host) for spec in specs.values()]
    return Limits(
        memory_bytes=max(limit.memory_bytes for limit in limits),
        cpus=max(limit.cpus for limit in limits),
        processes=max(limit.processes for limit in limits),
    )


def _tell(user: UserDecision, plan: CgroupPlan, *, setting: CgroupSetting) -> None:
    (_log.warning if user.privileged else _log.info)(
        "QEMU's user",
        user=user.user.name if user.user else "the service's",
        uid=user.user.uid if user.user else os.geteuid(),
        reason=user.reason,
    )
    (_log.warning if plan.missing else _log.info)(
        "cgroups of VMs",
        setting=setting.value,
        version=plan.version.value if plan.version else None,
        controllers=[controller.value for controller in plan.places],
        missing={controller.value: obstacle for controller, obstacle in plan.missing.items()},
    )
