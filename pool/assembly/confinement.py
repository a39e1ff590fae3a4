"""What the service's VMs are confined to: from the settings and the host to what is applied, and what is not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import structlog

from pool.settings.config import Settings
from vmm.errors import ConfinementError
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.filters import program as seccomp_program
from vmm.qemu.confinement.host import look_at_host
from vmm.qemu.confinement.layers import Layer, Layers, LayerSetting, LayerState, find_layers
from vmm.qemu.confinement.layers import require as require_layers
from vmm.qemu.confinement.limits import Limits, limits_for, service_memory_bytes
from vmm.qemu.confinement.plan import CgroupPlan, CgroupSetting, Controller, decide_cgroups, require
from vmm.qemu.confinement.programs import files_for
from vmm.qemu.confinement.record import host_memory_bytes
from vmm.qemu.confinement.tree import occupied
from vmm.qemu.confinement.uids import UidPool
from vmm.qemu.confinement.user import UserDecision, check_tools, decide_user
from vmm.qemu.jailer.client import open_jailer
from vmm.qemu.jailer.protocol import Identity
from vmm.spec import Accelerator, MachineSpec

_log = structlog.get_logger("vmpool.confinement")


def user_for(settings: Settings) -> UserDecision:
    """Whom QEMU runs as. Raises ConfinementError, MissingFileError."""
    service = settings.service
    decision = decide_user(service.qemu_user, euid=os.geteuid(), uids=service.qemu_uids)
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
    """Has jailer and places for cgroups ready within the block, and logs what is applied.

    Raises ConfinementError, JailError, OSError.
    """
    with jailed(settings, user=user) as confinement, _places(settings, specs=specs) as plan:
        _tell(user, confinement.layers, plan, settings=settings)
        yield attrs.evolve(confinement, cgroups=plan, look_anew=lambda: _look_anew(settings))


@contextlib.contextmanager
def jailed(settings: Settings, *, user: UserDecision) -> Iterator[Confinement]:
    """All but cgroups. Has tried what the host lets us. Raises ConfinementError, JailError. Blocks for some 100 ms."""
    wanted = set(Layer) - set(settings.service.confinement_except)
    if settings.service.confinement is LayerSetting.OFF:
        wanted = set()
    missing = {}
    program = b""
    if Layer.SECCOMP in wanted:
        try:
            program = seccomp_program()
        except ConfinementError as error:
            missing[Layer.SECCOMP] = error.reason
    with open_jailer(program) as jailer, contextlib.ExitStack() as cleanup:
        layers = find_layers(
            jailer,
            wanted=wanted - missing.keys(),
            identity=None if user.user is None else Identity(uid=user.user.uid, gid=user.user.gid, groups=[]),
            files=files_for(Path("/usr/bin/true"), accelerator=Accelerator.TCG, environment={}),
        )
        layers = attrs.evolve(layers, missing={**layers.missing, **missing})
        require_layers(settings.service.confinement, layers)
        uids = None
        if user.uids is not None:
            uids = UidPool(user.uids)
            cleanup.callback(uids.close)
        yield Confinement(jailer=jailer, user=user.user, uids=uids, layers=layers)


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
    own = None if visiting else service_memory_bytes(specs.values())
    with occupied(cgroups_for(settings), largest=_largest(specs), own_memory_bytes=own, visiting=visiting) as plan:
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


def describe(user: UserDecision, confinement: Confinement) -> tuple[LayerState, ...]:
    """All that there may be, and whether it is."""
    layers, cgroups = confinement.layers, confinement.cgroups
    how = f"of {user.uids}" if user.uids else user.shared or user.reason
    return (
        LayerState(name="uid", applied=user.uids is not None, detail=how),
        *(_state(layer.value, layer in layers.applied, layers.missing.get(layer)) for layer in Layer),
        *(_state(f"{one.value}-cgroup", one in cgroups.places, cgroups.missing.get(one)) for one in Controller),
    )


def _state(name: str, applied: bool, missing: str | None) -> LayerState:
    detail = "" if applied else missing or "the configuration leaves it out"
    return LayerState(name=name, applied=applied, detail=detail)


def _tell(user: UserDecision, layers: Layers, plan: CgroupPlan, *, settings: Settings) -> None:
    (_log.warning if user.privileged or user.shared else _log.info)(
        "QEMU's user",
        user=user.user.name if user.user else "the service's",
        uid=str(user.uids) if user.uids else user.user.uid if user.user else os.geteuid(),
        reason=user.reason,
        **({"shared": user.shared} if user.shared else {}),
    )
    (_log.warning if layers.missing else _log.info)(
        "layers around QEMU",
        setting=settings.service.confinement.value,
        applied=[layer.value for layer in Layer if layer in layers.applied],
        missing={layer.value: reason for layer, reason in layers.missing.items()},
    )
    (_log.warning if plan.missing else _log.info)(
        "cgroups of VMs",
        setting=settings.service.cgroups.value,
        version=plan.version.value if plan.version else None,
        controllers=[controller.value for controller in plan.places],
        missing={controller.value: obstacle for controller, obstacle in plan.missing.items()},
    )
