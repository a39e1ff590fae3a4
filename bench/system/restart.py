"""A service is killed, and the next one adopts its VMs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

import trio

from bench.calls import open_caller
from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from bench.service import Home, profile, service_home, settled, until
from vmm.memory import read_memory

SIZES: Final = (10, 50, 400)
_VM_MIB: Final = 64
_VMS_PER_CPU: Final = 50
"""An idle clone's memory, rounded up; and how many VMs a CPU makes in a few minutes."""
_FINE_POLL_S: Final = 0.005
_LIMIT_S: Final = 60.0
"""A VM that is not adopted by then is lost."""


def _missing(size: int) -> str:
    available_mib, needed_mib = read_memory().available_mib or 0, size * _VM_MIB
    if available_mib < needed_mib:
        return f"needs {needed_mib} MiB of memory, {available_mib} are available"
    cpus = len(os.sched_getaffinity(0))
    return "" if size <= cpus * _VMS_PER_CPU else f"needs {size // _VMS_PER_CPU} CPUs, {cpus} are available"


CASES: Final = tuple(
    Case(
        name=f"restart/kill@{size}",
        what=f"SIGKILL, then a new service with {size} idle VMs to adopt: from its start until it takes calls",
        at={"vms": size},
        missing=partial(_missing, size),
    )
    for size in SIZES
)


async def _restart(turn: Turn, *, home: Home, size: int) -> None:
    async with open_caller(home.socket_path) as caller:
        await until(home, caller, settled)
    await home.kill()
    began = time.perf_counter()
    await home.start()
    turn.record(time.perf_counter() - began)
    async with open_caller(home.socket_path) as caller:
        vm = await caller.client.acquire()
        turn.record(time.perf_counter() - began, part="first-hand-out")
        with trio.fail_after(_LIMIT_S):
            while await caller.adopted() < size:  # noqa: ASYNC110 - the service has to be polled
                await trio.sleep(_FINE_POLL_S)
        turn.record(time.perf_counter() - began, part="all-adopted")
        await caller.client.release(vm.lease_id)
        await until(home, caller, settled)


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    async with contextlib.AsyncExitStack() as stack:
        samplers: dict[str, Sampler] = {}
        for case in CASES:
            if bench.wants(case.name):
                size = case.at["vms"]
                settings = profile(bench, size=size, producer="template")
                home = await stack.enter_async_context(service_home(bench, settings, name=f"r{size}"))
                await home.start()
                samplers[case.name] = partial(_restart, home=home, size=size)
        yield samplers


EXPERIMENT: Final = Experiment(
    name="restart", kind=Kind.SYSTEM, cases=CASES, open=_open, rounds=6, quick_rounds=1, warm_up=0
)
