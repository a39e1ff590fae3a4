"""A simulation: whether a pool that follows its demand misses less than a fixed size of equal cost.

    .venv/bin/python -m bench.adaptive [--hours H] [--seeds N] [--on-empty boot|wait|fail] [--target T]

The real ledger decides; VMs and callers are simulated. For each load the fixed sizes give a curve, misses against
VM-seconds that are ready or in production. The adaptive pool is compared with the point of that curve that costs as
much: a mixture of two neighbouring sizes, chosen in hindsight for this very load.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import multiprocessing
import random
from functools import partial
from typing import Final

import attrs
from rich.console import Console
from rich.table import Table

from bench.loads import HOUR_S, LOADS
from pool.ledger.book import Ledger
from pool.ledger.demand import AdaptiveSize
from pool.ledger.effects import Effect, Grant, HandOutVm, StartVm, StopVm, Tell
from pool.ledger.events import AcquireRequested, Event, ReleaseRequested, Tick
from pool.ledger.news import ProfileChange, ProfileNews
from pool.ledger.policy import OnEmpty, PoolPolicy
from pool.ledger.records import Owner
from vmm.words.facts import HandOutTimings, VmGone, VmHandedOut, VmReady
from vmm.words.preparation import PreparationReport

PRODUCTION_S: Final = 4.0
"""A direct boot; a clone is faster, which divides all times and changes little else."""
JITTER: Final = 0.25
"""Of a production's duration, as the sigma of a log-normal distribution."""
PRODUCTION_LIMIT: Final = 4
HAND_OUT_S: Final = 0.01
STOP_S: Final = 0.05
LEASE_S: Final = 60.0
"""On average; exponential."""
WARM_UP_S: Final = 60.0
"""No caller arrives before the pool is full."""
LARGEST: Final = 24
"""The largest fixed size, and the adaptive maximum."""
REPORT: Final = PreparationReport(reseeded=True, wall_clock_ns=1, hostname="guest", cpus_online=1, memory_mib=256)
TIMINGS: Final = HandOutTimings(resume_s=0.0, prepare_s=0.0, total_s=0.0)
CALLER: Final = Owner(uid=1000)


@attrs.frozen(kw_only=True)
class Outcome:
    """The outcome of one run, or the sum of several."""

    arrivals: int = 0
    misses: int = 0
    idle_s: float = 0.0
    """VM-seconds ready."""
    production_s: float = 0.0
    """VM-seconds in production."""
    resizes: int = 0
    hours: float = 0.0

    @property
    def cost_s(self) -> float:
        return self.idle_s + self.production_s

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            arrivals=self.arrivals + other.arrivals,
            misses=self.misses + other.misses,
            idle_s=self.idle_s + other.idle_s,
            production_s=self.production_s + other.production_s,
            resizes=self.resizes + other.resizes,
            hours=self.hours + other.hours,
        )


@attrs.define(eq=False, kw_only=True)
class Simulation:
    """One pool and its callers, from one event to the next."""

    size: int | AdaptiveSize
    rng: random.Random
    on_empty: OnEmpty
    ledger: Ledger = attrs.field(init=False)
    now: float = attrs.field(default=0.0, init=False)
    resizes: int = attrs.field(default=0, init=False)
    producing: set[str] = attrs.field(factory=set, init=False)
    ready: set[str] = attrs.field(factory=set, init=False)
    idle_s: float = attrs.field(default=0.0, init=False)
    production_s: float = attrs.field(default=0.0, init=False)
    _agenda: list[tuple[float, int, Event]] = attrs.field(factory=list, init=False)
    _serial: itertools.count[int] = attrs.field(factory=itertools.count, init=False)

    def __attrs_post_init__(self) -> None:
        adaptive, size = (self.size, self.size.minimum) if isinstance(self.size, AdaptiveSize) else (None, self.size)
        self.ledger = Ledger(
            policies={"p": PoolPolicy(size=size, adaptive=adaptive, production_limit=PRODUCTION_LIMIT)},
            new_id=lambda prefix: f"{prefix}-{next(self._serial)}",
            rng=self.rng,
        )

    def run(self, arrivals: list[float], *, until: float) -> Outcome:
        self._at(0.0, Tick())
        for at in arrivals:
            self._at(at, self._acquire())
        while (due := min(self._agenda[0][0] if self._agenda else math.inf, self.ledger.next_wakeup())) <= until:
            self._pass_time(due)
            event = heapq.heappop(self._agenda)[2] if self._agenda and self._agenda[0][0] <= due else Tick()
            self._tell(event)
        self._pass_time(until)
        (view,) = self.ledger.views(now=self.now)
        return Outcome(
            arrivals=view.counters.hits + view.counters.misses,
            misses=view.counters.misses,
            idle_s=self.idle_s,
            production_s=self.production_s,
            resizes=self.resizes,
            hours=until / HOUR_S,
        )

    def _acquire(self) -> AcquireRequested:
        return AcquireRequested(
            request_id=next(self._serial),
            profile="p",
            owner=CALLER,
            on_empty=self.on_empty,
            deadline=math.inf,
        )

    def _at(self, at: float, event: Event) -> None:
        heapq.heappush(self._agenda, (at, next(self._serial), event))

    def _pass_time(self, now: float) -> None:
        self.idle_s += len(self.ready) * (now - self.now)
        self.production_s += len(self.producing) * (now - self.now)
        self.now = now

    def _tell(self, event: Event) -> None:
        if isinstance(event, VmReady):
            if event.vm_id not in self.producing:
                return  # the VM was stopped
            self.producing.remove(event.vm_id)
            self.ready.add(event.vm_id)
        for effect in self.ledger.apply(event, now=self.now):
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case StartVm(vm_id=vm_id):
                self.producing.add(vm_id)
                lasts = PRODUCTION_S * self.rng.lognormvariate(-(JITTER**2) / 2, JITTER)
                self._at(self.now + lasts, VmReady(vm_id=vm_id, pid=1, production_s=lasts))
            case HandOutVm(vm_id=vm_id):
                self.ready.remove(vm_id)
                self._at(self.now + HAND_OUT_S, VmHandedOut(vm_id=vm_id, report=REPORT, timings=TIMINGS))
            case StopVm(vm_id=vm_id):
                self.ready.discard(vm_id)
                self.producing.discard(vm_id)
                self._at(self.now + STOP_S, VmGone(vm_id=vm_id))
            case Grant(lease=lease):
                released = ReleaseRequested(request_id=next(self._serial), lease_id=lease.lease_id, owner=CALLER)
                self._at(self.now + self.rng.expovariate(1 / LEASE_S), released)
            case Tell(news=ProfileNews(change=ProfileChange.RESIZED)):
                self.resizes += 1
            case _:
                pass


def simulate(load: str, size: int | AdaptiveSize, *, seeds: int, hours: float, on_empty: OnEmpty) -> Outcome:
    """Simulates one size; every size gets the same arrivals."""
    total = Outcome()
    for seed in range(seeds):
        callers, vms = random.Random(f"callers {seed}"), random.Random(f"vms {seed}")  # noqa: S311 - no secrets here
        arrivals = [WARM_UP_S + at for at in LOADS[load].arrivals(callers, hours * HOUR_S)]
        simulation = Simulation(size=size, rng=vms, on_empty=on_empty)
        total += simulation.run(arrivals, until=WARM_UP_S + hours * HOUR_S)
    return total


@attrs.frozen(kw_only=True)
class Comparison:
    load: str
    adaptive: Outcome
    fixed: tuple[Outcome, ...]
    """By size, from 0."""

    def misses_at_equal_cost(self) -> float:
        """The misses of the fixed sizes; the largest one's if it costs less than the adaptive pool."""
        for smaller, larger in itertools.pairwise(self.fixed):
            if smaller.cost_s <= self.adaptive.cost_s <= larger.cost_s:
                part = (self.adaptive.cost_s - smaller.cost_s) / (larger.cost_s - smaller.cost_s)
                return smaller.misses + part * (larger.misses - smaller.misses)
        return min(outcome.misses for outcome in self.fixed)

    def size_with_as_few_misses(self) -> int | None:
        """The smallest fixed size that misses no more than the adaptive pool."""
        return next((size for size, fixed in enumerate(self.fixed) if fixed.misses <= self.adaptive.misses), None)


def compare(load: str, policy: AdaptiveSize, *, seeds: int, hours: float, on_empty: OnEmpty) -> Comparison:
    run = partial(simulate, load, seeds=seeds, hours=hours, on_empty=on_empty)
    adaptive, fixed = run(policy), [run(0)]
    for size in range(1, LARGEST + 1):
        if fixed[-1].cost_s > adaptive.cost_s and fixed[-1].misses <= adaptive.misses:
            break  # larger sizes answer neither question
        fixed.append(run(size))
    return Comparison(load=load, adaptive=adaptive, fixed=tuple(fixed))


def show(comparisons: list[Comparison], *, title: str) -> None:
    table = Table(title=title, box=None, title_justify="left")
    table.add_column("load")
    for column in ("arrivals", "VMs held", "missed", "fixed, same cost", "ratio", "fixed, as few misses", "resizes/h"):
        table.add_column(column, justify="right")
    for comparison in comparisons:
        adaptive, fixed_misses = comparison.adaptive, comparison.misses_at_equal_cost()
        size = comparison.size_with_as_few_misses()
        table.add_row(
            comparison.load,
            f"{adaptive.arrivals}",
            f"{adaptive.cost_s / adaptive.hours / HOUR_S:.2f}",
            f"{adaptive.misses / adaptive.arrivals:.2%}",
            f"{fixed_misses / adaptive.arrivals:.2%}",
            f"{adaptive.misses / fixed_misses:.2f}" if fixed_misses else "-",
            "none" if size is None else f"size {size}: {comparison.fixed[size].cost_s / adaptive.cost_s:.2f} x",
            f"{adaptive.resizes / adaptive.hours:.1f}",
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=12.0, help="simulated, for each seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--on-empty", choices=[choice.value for choice in OnEmpty], default=OnEmpty.BOOT.value)
    parser.add_argument("--target", type=float, default=0.99, help="the target hit rate")
    options = parser.parse_args()
    policy = AdaptiveSize(maximum=LARGEST, target_hit_rate=options.target)
    run = partial(compare, policy=policy, seeds=options.seeds, hours=options.hours, on_empty=OnEmpty(options.on_empty))
    with multiprocessing.get_context("fork").Pool() as workers:
        comparisons = workers.map(run, LOADS, chunksize=1)
    show(comparisons, title=f"{policy}, {options.seeds} x {options.hours:.0f} h, {options.on_empty}")


if __name__ == "__main__":
    main()
