"""The cost of one decision, with 10 VMs and with 10,000."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Final

import attrs

from bench.case import Bench, Case, Experiment, Kind, Sampler, Turn
from pool.ledger.book import Ledger
from pool.ledger.effects import Effect, Grant, HandOutVm, StartVm
from pool.ledger.events import AcquireRequested, Event, ReleaseRequested, Tick
from pool.ledger.policy import PoolPolicy
from pool.ledger.records import Lease, Owner
from vmm.words.facts import HandOutTimings, VmGone, VmHandedOut, VmReady
from vmm.words.kinds import ProducerKind, ProductionCost
from vmm.words.leases import LeaseRequest
from vmm.words.preparation import PreparationReport

SIZES: Final = (10, 100, 1000, 10_000)
_DECISIONS: Final = 200
_OWNER: Final = Owner(uid=0)
_REPORT: Final = PreparationReport(reseeded=True, wall_clock_ns=0, hostname="vm", cpus_online=1, memory_mib=256)
_TIMINGS: Final = HandOutTimings(grow_s=0.0, resume_s=0.0, prepare_s=0.0, total_s=0.0)

CASES: Final = tuple(
    Case(
        name=f"ledger/hand-out@{size}",
        what=f"the decision of a hand-out and of its refill, {size} VMs, half of them leased",
        at={"vms": size},
    )
    for size in SIZES
)


@attrs.define(eq=False)
class Pool:
    """A ledger with VMs that carry out every order at once."""

    size: int
    now: float = 0.0
    ledger: Ledger = attrs.field(init=False)
    _granted: Lease = attrs.field(init=False)
    """The last lease."""
    _requests: Callable[[], int] = attrs.field(factory=lambda: partial(next, itertools.count()), init=False)
    _ids: Callable[[], int] = attrs.field(factory=lambda: partial(next, itertools.count()), init=False)

    def __attrs_post_init__(self) -> None:
        policy = PoolPolicy(
            size=max(1, self.size // 2),
            cost=ProductionCost.BOOT,
            production_limit=self.size,
            max_age_s=86400.0,
            check_interval_s=60.0,
        )
        self.ledger = Ledger(policies={"default": policy}, new_id=lambda prefix: f"{prefix}-{self._ids()}")
        self.follow(self.apply(Tick()))
        for _ in range(self.size // 2):
            self.hand_out()

    def apply(self, event: Event) -> list[Effect]:
        self.now += 1e-6
        return self.ledger.apply(event, now=self.now)

    def follow(self, effects: list[Effect]) -> None:
        """Lets every production that was ordered succeed."""
        for effect in effects:
            if isinstance(effect, StartVm):
                ready = VmReady(vm_id=effect.vm_id, pid=1, production_s=1.0, generation="", made_by=ProducerKind.DIRECT)
                self.follow(self.apply(ready))

    def request(self) -> AcquireRequested:
        return AcquireRequested(
            request_id=self._requests(),
            profile="default",
            owner=_OWNER,
            request=LeaseRequest(ttl_s=3600.0),
            deadline=math.inf,
        )

    def hand_out(self) -> float:
        """Seconds of the decision which caller gets which VM, how it is replaced, and when to look again."""
        event = self.request()
        began = time.perf_counter()
        effects = self.apply(event)
        self.ledger.next_wakeup()
        seconds = time.perf_counter() - began
        vm_id = next(effect.vm_id for effect in effects if isinstance(effect, HandOutVm))
        self.follow(effects)
        effects = self.apply(VmHandedOut(vm_id=vm_id, report=_REPORT, timings=_TIMINGS))
        self._granted = next(effect.lease for effect in effects if isinstance(effect, Grant))
        self.follow(effects)
        return seconds

    def take_back(self) -> None:
        """Ends the lease of the last hand-out."""
        released = ReleaseRequested(request_id=self._requests(), lease_id=self._granted.lease_id, owner=_OWNER)
        self.follow(self.apply(released))
        self.follow(self.apply(VmGone(vm_id=self._granted.vm_id)))


@contextlib.asynccontextmanager
async def _open(bench: Bench) -> AsyncIterator[Mapping[str, Sampler]]:
    pools = {case.name: Pool(case.at["vms"]) for case in CASES if bench.wants(case.name)}

    async def decide(turn: Turn, *, pool: Pool) -> None:
        for _ in range(_DECISIONS):
            turn.record(pool.hand_out())
            pool.take_back()

    yield {name: partial(decide, pool=pool) for name, pool in pools.items()}


EXPERIMENT: Final = Experiment(name="ledger", kind=Kind.MICRO, cases=CASES, open=_open, rounds=40, quick_rounds=8)
