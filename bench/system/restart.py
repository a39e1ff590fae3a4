"""A service is killed, and the next one takes its VMs over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

from bench.calls import open_caller
from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from bench.service import Home, profile, service_home, settled, until

SIZES: Final = (10, 50)
_FINE_POLL_S: Final = 0.005

CASES: Final = tuple(
    Case(
        name=f"restart/kill@{size}",
        what=f"SIGKILL, then a new service with {size} idle VMs to adopt: from its start until it takes calls",
        at={"vms": size},
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
        # One is leased; its replacement, made anew, is not to be taken for an adopted one.
        await until(
            home, caller, lambda status: status.ready + status.leased >= size, poll_s=_FINE_POLL_S
        )
        turn.record(time.perf_counter() - began, part="all-adopted")
        status = await caller.client.status()
        assert status.profiles[0].counters.produced <= 1, "VMs were made anew instead of adopted"
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
    name="restart", kind=Kind.SYSTEM, cases=CASES, open=_open, rounds=10, quick_rounds=1, warm_up=0
)
