"""python -m tests.soak [CYCLES]: real VMs, one service, and whether it takes more and more."""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path
from typing import Final

import trio

from tests.integration.service.templates import config, is_full, output
from tests.running import RunningService, running_service
from tests.soak.drift import Sample, drift
from tests.templates import place_for_template
from tests.waiting import until
from vmpool.client import Client, open_client

SIZE: Final = 4
CLIENTS: Final = 4
ROUNDS: Final = 25
"""After each of them the service comes to rest and is measured."""
WAIT_S: Final = 600


async def soak(service: RunningService, *, cycles: int) -> list[Sample]:
    samples: list[Sample] = []
    async with open_client(service.socket_path) as client:
        await until(lambda: is_full(client))
        for round_number in range(ROUNDS):
            done = cycles * round_number // ROUNDS
            await _cycles(client, cycles * (round_number + 1) // ROUNDS - done)
            await until(lambda: is_full(client))
            samples.append(Sample.of(service.process.pid, cycles=cycles * (round_number + 1) // ROUNDS))
            say(str(samples[-1]))
    return samples


async def _cycles(client: Client, number: int) -> None:
    todo = iter(range(number))

    async def run() -> None:
        for _ in todo:
            vm = await client.acquire(timeout_s=WAIT_S)
            assert await output(client, vm.lease_id, "echo here") == "here\n"
            await client.release(vm.lease_id)

    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(run)


def main(cycles: int = 500) -> int:
    image_directory = Path(os.environ.get("VMPOOL_IMAGE_DIR", "build/image")).absolute()
    began = time.monotonic()
    with (
        place_for_template() as place,
        running_service(config(place, size=SIZE, memory_mib=256), image_directory=image_directory) as service,
    ):
        samples = trio.run(functools.partial(soak, service, cycles=cycles))
    found = drift(samples)
    say(f"{cycles} cycles in {time.monotonic() - began:.0f} s, PSS {samples[-1].pss_kib / 1024:.1f} MiB: {found}")
    for fault in found.faults:
        say(fault)
    return 1 if found.faults else 0


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
