"""The cost of QEMU's confinement per VM: its start until QMP answers, and its end. For root."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

import attrs
import trio

from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from vmm.qemu.command_line import Start
from vmm.qemu.confinement import UNCONFINED, Confinement
from vmm.qemu.confinement.host import look_at_host
from vmm.qemu.confinement.layers import NAMESPACES, Layers
from vmm.qemu.confinement.limits import Limits
from vmm.qemu.confinement.making import jailed, user_for
from vmm.qemu.confinement.plan import decide_cgroups
from vmm.qemu.confinement.tree import occupied
from vmm.qemu.instance import Instance
from vmm.words.confinement import ConfinementWish, Layer, Requirement

_PROBE: Final = Limits(memory_bytes=2**30, cpus=1, processes=100)

_KINDS: Final = {
    "none": "as it is",
    "jailer": "by the jailer, with nothing else",
    "uid": "with a uid of its own",
    "cgroups": "in cgroups",
    "namespaces": "in namespaces, but for that of mounts",
    "mounts": "in namespaces, that of mounts included",
    "landlock": "under Landlock",
    "seccomp": "under our seccomp filter",
    "all": "with all of it",
}


def _needs_root() -> str:
    return "" if os.geteuid() == 0 else "only root can confine QEMU like this"


CASES: Final = tuple(
    Case(
        name=f"confinement/{name}",
        what=f"QEMU {what}: until QMP answers; parts: the spawn, in which the loop does nothing else, and the end",
        missing=_needs_root,
    )
    for name, what in _KINDS.items()
)


def _confinements(whole: Confinement) -> dict[str, Confinement]:
    """By kind, derived from the complete one."""
    bare = Confinement(jailer=whole.jailer)
    mounts = frozenset(NAMESPACES) & whole.layers.applied

    def with_layers(layers: frozenset[Layer]) -> Confinement:
        return attrs.evolve(bare, layers=Layers(applied=layers & whole.layers.applied))

    return {
        "none": UNCONFINED,
        "jailer": bare,
        "uid": attrs.evolve(bare, user=whole.user, uids=whole.uids),
        "cgroups": attrs.evolve(bare, cgroups=whole.cgroups),
        "namespaces": with_layers(mounts - {Layer.MOUNT_NAMESPACE}),
        "mounts": with_layers(mounts),
        "landlock": with_layers(frozenset({Layer.LANDLOCK})),
        "seccomp": with_layers(frozenset({Layer.SECCOMP})),
        "all": whole,
    }


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    async def once(turn: Turn, *, confinement: Confinement) -> None:
        async with trio.open_nursery() as nursery:
            began = time.perf_counter()
            instance = Instance.start(
                bench.machine,
                vm_id="bench",
                directory=bench.home / "c",
                start=Start.INCOMING,
                confinement=confinement,
            )
            turn.record(time.perf_counter() - began, part="spawn")
            try:
                await instance.connect_qmp(nursery=nursery)
                turn.record(time.perf_counter() - began)
                began = time.perf_counter()
            finally:
                await instance.stop()
            turn.record(time.perf_counter() - began, part="end")

    wish = ConfinementWish()
    with (
        jailed(wish, user=user_for(wish)) as confinement,
        occupied(decide_cgroups(Requirement.AUTO, look_at_host()), largest=_PROBE) as plan,
    ):
        kinds = _confinements(attrs.evolve(confinement, cgroups=plan))
        yield {f"confinement/{name}": partial(once, confinement=kind) for name, kind in kinds.items()}


EXPERIMENT: Final = Experiment(name="confinement", kind=Kind.SYSTEM, cases=CASES, open=_open, rounds=20, quick_rounds=3)
