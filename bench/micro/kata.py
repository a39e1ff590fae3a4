"""A hand-out inside one process: this service's coordinator beside the model of Kata's cache."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

import trio

from bench.baselines.kata import VmCache, vm_cache
from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from bench.simulated import simulated_pool, until_full
from pool.core.coordinator import Coordinator
from pool.ledger.records import Owner

SIZES: Final = (10, 100, 1000)
"""More threads, one for each VM, are more than many hosts allow."""

_TIMES: Final = 20
_OWNER: Final = Owner(uid=0)

_COORDINATOR: Final = tuple(
    Case(
        name=f"cache/vmpool@{size}",
        what=f"Coordinator.acquire in a full pool of {size} simulated VMs, leased and prepared",
        at={"vms": size},
    )
    for size in SIZES
)
_KATA: Final = tuple(
    Case(
        name=f"cache/kata-model@{size}",
        what=f"GetBaseVM of a model of Kata's cache with {size} slots; gives a VM that is neither leased nor prepared",
        at={"vms": size},
    )
    for size in SIZES
)


async def _acquire(turn: Turn, *, coordinator: Coordinator) -> None:
    for _ in range(_TIMES):
        began = time.perf_counter()
        lease = await coordinator.acquire(profile="default", owner=_OWNER)
        turn.record(time.perf_counter() - began)
        await coordinator.release(lease.lease_id, owner=_OWNER)
        await until_full(coordinator)


async def _take(turn: Turn, *, cache: VmCache[int]) -> None:
    for _ in range(_TIMES):
        while not cache.full():  # noqa: ASYNC110 - threads, not tasks
            await trio.sleep(0.001)
        began = time.perf_counter()
        cache.get_base_vm()
        turn.record(time.perf_counter() - began)


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    samplers: dict[str, Sampler] = {}
    async with contextlib.AsyncExitStack() as stack:
        for case in _COORDINATOR:
            if bench.wants(case.name):
                coordinator = await stack.enter_async_context(simulated_pool(size=case.at["vms"]))
                samplers[case.name] = partial(_acquire, coordinator=coordinator)
        for case in _KATA:
            if bench.wants(case.name):
                made = partial(next, itertools.count())
                cache = stack.enter_context(vm_cache(slots=case.at["vms"], produce=made))
                samplers[case.name] = partial(_take, cache=cache)
        yield samplers


EXPERIMENT: Final = Experiment(
    name="cache", kind=Kind.MICRO, cases=(*_COORDINATOR, *_KATA), open=_open, rounds=20, quick_rounds=4
)
