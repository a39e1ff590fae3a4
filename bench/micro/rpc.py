"""Calls to a service over simulated VMs in a process of its own: latency by pool size, rates by number of clients."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import trio

from bench.calls import Caller, open_caller
from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn, Unit
from bench.simulated import simulated_service

SIZES: Final = (10, 100, 1000, 10_000)
CLIENTS: Final = (1, 8, 32)
_RATED: Final = 1000
"""VMs of the service whose rates are measured: more than are ever leased at once."""

_TIMES: Final = 30
_RATE_CALLS: Final = 192

_EMPTY: Final = tuple(
    Case(name=f"rpc/empty@{size}", what=f"an empty unary call, service with {size} simulated VMs", at={"vms": size})
    for size in SIZES
)
_PAIRS: Final = tuple(
    Case(name=f"rpc/acquire@{size}", what=f"Acquire of one of {size} simulated VMs", at={"vms": size}) for size in SIZES
)
_EMPTY_RATES: Final = tuple(
    Case(
        name=f"rpc/empty-rate@{clients}",
        what=f"empty unary calls per second, {clients} at a time",
        unit=Unit.PER_SECOND,
        at={"clients": clients},
    )
    for clients in CLIENTS
)
_PAIR_RATES: Final = tuple(
    Case(
        name=f"rpc/pair-rate@{clients}",
        what=f"pairs of Acquire and Release per second, {clients} at a time, {_RATED} simulated VMs",
        unit=Unit.PER_SECOND,
        at={"clients": clients},
    )
    for clients in CLIENTS
)
CASES: Final = (*_EMPTY, *_PAIRS, *_EMPTY_RATES, *_PAIR_RATES)


async def _empty(turn: Turn, *, caller: Caller) -> None:
    for _ in range(_TIMES):
        turn.record(await caller.empty())


async def _acquire(turn: Turn, *, caller: Caller) -> None:
    for _ in range(_TIMES):
        began = time.perf_counter()
        vm = await caller.client.acquire()
        acquired = time.perf_counter()
        await caller.client.release(vm.lease_id)
        turn.record(acquired - began)
        turn.record(time.perf_counter() - acquired, part="release")


async def _rate(turn: Turn, *, clients: int, call: Callable[[], Awaitable[object]]) -> None:
    todo = iter(range(_RATE_CALLS))

    async def one_client() -> None:
        for _ in todo:
            began = time.perf_counter()
            await call()
            turn.record(time.perf_counter() - began, part="latency", unit=Unit.SECONDS)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(one_client)
    turn.record(_RATE_CALLS / (time.perf_counter() - began))


async def _pair(caller: Caller) -> None:
    vm = await caller.client.acquire()
    await caller.client.release(vm.lease_id)


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    samplers: dict[str, Sampler] = {}
    async with contextlib.AsyncExitStack() as stack:
        for size in SIZES:
            rated = size == _RATED and bench.wants(*(case.name for case in (*_EMPTY_RATES, *_PAIR_RATES)))
            if not (rated or bench.wants(f"rpc/empty@{size}", f"rpc/acquire@{size}")):
                continue
            path = bench.home / f"{size}.sock"
            await stack.enter_async_context(simulated_service(path, size=size, checkout=bench.checkout))
            caller = await stack.enter_async_context(open_caller(path))
            samplers[f"rpc/empty@{size}"] = partial(_empty, caller=caller)
            samplers[f"rpc/acquire@{size}"] = partial(_acquire, caller=caller)
            if rated:
                for clients in CLIENTS:
                    empty, pair = caller.empty, partial(_pair, caller)
                    samplers[f"rpc/empty-rate@{clients}"] = partial(_rate, clients=clients, call=empty)
                    samplers[f"rpc/pair-rate@{clients}"] = partial(_rate, clients=clients, call=pair)
        yield samplers


EXPERIMENT: Final = Experiment(name="rpc", kind=Kind.MICRO, cases=CASES, open=_open, rounds=12, quick_rounds=3)
