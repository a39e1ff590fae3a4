"""What the confinement of QEMU costs per VM: its start until QMP answers, and its end. For root."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

import trio

from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from vmm.qemu.command_line import Start
from vmm.qemu.confinement import UNCONFINED, Confinement
from vmm.qemu.confinement.host import look_at_host
from vmm.qemu.confinement.limits import Limits
from vmm.qemu.confinement.plan import CgroupSetting, decide_cgroups
from vmm.qemu.confinement.tree import occupied
from vmm.qemu.confinement.user import decide_user
from vmm.qemu.instance import Instance

_PROBE: Final = Limits(memory_bytes=2**30, cpus=1, processes=100)


def _needs_root() -> str:
    return "" if os.geteuid() == 0 else "only root can confine QEMU"


CASES: Final = tuple(
    Case(
        name=f"confinement/{name}",
        what=f"QEMU {what}: until QMP answers; parts: the spawn, in which the loop does nothing else, and the end",
        missing=_needs_root,
    )
    for name, what in (
        ("none", "as it is"),
        ("user", "as another user"),
        ("cgroups", "in cgroups"),
        ("both", "as another user and in cgroups"),
    )
)


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    user = decide_user("auto", euid=0).user

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

    with occupied(decide_cgroups(CgroupSetting.AUTO, look_at_host()), largest=_PROBE) as plan:
        kinds = (UNCONFINED, Confinement(user=user), Confinement(cgroups=plan), Confinement(user=user, cgroups=plan))
        yield {case.name: partial(once, confinement=kind) for case, kind in zip(CASES, kinds, strict=True)}


EXPERIMENT: Final = Experiment(name="confinement", kind=Kind.SYSTEM, cases=CASES, open=_open, rounds=20, quick_rounds=3)
