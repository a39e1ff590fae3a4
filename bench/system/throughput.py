"""VMs per second: of the service, of a bare loop, and of callers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Protocol

import trio

from bench.calls import Caller
from bench.case import Bench, BenchError, Case, Experiment, Kind, Sampler, Turn, Unit
from bench.service import QUIET_LIMIT_S, Home, profile, resized, running, settled, until
from bench.system.starts import Workshop, workshop
from vmpool.client import Change, Snapshot, VmChange

AT_ONCE: Final = 2
"""Productions at a time, in the service and in the loops alike."""

_FILL: Final = 16
_BURST: Final = 50
_POOL: Final = 8
CLIENTS: Final = (1, 2, 4, 8, 16)
_SUSTAINED_S: Final = 5.0

_PRODUCTION: Final = (
    Case(
        name="production/bare",
        what=f"the bare loop, {AT_ONCE} at a time: spawn QEMU, restore, cont; {_FILL} VMs",
        unit=Unit.PER_SECOND,
    ),
    Case(
        name="production/parked",
        what="the same loop until each is what a pool parks: agent answered, hand-out rehearsed, paused",
        unit=Unit.PER_SECOND,
    ),
    Case(
        name="production/service",
        what=f"the service fills an empty pool to {_FILL}, production_limit = {AT_ONCE}",
        unit=Unit.PER_SECOND,
    ),
)
_BURSTS: Final = (
    Case(
        name="burst/clones", what=f"{_BURST} callers at once, pool of {_POOL}: each one's Acquire; part: the last one"
    ),
)
_SUSTAINED: Final = tuple(
    Case(
        name=f"sustained/clones@{clients}",
        what=f"{clients} callers take and release all the time, pool of {_POOL}: hand-outs per second",
        unit=Unit.PER_SECOND,
        at={"clients": clients},
    )
    for clients in CLIENTS
)


class _Mortal(Protocol):
    def stop(self) -> Awaitable[object]: ...


async def _loop(turn: Turn, *, make: Callable[[], Awaitable[_Mortal]]) -> None:
    """Makes VMs with as many workers as the service has, keeps them all, ends them afterwards."""
    made: list[_Mortal] = []
    todo = iter(range(_FILL))

    async def work() -> None:
        for _ in todo:
            made.append(await make())  # noqa: PERF401 - VMs made before an error are to be ended, too

    try:
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(work)
        turn.record(_FILL / (time.perf_counter() - began))
    finally:
        with trio.CancelScope(shield=True):
            for vm in made:
                await vm.stop()


async def _fill(turn: Turn, *, home: Home, caller: Caller) -> None:
    await resized(home, caller, 0)
    async with caller.client.watch() as changes:
        began = time.perf_counter()
        await caller.resize(_FILL)
        await _until_ready(changes, home)
        turn.record(_FILL / (time.perf_counter() - began))
    await resized(home, caller, 0)


async def _until_ready(changes: AsyncIterator[Change], home: Home) -> None:
    """Watches, because polling would disturb the measurement. Raises BenchError."""
    ready: set[str] = set()
    with trio.move_on_after(QUIET_LIMIT_S):
        async for change in changes:
            match change:
                case Snapshot(vms=vms):
                    ready = {vm.vm_id for vm in vms if vm.state == "ready"}
                case VmChange(vm_id=vm_id, state="ready"):
                    ready.add(vm_id)
                case VmChange(vm_id=vm_id):
                    ready.discard(vm_id)
            if len(ready) == _FILL:
                return
    raise BenchError(f"only {len(ready)} of {_FILL} VMs became ready:\n{home.tail()}")


async def _burst(turn: Turn, *, home: Home, caller: Caller) -> None:
    await resized(home, caller, _POOL)
    leases: list[str] = []
    began = time.perf_counter()

    async def one() -> None:
        vm = await caller.client.acquire(timeout_s=120.0)
        turn.record(time.perf_counter() - began)
        leases.append(vm.lease_id)

    async with trio.open_nursery() as nursery:
        for _ in range(_BURST):
            nursery.start_soon(one)
    turn.record(time.perf_counter() - began, part="last")
    for lease_id in leases:
        await caller.client.release(lease_id)


async def _sustain(turn: Turn, *, clients: int, home: Home, caller: Caller) -> None:
    """Begins with a full pool, and counts from the moment when it is used up."""
    await resized(home, caller, _POOL)
    counted = 0
    begins = time.perf_counter() + _SUSTAINED_S / 5
    ends = begins + _SUSTAINED_S

    async def client() -> None:
        nonlocal counted
        while (began := time.perf_counter()) < ends:
            vm = await caller.client.acquire()
            acquired = time.perf_counter()
            if begins <= acquired <= ends:
                counted += 1
                turn.record(acquired - began, part="latency", unit=Unit.SECONDS)
            await caller.client.release(vm.lease_id)

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(client)
    turn.record(counted / _SUSTAINED_S)


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    settings = profile(bench, size=0, producer="template", production_limit=AT_ONCE)
    async with contextlib.AsyncExitStack() as stack:
        home, caller = await stack.enter_async_context(running(bench, settings))
        await until(home, caller, settled)
        samplers: dict[str, Sampler] = {
            "production/service": partial(_fill, home=home, caller=caller),
            "burst/clones": partial(_burst, home=home, caller=caller),
        }
        for case in _SUSTAINED:
            samplers[case.name] = partial(_sustain, clients=case.at["clients"], home=home, caller=caller)
        if bench.wants("production/bare", "production/parked"):
            shop = await stack.enter_async_context(workshop(bench))
            samplers |= _loops(shop, home, caller)
        yield samplers


def _loops(shop: Workshop, home: Home, caller: Caller) -> dict[str, Sampler]:
    async def rested(turn: Turn, *, make: Callable[[], Awaitable[_Mortal]]) -> None:
        await resized(home, caller, 0)
        await _loop(turn, make=make)

    return {
        "production/bare": partial(rested, make=shop.restore),
        "production/parked": partial(rested, make=shop.parked),
    }


EXPERIMENT: Final = Experiment(
    name="throughput",
    kind=Kind.SYSTEM,
    cases=(*_PRODUCTION, *_BURSTS, *_SUSTAINED),
    open=_open,
    rounds=6,
    quick_rounds=1,
)
