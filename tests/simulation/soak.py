"""One run of the service that hands out and takes back VMs at full rate, and whether its memory grows meanwhile.

Virtual time: nothing waits for real, so what is measured is the service itself, at more cycles a second than a host
with real VMs would ever see. python -m tests.simulation.soak [CYCLES]
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import sys
import time
import tracemalloc
import weakref
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import attrs
import trio
import trio.testing
from trio._core._run import GLOBAL_RUN_CONTEXT

from actors.direct import DirectBootProducer
from actors.journal import Journal
from actors.supervisor import Supervised
from pool.core.coordinator import Coordinator
from pool.ledger.policy import PoolPolicy
from pool.ledger.records import Owner
from tests.simulation.assembly import BOOT_ID
from tests.simulation.host import VMS, Disk, Host, Weather, boottime_ns
from tests.simulation.plan import Randomness, make_plan
from tests.simulation.simulation import quiet_logs
from tests.unit.actors.stage import resolve
from vmm.words.kinds import BackendKind
from vmm.words.leases import LeaseRequest

CLIENTS: Final = 8
SAMPLES: Final = 60
WARM_UP: Final = 0.3
"""The part of a run that is not judged: the service remembers 4096 leases that have ended, and no more."""

MAX_DRIFT: Final = 0.02
"""Between the medians of the two halves of what is judged."""


NEW_TABLE_KIB: Final = 64
"""A table of interned strings is larger than this."""


@attrs.frozen(kw_only=True)
class Sample:
    cycles: int
    traced_kib: float
    """What Python has allocated since the beginning; nothing else is as exact."""
    objects: int
    rss_kib: float
    descriptors: int

    @classmethod
    def take(cls, *, cycles: int, before: int) -> Sample:
        """`before`: bytes that were traced at the beginning."""
        GLOBAL_RUN_CONTEXT.runner.deadlines._prune()  # trio keeps some that have passed
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return cls(
            cycles=cycles,
            traced_kib=(tracemalloc.get_traced_memory()[0] - before) / 1024,
            objects=len(gc.get_objects()),
            rss_kib=pages * 4,
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
        )


@attrs.frozen(kw_only=True)
class SoakReport:
    cycles: int
    took_s: float
    samples: tuple[Sample, ...]

    def drift(self, what: str) -> float:
        """From the first half to the second, as a part of the first."""
        judged = self.samples[round(len(self.samples) * WARM_UP) :]
        first, second = judged[: len(judged) // 2], judged[len(judged) // 2 :]
        return _median(second, what) / _median(first, what) - 1.0

    @property
    def descriptors_constant(self) -> bool:
        return len({sample.descriptors for sample in self.samples}) == 1

    @property
    def sound(self) -> bool:
        drifts = [self.drift(what) for what in ("traced_kib", "objects", "rss_kib")]
        return self.descriptors_constant and all(abs(drift) < MAX_DRIFT for drift in drifts)

    def __str__(self) -> str:
        last = self.samples[-1]
        return (
            f"{self.cycles} cycles in {self.took_s:.0f} s, {self.cycles / self.took_s:.0f} a second; drift between the "
            f"halves: {self.drift('traced_kib'):+.2%} of {last.traced_kib:.0f} KiB allocated, "
            f"{self.drift('objects'):+.2%} of {last.objects} objects, {self.drift('rss_kib'):+.2%} of "
            f"{last.rss_kib / 1024:.0f} MiB resident; descriptors: {sorted({s.descriptors for s in self.samples})}"
        )


def _median(samples: Sequence[Sample], what: str) -> float:
    return statistics.median(float(getattr(sample, what)) for sample in samples)


def soak(cycles: int, *, make_coordinator: Callable[..., Coordinator] = Coordinator) -> SoakReport:
    """Runs so many cycles. Memory is traced meanwhile, which makes it a few times slower."""
    tracemalloc.start()
    try:
        trace_interned_strings()
        with quiet_logs():
            return trio.run(_soak, cycles, make_coordinator, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        tracemalloc.stop()


def trace_interned_strings() -> None:
    """Has the interpreter make its table of interned strings anew, so that it is traced from the start.

    It does so whenever so many strings have come and gone, and pathlib interns the parts of each path. The table of a
    process that has run many tests has 2 MB, four times what the service takes: made anew in the middle of a soak, it
    would pass for growth.
    """
    traced, number = tracemalloc.get_traced_memory()[0], 0
    while tracemalloc.get_traced_memory()[0] - traced < NEW_TABLE_KIB * 1024:
        number += 1
        sys.intern(f"a string that nobody keeps: {number}")


async def _soak(cycles: int, make_coordinator: Callable[..., Coordinator]) -> SoakReport:
    randomness = Randomness(0)
    weather = Weather(plan=make_plan(randomness), randomness=randomness, quiet=True)
    machines: Any = weakref.WeakValueDictionary()
    host = Host(disk=Disk(weather=weather, refused=set()), weather=weather, machines=machines)
    numbers, left = count(1), iter(range(cycles))
    producer = DirectBootProducer(resolve=resolve, launch=host.launch, vms_directory=VMS, boot_timeout_s=30.0)
    coordinator = make_coordinator(
        policies={"default": PoolPolicy(size=CLIENTS, production_limit=CLIENTS)},
        producers={"default": producer},
        journal=Journal(
            directory=VMS, backend=BackendKind.SIMULATED, disk=host.disk, boot_id=BOOT_ID, now_ns=boottime_ns
        ),
        make_id=lambda prefix: f"{prefix}-{next(numbers):012}",
        rng=random.Random(0),
    )
    done, samples = 0, list[Sample]()
    traced, _ = tracemalloc.get_traced_memory()
    every = max(1, cycles // SAMPLES)

    async def client() -> None:
        nonlocal done
        for _ in left:
            lease = await coordinator.acquire(
                profile="default", owner=Owner(uid=1000), request=LeaseRequest(ttl_s=60.0), deadline=math.inf
            )
            await coordinator.release(lease.lease_id, owner=Owner(uid=1000))
            done += 1
            if done % every == 0:
                samples.append(Sample.take(cycles=done, before=traced))

    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervised(name="producer", main=producer.run).run)
        await nursery.start(coordinator.run)
        async with trio.open_nursery() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(client)
        await coordinator.shut_down()
        nursery.cancel_scope.cancel(reason="the soak is over")
    return SoakReport(cycles=done, took_s=time.monotonic() - began, samples=tuple(samples))


def main(cycles: int = 20_000) -> int:
    report = soak(cycles)
    sys.stderr.write(f"{report}\n")
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
