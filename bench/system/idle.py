"""The cost of idle VMs: memory of their QEMUs, memory and CPU of the service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

import trio

from bench.calls import Caller
from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn, Unit
from bench.service import Home, cpu_s, memory_bytes, profile, qemu_pids, resized, running

SIZES: Final = (1, 10, 25, 50, 100)
_WATCH_S: Final = 20.0
_QUICK_WATCH_S: Final = 5.0

_CLONES: Final = tuple(
    Case(
        name=f"idle/clones@{size}",
        what=f"{size} idle clones; parts: pss of one, all-pss, the service's memory, and its CPU time per second",
        unit=Unit.BYTES,
        at={"vms": size},
    )
    for size in SIZES
)
_EMPTY: Final = Case(
    name="idle/none", what="the service without VMs, after it had some; parts as above", unit=Unit.BYTES
)
_DIRECT: Final = Case(name="idle/direct", what="one idle VM that booted; part: rss", unit=Unit.BYTES)


async def _watch_service(turn: Turn, home: Home, caller: Caller, *, seconds: float) -> None:
    """Its CPU time without callers, and its memory."""
    await caller.empty()  # the service has no other work
    before = cpu_s(home.pid())
    await trio.sleep(seconds)
    turn.record((cpu_s(home.pid()) - before) / seconds, part="service-cpu", unit=Unit.CORES)
    turn.record(memory_bytes(home.pid())["Pss"], part="service")


async def _clones(turn: Turn, *, size: int, home: Home, caller: Caller, seconds: float) -> None:
    await resized(home, caller, size)
    pss = [memory_bytes(pid)["Pss"] for pid in qemu_pids(home)]
    assert len(pss) == size, f"{len(pss)} QEMUs for {size} VMs"
    turn.record(sum(pss) / size, part="pss")
    turn.record(sum(pss), part="all-pss")
    await _watch_service(turn, home, caller, seconds=seconds)


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    seconds = _QUICK_WATCH_S if bench.quick else _WATCH_S
    async with contextlib.AsyncExitStack() as stack:
        samplers: dict[str, Sampler] = {}
        if bench.wants(_EMPTY.name, *(case.name for case in _CLONES)):
            settings = profile(bench, size=0, producer="template")
            home, caller = await stack.enter_async_context(running(bench, settings))

            async def none(turn: Turn) -> None:
                await resized(home, caller, 0)
                await _watch_service(turn, home, caller, seconds=seconds)

            samplers[_EMPTY.name] = none
            for case in _CLONES:
                size = case.at["vms"]
                samplers[case.name] = partial(_clones, size=size, home=home, caller=caller, seconds=seconds)
        if bench.wants(_DIRECT.name):
            settings = profile(bench, size=0)
            direct_home, direct_caller = await stack.enter_async_context(running(bench, settings, name="d"))

            async def direct(turn: Turn) -> None:
                await resized(direct_home, direct_caller, 1)
                (pid,) = qemu_pids(direct_home)
                turn.record(memory_bytes(pid)["Rss"], part="rss")
                await resized(direct_home, direct_caller, 0)

            samplers[_DIRECT.name] = direct
        yield samplers


EXPERIMENT: Final = Experiment(
    name="idle",
    kind=Kind.SYSTEM,
    cases=(_EMPTY, *_CLONES, _DIRECT),
    open=_open,
    rounds=3,
    quick_rounds=1,
    warm_up=0,
)
