"""The cost of a VM's actor until it reports its VM as ready; the VM itself costs nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

import trio

from actors.direct import DirectBootProducer
from actors.machine import ResolvedMachine
from actors.vm import VmActor
from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from bench.simulated import NOWHERE, SPEC, memory_journal
from vmm.simulated import SimulatedHost
from vmm.words.facts import VmFact, VmReady

SIZES: Final = (10, 100, 1000, 10_000)

CASES: Final = tuple(
    Case(name=f"actor/spawn@{size}", what=f"per VM, when {size} actors begin at once", at={"vms": size})
    for size in SIZES
)


async def spawn(size: int) -> float:
    """Seconds until `size` actors that begin together have reported their VMs as ready. Ends them all."""
    host = SimulatedHost()
    ready, waiting = 0, trio.Event()

    def report(fact: VmFact) -> None:
        nonlocal ready
        ready += isinstance(fact, VmReady)
        if ready == size:
            waiting.set()

    async def resolve() -> ResolvedMachine:
        return ResolvedMachine(spec=SPEC, reason="simulated", fingerprint="simulated")

    producer = DirectBootProducer(resolve=resolve, launch=host.launch, vms_directory=NOWHERE, boot_timeout_s=60.0)
    journal = memory_journal()
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        began = time.perf_counter()
        for number in range(size):
            actor = VmActor(vm_id=f"vm-{number}", profile="default", producer=producer, report=report, journal=journal)
            nursery.start_soon(actor.run)
        await waiting.wait()
        seconds = time.perf_counter() - began
        nursery.cancel_scope.cancel(reason="all are ready")
    return seconds


@contextlib.asynccontextmanager
async def _open(_bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    async def sample(turn: Turn, *, size: int) -> None:
        turn.record(await spawn(size) / size)

    yield {case.name: partial(sample, size=case.at["vms"]) for case in CASES}


EXPERIMENT: Final = Experiment(name="actor", kind=Kind.MICRO, cases=CASES, open=_open, rounds=12, quick_rounds=3)
