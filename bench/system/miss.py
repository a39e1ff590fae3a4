"""The wait of a caller when no VM is ready, under each policy, beside QEMU's own start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Final

from bench.calls import Caller
from bench.case import Bench, BenchError, Case, Experiment, Kind, Sampler, Turn
from bench.service import Home, profile, running, settled, until
from bench.system.starts import blank_memory, qemu_start
from vmpool.client import CallError, OnEmpty, ProfileStatus

CASES: Final = (
    Case(name="miss/qemu-start", what="QEMU itself with a clone's options: spawn to QMP greeting"),
    Case(name="miss/fail", what="policy fail: until the refusal"),
    Case(
        name="miss/shell",
        what="policy boot, template producer with a shell: whole Acquire; part: that of the next miss right after it",
    ),
    Case(name="miss/clone", what="policy boot, template producer without shells: whole Acquire"),
    Case(name="miss/wait", what="policy wait, pool of one clone that was just taken: whole Acquire"),
    Case(name="miss/direct", what="policy boot, direct producer: whole Acquire"),
)


def _at_rest(status: ProfileStatus) -> bool:
    return settled(status, shells=status.name == "shell")


async def _missed(turn: Turn, *, profile: str, parts: Sequence[str] = ("",), home: Home, caller: Caller) -> None:
    """One miss after the other, with nothing in between; a part for each."""
    await until(home, caller, _at_rest)
    vms = []
    for part in parts:
        began = time.perf_counter()
        vms.append(await caller.client.acquire(profile=profile, on_empty=OnEmpty.BOOT))
        turn.record(time.perf_counter() - began, part=part)
    for vm in vms:
        await caller.client.release(vm.lease_id)
    if any(vm.timings.was_ready for vm in vms):
        raise BenchError(f"{profile}: a VM was ready")


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    settings = "".join(
        (
            profile(bench, name="shell", size=0, producer="template", shells=1),
            profile(bench, name="clone", size=0, producer="template"),
            profile(bench, name="wait", size=1, producer="template"),
            profile(bench, name="direct", size=0),
        )
    )
    async with running(bench, settings) as (home, caller):
        client = caller.client

        missed = partial(_missed, home=home, caller=caller)

        async def wait(turn: Turn) -> None:
            await until(home, caller, _at_rest)
            taken = await client.acquire(profile="wait")
            began = time.perf_counter()
            vm = await client.acquire(profile="wait")
            turn.record(time.perf_counter() - began)
            await client.release(taken.lease_id)
            await client.release(vm.lease_id)

        async def fail(turn: Turn) -> None:
            await until(home, caller, _at_rest)
            began = time.perf_counter()
            try:
                await client.acquire(profile="clone", on_empty=OnEmpty.FAIL)
            except CallError as error:
                turn.record(time.perf_counter() - began)
                if error.status != "RESOURCE_EXHAUSTED":
                    raise
            else:
                raise BenchError("a VM was ready")

        with blank_memory(bench) as memory:

            async def start(turn: Turn) -> None:
                await until(home, caller, _at_rest)
                turn.record(await qemu_start(bench, memory=memory))

            yield {
                "miss/qemu-start": start,
                "miss/fail": fail,
                "miss/shell": partial(missed, profile="shell", parts=("", "next")),
                "miss/clone": partial(missed, profile="clone"),
                "miss/wait": wait,
                "miss/direct": partial(missed, profile="direct"),
            }


EXPERIMENT: Final = Experiment(name="miss", kind=Kind.SYSTEM, cases=CASES, open=_open, rounds=20, quick_rounds=2)
