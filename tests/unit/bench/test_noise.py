"""The user who is loud for the benchmark is as loud as one may be."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import trio

from bench.noise import KINDS, WAITING_PROFILE, Noise
from tests.unit.rpc.served import serving


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"execs"}))  # those need programs that write without end
async def test_the_maximum_is_reached_and_more_is_asked_for_until_it_is_enough(vm_home: Path, kind: str) -> None:
    async with (
        serving(vm_home, size=1, profile=WAITING_PROFILE, policy={"max_vms": 1}) as served,
        contextlib.AsyncExitStack() as stack,
    ):
        full = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(KINDS[kind], Noise(path=served.path, stack=stack, full=full.set))
            with trio.fail_after(60):
                await full.wait()
            nursery.cancel_scope.cancel()
