"""A whole simulation: one seed, several runs of the service, and everybody who has to do with it."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import attrs
import structlog
import trio
import trio._core._run
import trio.testing

from actors.journal import Journal
from actors.memory import MemoryPolicy
from actors.vm import VmActor
from pool.core.coordinator import Coordinator
from pool.core.recovery import recover
from tests.simulation.books import Books
from tests.simulation.checks import Checks
from tests.simulation.clients import run_client, run_greedy_client
from tests.simulation.findings import Findings, Trace, ViolationError
from tests.simulation.guest_books import GuestBooks
from tests.simulation.host import Disk, Host, WallClock, Weather
from tests.simulation.incarnation import Incarnation, Phase
from tests.simulation.operators import lose_time, make_trouble, run_administrator
from tests.simulation.plan import MAX_TTL_S, Ending, Plan, Randomness, make_plan
from tests.simulation.watchers import run_watcher
from vmm.simulated.machine import Machine
from vmm.simulated.templates import SimulatedTemplate

REST_S: Final = 5.0
"""How often it is looked whether the service has come to rest."""

PATIENCE_S: Final = MAX_TTL_S + 400.0
"""Longer than any lease, time limit and back-off, one after the other."""

FOREVER_S: Final = 100_000.0


@attrs.frozen(kw_only=True)
class Parts:
    """What the service is made of; a test puts a broken one in its place."""

    name: str = "sound"
    journal: Callable[..., Journal] = Journal
    actor: Callable[..., VmActor] = VmActor
    recover: Callable[..., Any] = recover
    sweep: Callable[..., Any] = Host.sweep
    token_clock: Callable[[], int] | None = None
    break_coordinator: Callable[[Any], None] = lambda _: None
    break_edge: Callable[[Any], None] = lambda _: None
    break_guest: Callable[[Machine], None] = lambda _: None


@attrs.frozen(kw_only=True)
class Report:
    seed: int
    plan: Plan
    virtual_s: float
    runs: int
    leases: int
    lines: int
    digest: str
    checked: frozenset[str]
    violation: ViolationError | None


@attrs.define(eq=False, kw_only=True)
class Simulation:
    plan: Plan
    randomness: Randomness
    parts: Parts
    trace: Trace
    findings: Findings
    wall_clock: WallClock = attrs.field(factory=WallClock)
    memory_policy: MemoryPolicy = attrs.field(factory=lambda: MemoryPolicy(interval_s=4.0, clear_s=8.0))
    machine_numbers: dict[str, int] = attrs.field(factory=dict)
    """By profile: what its VMs are made of. Changes when its kernel, say, is replaced."""
    templates: dict[str, SimulatedTemplate | None] = attrs.field(factory=dict)
    refused: set[str] = attrs.field(factory=set)
    clock_troubles: dict[str, float] = attrs.field(factory=dict)
    """When a guest's clock was last put off, by VM."""
    asking: defaultdict[Coordinator, Counter[int]] = attrs.field(factory=lambda: defaultdict(Counter))
    """Acquisitions that are on their way, by run of the service and uid."""
    weather: Weather = attrs.field(init=False)
    host: Host = attrs.field(init=False)
    """As the next run of the service finds it."""
    books: Books = attrs.field(init=False)
    guest_books: GuestBooks = attrs.field(init=False)
    checks: Checks = attrs.field(init=False)
    service: Incarnation | None = None
    _changed: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        machines: dict[str, Machine] = {}
        self.machine_numbers.update(dict.fromkeys((profile.name for profile in self.plan.profiles), 1))
        self.weather = Weather(plan=self.plan, randomness=self.randomness)
        self.host = Host(
            disk=Disk(weather=self.weather, refused=self.refused),
            weather=self.weather,
            machines=machines,
            break_guest=self.parts.break_guest,
        )
        self.books = Books(findings=self.findings, machines=machines, refused=self.refused)
        self.guest_books = GuestBooks(findings=self.findings)
        self.checks = Checks(simulation=self)

    async def run(self) -> None:
        """Until all is over, or something was found."""
        with trio.CancelScope() as everything:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_when_found, everything)
                await self._story(nursery)
                nursery.cancel_scope.cancel(reason="the simulation is over")

    async def _end_when_found(self, everything: trio.CancelScope) -> None:
        await self.findings.found.wait()
        everything.cancel(reason="a violation was found")

    async def _story(self, nursery: trio.Nursery) -> None:
        runs_over, clients_gone = trio.Event(), trio.Event()
        nursery.start_soon(self._run_services, nursery, runs_over)
        nursery.start_soon(self._run_clients, clients_gone)
        for number in range(self.plan.administrators):
            nursery.start_soon(run_administrator, self, number)
        for number in range(2):
            nursery.start_soon(run_watcher, self, number)
        nursery.start_soon(make_trouble, self)
        if self.plan.guests_lose_time:
            nursery.start_soon(lose_time, self)
        await trio.sleep(self.plan.busy_s)
        await runs_over.wait()
        self.weather.quiet = True
        self.trace.add("simulation", "all is quiet from now on")
        with trio.move_on_after(PATIENCE_S) as patience:
            await clients_gone.wait()
        self.findings.check("clients_come_to_an_end", not patience.cancelled_caught)
        await self._resume_all()
        await self._come_to_rest()
        service = self.service
        assert service is not None
        service.stop.set()
        await service.gone.wait()
        left = {vm_id for vm_id in self.host.machines if self.host.disk.has_directory(vm_id)}
        self.findings.check("nothing_is_left", not self.host.alive and not left, lambda: (self.host.alive, left))

    async def _come_to_rest(self) -> None:
        assert self.service is not None
        unrest, since = "", trio.current_time()
        while trio.current_time() - since < PATIENCE_S:
            await trio.sleep(REST_S)
            if not (unrest := self.checks.unrest(self.service)):
                break
        self.findings.check("in_quiet_times_the_service_comes_to_rest", not unrest, unrest)

    async def _resume_all(self) -> None:
        service = await self.serving()
        for profile in self.plan.profiles:
            await service.coordinator.undrain(profile.name)

    async def _run_services(self, nursery: trio.Nursery, over: trio.Event) -> None:
        endings: tuple[Ending | None, ...] = (*self.plan.endings, None)
        for number, ending in enumerate(endings, start=1):
            if ending is None:
                over.set()
            self.service = Incarnation(simulation=self, number=number, host=self.host, ending=ending)
            self.phase_changed()
            nursery.start_soon(self.service.run)
            await self.service.gone.wait()
            if ending is not None:
                # No process starts in no time, and fencing tokens count on that.
                await trio.sleep(max(ending.pause_s, 0.001))

    async def _run_clients(self, gone: trio.Event) -> None:
        async with trio.open_nursery() as clients:
            for number in range(self.plan.clients):
                clients.start_soon(run_client, self, number)
            for number in range(self.plan.greedy):
                clients.start_soon(run_greedy_client, self, number)
        gone.set()

    # -- for those who have to do with the service -------------------------------------------------------------------

    def phase_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def serving(self) -> Incarnation:
        """The run of the service that serves; waits for one."""
        while self.service is None or self.service.phase is not Phase.SERVING:
            await self._changed.wait()
        return self.service


def simulate(
    seed: int,
    *,
    parts: Parts | None = None,
    only: Collection[str] | None = None,
    listener: Callable[[str], None] | None = None,
    plan: Plan | None = None,
) -> Report:
    """Runs one seed to its end. Raises nothing for what it finds: that is in the report."""
    randomness = Randomness(seed)
    with _seeded_scheduler(randomness), quiet_logs():
        trace = Trace(listener)
        findings = Findings(trace=trace, only=only)
        simulation = Simulation(
            plan=plan or make_plan(randomness),
            randomness=randomness,
            parts=parts or Parts(),
            trace=trace,
            findings=findings,
        )
        virtual_s = trio.run(_bounded, simulation, clock=trio.testing.MockClock(autojump_threshold=0))
    return Report(
        seed=seed,
        plan=simulation.plan,
        virtual_s=virtual_s,
        runs=0 if simulation.service is None else simulation.service.number,
        leases=len(simulation.books.held),
        lines=trace.lines,
        digest=trace.digest(),
        checked=frozenset(findings.checked),
        violation=findings.violation,
    )


async def _bounded(simulation: Simulation) -> float:
    with trio.fail_after(FOREVER_S):
        await simulation.run()
    return trio.current_time()


@contextlib.contextmanager
def _seeded_scheduler(randomness: Randomness) -> Iterator[None]:
    """Trio shuffles the tasks that are runnable; here in an order that the seed decides."""
    run = trio._core._run
    deterministic, state = run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate()
    run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    run._r.seed(f"{randomness.seed}/scheduler")
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = deterministic  # type: ignore[misc]
        run._r.setstate(state)


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """The trace says more."""
    config = structlog.get_config()
    structlog.configure(processors=[_drop])
    try:
        yield
    finally:
        structlog.configure(**config)


def _drop(_logger: object, _method: str, _event: object) -> Any:
    raise structlog.DropEvent
