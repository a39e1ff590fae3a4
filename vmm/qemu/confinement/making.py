"""The making of a service's confinement, from the settings and the host, and the report of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs

from vmm.errors import ConfinementError
from vmm.qemu.confinement.filters import program as seccomp_program
from vmm.qemu.confinement.host import look_at_host
from vmm.qemu.confinement.layers import Layers, find_layers, require_layers
from vmm.qemu.confinement.limits import Limits, limits_for, service_memory_bytes
from vmm.qemu.confinement.plan import CgroupPlan, Controller, decide_cgroups, require_cgroups
from vmm.qemu.confinement.programs import files_for
from vmm.qemu.confinement.record import Confinement, host_memory_bytes
from vmm.qemu.confinement.tree import occupied
from vmm.qemu.confinement.uids import UidPool
from vmm.qemu.confinement.user import UserDecision, check_tools, decide_user
from vmm.qemu.jailer.client import open_jailer
from vmm.qemu.jailer.protocol import Identity
from vmm.spec import MachineSpec
from vmm.words.confinement import (
    ConfinementLine,
    ConfinementReport,
    ConfinementWish,
    Layer,
    LayerState,
    Requirement,
)
from vmm.words.machines import Accelerator


def user_for(wish: ConfinementWish) -> UserDecision:
    """The user that QEMU runs as. Raises ConfinementError, MissingFileError."""
    decision = decide_user(wish.user, euid=os.geteuid(), uids=wish.uids)
    if decision.user is not None:
        check_tools(decision.user)
    return decision


def cgroups_for(wish: ConfinementWish) -> CgroupPlan:
    """The controllers that the host offers. Changes nothing. Raises ConfinementError, OSError."""
    return CgroupPlan() if wish.cgroups is Requirement.OFF else decide_cgroups(wish.cgroups, look_at_host())


def applied_cgroups(wish: ConfinementWish, *, specs: Mapping[str, MachineSpec]) -> CgroupPlan:
    """The plan that `confined` would have: tried, and undone. Raises ConfinementError, OSError. Blocks for some ms."""
    with _places(wish, specs=specs, visiting=True) as plan:
        return plan


@contextlib.contextmanager
def confined(
    wish: ConfinementWish,
    *,
    user: UserDecision,
    specs: Mapping[str, MachineSpec],
    changed: Callable[[ConfinementLine], None],
) -> Iterator[Confinement]:
    """Holds the jailer and the places for cgroups within the block. `changed` is called with every new plan.

    Raises ConfinementError, JailError, OSError.
    """

    def look_anew() -> CgroupPlan:
        plan = cgroups_for(wish)
        changed(_looked_anew(plan))
        return plan

    with jailed(wish, user=user) as confinement, _places(wish, specs=specs) as plan:
        yield attrs.evolve(confinement, cgroups=plan, look_anew=look_anew)


@contextlib.contextmanager
def jailed(wish: ConfinementWish, *, user: UserDecision) -> Iterator[Confinement]:
    """Everything but cgroups, tried on the host. Raises ConfinementError, JailError. Blocks for some 100 ms."""
    wanted = set() if wish.layers is Requirement.OFF else set(Layer) - set(wish.without)
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
        require_layers(wish.layers, layers)
        uids = None
        if user.uids is not None:
            uids = UidPool(user.uids)
            cleanup.callback(uids.close)
        yield Confinement(jailer=jailer, user=user.user, uids=uids, layers=layers)


@contextlib.contextmanager
def _places(wish: ConfinementWish, *, specs: Mapping[str, MachineSpec], visiting: bool = False) -> Iterator[CgroupPlan]:
    own = None if visiting else service_memory_bytes(specs.values())
    with occupied(cgroups_for(wish), largest=_largest(specs), own_memory_bytes=own, visiting=visiting) as plan:
        require_cgroups(wish.cgroups, plan)
        yield plan


def _largest(specs: Mapping[str, MachineSpec]) -> Limits:
    """The largest limits of these machines, at least one of which must exist."""
    host = host_memory_bytes()
    limits = [limits_for(spec, image_bytes=0, host_memory_bytes=host) for spec in specs.values()]
    return Limits(
        memory_bytes=max(limit.memory_bytes for limit in limits),
        cpus=max(limit.cpus for limit in limits),
        processes=max(limit.processes for limit in limits),
    )


# -- the report --------------------------------------------------------------------------------------------------------


def report(wish: ConfinementWish, *, user: UserDecision, confinement: Confinement) -> ConfinementReport:
    layers, cgroups = confinement.layers, confinement.cgroups
    how = f"of {user.uids}" if user.uids else user.shared or user.reason
    return ConfinementReport(
        states=(
            LayerState(name="uid", applied=user.uids is not None, detail=how),
            *(_state(layer.value, layer in layers.applied, layers.missing.get(layer)) for layer in Layer),
            *(_state(f"{one.value}-cgroup", one in cgroups.places, cgroups.missing.get(one)) for one in Controller),
        ),
        lines=(_line_on_user(user), _line_on_layers(wish, layers), _line_on_cgroups(wish, cgroups)),
    )


def _state(name: str, applied: bool, missing: str | None) -> LayerState:
    detail = "" if applied else missing or "the configuration leaves it out"
    return LayerState(name=name, applied=applied, detail=detail)


def _line_on_user(user: UserDecision) -> ConfinementLine:
    figures = {
        "user": user.user.name if user.user else "the service's",
        "uid": str(user.uids) if user.uids else user.user.uid if user.user else os.geteuid(),
        "reason": user.reason,
        **({"shared": user.shared} if user.shared else {}),
    }
    return ConfinementLine(event="QEMU's user", warns=user.privileged or bool(user.shared), figures=figures)


def _line_on_layers(wish: ConfinementWish, layers: Layers) -> ConfinementLine:
    figures = {
        "setting": wish.layers.value,
        "applied": [layer.value for layer in Layer if layer in layers.applied],
        "missing": {layer.value: reason for layer, reason in layers.missing.items()},
    }
    return ConfinementLine(event="layers around QEMU", warns=bool(layers.missing), figures=figures)


def _line_on_cgroups(wish: ConfinementWish, plan: CgroupPlan) -> ConfinementLine:
    figures = {
        "setting": wish.cgroups.value,
        "version": plan.version.value if plan.version else None,
        **_controllers(plan),
    }
    return ConfinementLine(event="cgroups of VMs", warns=bool(plan.missing), figures=figures)


def _looked_anew(plan: CgroupPlan) -> ConfinementLine:
    """A mount of cgroups is gone while the service runs."""
    return ConfinementLine(event="the place for cgroups has gone; looked anew", warns=True, figures=_controllers(plan))


def _controllers(plan: CgroupPlan) -> dict[str, object]:
    return {
        "controllers": [controller.value for controller in plan.places],
        "missing": {controller.value: obstacle for controller, obstacle in plan.missing.items()},
    }
