"""One run of the service, from what it finds to its end, whichever that is."""

from __future__ import annotations

import enum
import itertools
import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

from actors.memory import HostMemory
from actors.pressure import PressureWatcher
from actors.supervisor import NEVER_GIVE_UP, Supervised
from pool.ledger.effects import ConfirmRenewal, Effect, Grant, HandOutVm, LeaseEnded
from pool.ledger.events import Event
from pool.ledger.records import Lease
from tests.simulation.assembly import Assembly
from tests.simulation.edge import Edge
from tests.simulation.findings import said
from tests.simulation.host import Host
from tests.simulation.observed import ObservedCoordinator
from tests.simulation.plan import Ending, EndKind
from vmm.simulated.disk import CrashedError

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

_T = TypeVar("_T")


class ServiceGoneError(Exception):
    """The service is not there, or ended before it answered."""


class Phase(enum.Enum):
    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    DEAD = "dead"


@attrs.define(eq=False, kw_only=True)
class Incarnation:
    """Clients reach it through `call`. `kill` ends it as SIGKILL does: from that line on nothing of it has effects."""

    simulation: Simulation
    number: int
    host: Host
    ending: Ending | None
    """None: it is told to drain from outside."""
    phase: Phase = Phase.STARTING
    assembly: Assembly = attrs.field(init=False)
    coordinator: ObservedCoordinator = attrs.field(init=False)
    edge: Edge = attrs.field(init=False)
    let_go: set[str] = attrs.field(factory=set)
    """VMs that it has left to the next run."""
    gone: trio.Event = attrs.field(factory=trio.Event)
    stop: trio.Event = attrs.field(factory=trio.Event)
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _calls: dict[int, trio.CancelScope] = attrs.field(factory=dict)
    _call_ids: itertools.count[int] = attrs.field(factory=itertools.count)
    _effects: int = 0
    _steps: int = 0

    def __attrs_post_init__(self) -> None:
        self.assembly = Assembly(simulation=self.simulation, number=self.number, host=self.host)

    @property
    def name(self) -> str:
        return f"service {self.number}"

    # -- its life --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until it is killed, or has ended in good order."""
        trace = self.simulation.trace
        trace.add(self.name, f"starts, to end so: {self.ending}")
        self.host.disk.on_step = self._killed_at_disk_step
        self.host.on_forget = self._note_end_of_vm
        try:
            with self._life:
                async with trio.open_nursery() as nursery:
                    if self.ending is not None:
                        nursery.start_soon(self._end_in_time, self.ending)
                    await self._serve()
                    nursery.cancel_scope.cancel(reason="it has ended")
        except* CrashedError:
            assert self.phase is Phase.DEAD
        except* Exception as errors:  # noqa: BLE001 - none is meant to end the service
            report = "".join(traceback.format_exception(errors))
            self.simulation.findings.check("no_run_of_the_service_crashes", self.phase is Phase.DEAD, report)
        finally:
            if self.phase is not Phase.DEAD:
                self._end(kill=False)

    async def _serve(self) -> None:
        simulation, assembly = self.simulation, self.assembly
        journal = assembly.journal()
        recovered = await assembly.recover(journal)
        self.coordinator = coordinator = assembly.coordinator(
            journal,
            recovered,
            observer=self,
            announce=self._generation_changed,
            hand_out_began=self._hand_out_began,
        )
        self.edge = Edge(coordinator=coordinator)
        simulation.parts.break_edge(self.edge)
        async with trio.open_nursery() as nursery:
            await nursery.start(coordinator.run)
            for name, producer in coordinator.producers.items():
                supervised = Supervised(
                    name=f"producer of {name}",
                    main=producer.run,
                    policy=NEVER_GIVE_UP,
                    rng=assembly.random(f"supervisor of {name}"),
                )
                nursery.start_soon(supervised.run)
            watcher = PressureWatcher(
                policy=simulation.memory_policy, read=assembly.read_memory, report=self._report_memory
            )
            nursery.start_soon(watcher.run)
            nursery.start_soon(coordinator.host_clock.run)
            self._to(Phase.SERVING)
            await self.stop.wait()
            self._to(Phase.STOPPING)
            self.edge.calls.stop()
            self.edge.calls.end()
            await self.edge.calls.wait_idle()
            if self.ending is not None and self.ending.kind is EndKind.HAND_OVER:
                await coordinator.hand_over()
            else:
                simulation.books.all_loose()
                await coordinator.shut_down()
                simulation.checks.drained(self)
            nursery.cancel_scope.cancel(reason="it has ended")

    def kill(self, why: str) -> None:
        """SIGKILL. Called by one of its own tasks too."""
        if self.phase is not Phase.DEAD:
            self.simulation.trace.add(self.name, f"killed: {why}")
            self._end(kill=True)

    def _end(self, *, kill: bool) -> None:
        self._to(Phase.DEAD)
        self.host.disk.on_step = lambda: False
        self.host.on_forget = lambda _: None
        self.simulation.host = self.host.next_run()
        self.simulation.templates = {name: one.template for name, one in self.assembly.templates.items()}
        for call in self._calls.values():
            call.cancel(reason="the service is gone")
        if (edge := getattr(self, "edge", None)) is not None:
            edge.break_off()
        self._life.cancel(reason="it was killed" if kill else "it has ended")
        self.gone.set()

    async def _end_in_time(self, ending: Ending) -> None:
        match ending.kind:
            case EndKind.KILLED_AT_START:
                await _rounds(ending.count)
                self.kill("while it starts")
            case EndKind.HAND_OVER | EndKind.DRAIN:
                await trio.sleep(ending.after_s)
                self.stop.set()
            case _:
                await trio.sleep(ending.after_s)
                if ending.kind is EndKind.KILLED_AT_TIME:
                    await _rounds(ending.count)
                self.kill("its time has come")

    def _killed_at_disk_step(self) -> bool:
        self._steps += 1
        if self._ends_by(EndKind.KILLED_AT_DISK_STEP) and self._steps > self._count:
            self.kill(f"at step {self._steps} of the disk")
            return True
        return False

    def _ends_by(self, kind: EndKind) -> bool:
        return self.ending is not None and self.ending.kind is kind and self.phase is not Phase.DEAD

    @property
    def _count(self) -> int:
        assert self.ending is not None
        return self.ending.count

    def _to(self, phase: Phase) -> None:
        if self.phase is Phase.DEAD:
            return  # a task that was not cancelled yet
        self.phase = phase
        self.simulation.trace.add(self.name, phase.value)
        self.simulation.phase_changed()

    def _generation_changed(self, profile: str, generation: str) -> None:
        self.coordinator.generation_changed(profile, generation)

    def _report_memory(self, verdict: HostMemory) -> None:
        self.coordinator.host_memory(verdict)

    # -- what is seen of it ----------------------------------------------------------------------------------------

    def event_due(self, event: Event) -> None:
        if self.phase is not Phase.DEAD:
            self.simulation.trace.add(self.name, said(event))

    def event_applied(self, event: Event) -> None:
        if self.phase is not Phase.DEAD:
            self.simulation.checks.after_event(self, event)

    def effect_due(self, effect: Effect) -> None:
        """Before it is performed."""
        if self.phase is Phase.DEAD:
            return
        self._effects += 1
        if self._ends_by(EndKind.KILLED_AT_EVENT) and self._effects > self._count:
            self.kill(f"before it did {effect}")
            return
        self.simulation.trace.add(self.name, f"  {said(effect)}")
        self.simulation.checks.before_effect(self, effect)
        match effect:
            case HandOutVm(order=order):
                self.simulation.books.hand_out_ordered(order.terms.fencing_token)
            case Grant(lease=lease) | ConfirmRenewal(lease=lease):
                self.simulation.books.told[lease.lease_id] = lease.expires_at
            case LeaseEnded(lease_id=lease_id):
                self.simulation.books.lease_ended(lease_id)
                self.simulation.guest_books.lease_ended(lease_id)
            case _:
                pass

    def _hand_out_began(self, vm_id: str) -> None:
        if self.phase is not Phase.DEAD:
            self.simulation.books.hand_out_began(vm_id)

    def _note_end_of_vm(self, vm_id: str) -> None:
        self.simulation.trace.add("host", f"{vm_id} is gone")
        self.assembly.building.discard(vm_id)
        self.simulation.books.vm_forgotten(vm_id)

    @property
    def is_dead(self) -> bool:
        return self.phase is Phase.DEAD

    # -- what clients have of it -----------------------------------------------------------------------------------

    async def call(self, body: Callable[[Any], Awaitable[_T]]) -> _T:
        """Raises ServiceGoneError if it ends before it has answered, and what `body` raises."""
        if self.phase is not Phase.SERVING:
            raise ServiceGoneError
        number = next(self._call_ids)
        with trio.CancelScope() as scope:
            self._calls[number] = scope
            try:
                result = await body(self.coordinator)
            finally:
                del self._calls[number]
            if not self.is_dead:
                return result
        raise ServiceGoneError

    def give_back(self, lease: Lease) -> None:
        """As the edge does when a call ends and its lease is in nobody's hand."""
        if self.phase is not Phase.DEAD:
            self.coordinator.give_back(lease)


async def _rounds(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()
