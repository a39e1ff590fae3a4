"""The service's own memory for each VM that it keeps.

Measured with a new service each time: one that had VMs before reuses their memory, and shows nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn, Unit
from bench.service import memory_bytes, profile, resized, running, settled, until
from bench.system.idle import SIZES

_VMS: Final = SIZES[-1]

CASES: Final = (
    Case(
        name="memory/service-per-vm",
        what=f"memory that a service takes for each of the first {_VMS} VMs it keeps, after one that came and went",
        unit=Unit.BYTES,
    ),
)


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    async def per_vm(turn: Turn) -> None:
        async with running(bench, profile(bench, size=1, producer="template"), name="m") as (home, caller):
            await until(home, caller, settled)
            await resized(home, caller, 0)
            without = memory_bytes(home.pid())["Pss"]
            await resized(home, caller, _VMS)
            turn.record((memory_bytes(home.pid())["Pss"] - without) / _VMS)

    yield {"memory/service-per-vm": per_vm}


EXPERIMENT: Final = Experiment(
    name="memory", kind=Kind.SYSTEM, cases=CASES, open=_open, rounds=3, quick_rounds=1, warm_up=0
)
