"""The time of the command until it ends, beside a bare interpreter."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

import trio

from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from bench.simulated import simulated_service

CASES: Final = (
    Case(name="cli/python", what="python -c pass"),
    Case(name="cli/help", what="vmpool --help"),
    Case(name="cli/status", what="vmpool status, of a service with 100 simulated VMs"),
)
_VMPOOL: Final = ("-c", "from pool.cli.main import main; main()")
"""As the installed script does it; `-m` would look for the module first."""


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    path = bench.home / "cli.sock"
    environment = os.environ | {"VMPOOL_SOCKET": str(path)}

    async def run(turn: Turn, *arguments: str) -> None:
        began = time.perf_counter()
        await trio.run_process(
            [sys.executable, *arguments], stdout=subprocess.DEVNULL, cwd=bench.checkout, env=environment
        )
        turn.record(time.perf_counter() - began)

    async with simulated_service(path, size=100, checkout=bench.checkout):
        yield {
            "cli/python": lambda turn: run(turn, "-c", "pass"),
            "cli/help": lambda turn: run(turn, *_VMPOOL, "--help"),
            "cli/status": lambda turn: run(turn, *_VMPOOL, "status"),
        }


EXPERIMENT: Final = Experiment(name="cli", kind=Kind.MICRO, cases=CASES, open=_open, rounds=40, quick_rounds=4)
