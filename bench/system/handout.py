"""The hand-out of a ready VM, stage by stage, beside an empty call on the same server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

import trio

from bench.calls import Caller
from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn, Unit
from bench.service import profile, running, settled, until
from vmpool.client import AcquiredVm, Wishes

_EMPTY_CALLS: Final = 10
_EXECS: Final = 5
_BULK_MIB: Final = 16

CASES: Final = (
    Case(name="handout/empty", what="an empty unary call on the same server: grpc.health.v1.Health/Check"),
    Case(name="handout/ready", what="a ready clone, whole Acquire; parts: where the time goes"),
    Case(name="handout/grown", what="the same with 2 vCPUs and 512 MiB instead of 1 and 256: hot-add"),
    Case(name="exec/round-trip", what="Exec of `true` in a leased VM, until its exit status is there"),
    Case(name="exec/stdout", what=f"{_BULK_MIB} MiB from a command", unit=Unit.BYTES_PER_SECOND),
    Case(name="exec/stdin", what=f"{_BULK_MIB} MiB to a command", unit=Unit.BYTES_PER_SECOND),
)


async def _hand_out(turn: Turn, caller: Caller, wishes: Wishes) -> None:
    began = time.perf_counter()
    vm = await caller.client.acquire(wishes=wishes)
    whole_s = time.perf_counter() - began
    await caller.client.release(vm.lease_id)
    turn.record(whole_s)
    for part, seconds in stages(vm, whole_s=whole_s).items():
        turn.record(seconds, part=part)


def stages(vm: AcquiredVm, *, whole_s: float) -> dict[str, float]:
    """The stages of an Acquire in seconds. Resume and the agent's answer overlap; the rest adds up to the whole."""
    timings = vm.timings
    in_vm_s = timings.grow_s + max(timings.resume_s, timings.prepare_s)
    return {
        "rpc": whole_s - timings.total_s,
        "queue": timings.queued_s,
        "grow": timings.grow_s,
        "resume": timings.resume_s,
        "agent": timings.prepare_s,
        "service": timings.total_s - timings.queued_s - in_vm_s,
    }


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    settings = profile(bench, size=2, producer="template")
    async with running(bench, settings) as (home, caller):

        async def at_rest() -> None:
            await until(home, caller, settled)

        async def empty(turn: Turn) -> None:
            await at_rest()
            for _ in range(_EMPTY_CALLS):
                turn.record(await caller.empty())

        async def ready(turn: Turn) -> None:
            await at_rest()
            await _hand_out(turn, caller, Wishes())

        async def grown(turn: Turn) -> None:
            await at_rest()
            await _hand_out(turn, caller, Wishes(vcpus=2, memory_mib=512))

        yield {"handout/empty": empty, "handout/ready": ready, "handout/grown": grown}


@contextlib.asynccontextmanager
async def _open_exec(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    size = _BULK_MIB * 2**20
    async with running(bench, profile(bench, size=1, producer="template")) as (home, caller):
        await until(home, caller, settled)
        async with caller.client.lease() as vm:
            await until(home, caller, lambda status: status.ready == 1)

            async def round_trip(turn: Turn) -> None:
                for _ in range(_EXECS):
                    began = time.perf_counter()
                    async with caller.client.exec(vm.lease_id, ["true"]) as command:
                        await command.wait()
                        turn.record(time.perf_counter() - began)

            async def stdout(turn: Turn) -> None:
                began = time.perf_counter()
                async with caller.client.exec(vm.lease_id, ["head", "-c", str(size), "/dev/zero"]) as command:
                    done = await command.collect()
                assert len(done.stdout) == size, done.exit
                turn.record(size / (time.perf_counter() - began))

            async def stdin(turn: Turn) -> None:
                data = bytes(2**20)
                began = time.perf_counter()
                async with (
                    caller.client.exec(vm.lease_id, ["sh", "-c", "cat > /dev/null"]) as command,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(command.wait)
                    for _ in range(_BULK_MIB):
                        await command.send_stdin(data)
                    await command.close_stdin()
                turn.record(size / (time.perf_counter() - began))

            yield {"exec/round-trip": round_trip, "exec/stdout": stdout, "exec/stdin": stdin}


HAND_OUT: Final = Experiment(name="handout", kind=Kind.SYSTEM, cases=CASES[:3], open=_open, rounds=100, quick_rounds=5)
EXEC: Final = Experiment(name="exec", kind=Kind.SYSTEM, cases=CASES[3:], open=_open_exec, rounds=10, quick_rounds=2)
