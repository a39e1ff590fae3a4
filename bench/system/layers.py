"""The cost of QEMU's confinement to a caller: hand-outs and misses of services that differ in it, in turns."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

from bench.calls import Caller
from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from bench.service import Home, profile, running, settled, until
from vmm.qemu.confinement.layers import NAMESPACES
from vmm.words.confinement import Layer
from vmpool.client import OnEmpty

_SERVICES: Final = {
    "off": 'qemu_user = "nobody"\nconfinement = "off"\ncgroups = "off"\n',
    "all": "",
    "no-uid": 'qemu_user = "nobody"\n',
    "no-namespaces": f"confinement_except = {[layer.value for layer in NAMESPACES]}\n",
    "no-landlock": f"confinement_except = {[Layer.LANDLOCK.value]}\n",
    "no-seccomp": f"confinement_except = {[Layer.SECCOMP.value]}\n",
    "no-cgroups": 'cgroups = "off"\n',
}


def _needs_root() -> str:
    return "" if os.geteuid() == 0 else "only root can confine QEMU like this"


CASES: Final = tuple(
    Case(name=f"layers/{act}@{name}", what=f"{what}, confinement: {name}", missing=_needs_root)
    for act, what in (("hand-out", "a ready clone, whole Acquire"), ("miss", "a clone is made for it: whole Acquire"))
    for name in _SERVICES
)


_Services = list[tuple[Home, Caller]]


async def _at_rest(services: _Services) -> None:
    """Waits for all services: one that replaces a VM takes the CPUs of the next."""
    for home, caller in services:
        await until(home, caller, settled)


async def _hand_out(turn: Turn, *, services: _Services, caller: Caller) -> None:
    await _at_rest(services)
    began = time.perf_counter()
    vm = await caller.client.acquire(profile="ready")
    turn.record(time.perf_counter() - began)
    await caller.client.release(vm.lease_id)


async def _miss(turn: Turn, *, services: _Services, caller: Caller) -> None:
    await _at_rest(services)
    began = time.perf_counter()
    vm = await caller.client.acquire(profile="clone", on_empty=OnEmpty.BOOT)
    turn.record(time.perf_counter() - began)
    await caller.client.release(vm.lease_id)


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    profiles = "".join(
        (
            profile(bench, name="ready", size=1, producer="template"),
            profile(bench, name="clone", size=0, producer="template"),
        )
    )
    async with contextlib.AsyncExitStack() as opened:
        samplers: dict[str, Sampler] = {}
        services: _Services = []
        for name, service in _SERVICES.items():
            config = f"[service]\n{service}{profiles}"
            home, caller = await opened.enter_async_context(running(bench, config, name=name))
            services.append((home, caller))
            samplers[f"layers/hand-out@{name}"] = partial(_hand_out, services=services, caller=caller)
            samplers[f"layers/miss@{name}"] = partial(_miss, services=services, caller=caller)
        yield samplers


EXPERIMENT: Final = Experiment(name="layers", kind=Kind.SYSTEM, cases=CASES, open=_open, rounds=40, quick_rounds=2)
