"""What must hold after every event that the service takes, when it is at rest, and when it has ended."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

import attrs
import trio

from actors.clock import TOLERANCE_NS
from pool.ledger.effects import Confirm, ConfirmRenewal, Effect, Grant, Refuse
from pool.ledger.events import AdoptionRequested, Event
from pool.ledger.views import ProfileView
from tests.properties.ledger.invariants import ViolationError, check_state
from tests.simulation.incarnation import Incarnation, Phase
from vmm.simulated.machine import MachineState, Power
from vmm.words.facts import VmGone, VmLost
from vmm.words.life import VmState

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


EACH: Final = 3
"""After so many events the ledger's own invariants are checked: that takes longer than all else, and what is wrong
mostly stays wrong. The ledger's own state machine checks them after each."""


CLOCK_LIMIT_S: Final = 20.0
"""Several checks of a leased VM, though some guests that do not answer come first."""

_ROUNDING_NS: Final = 1000
"""Virtual time is a float."""

MOST_AT_ONCE: Final = 2_000
"""More events than all clients and VMs together have for it at one moment."""


@attrs.define(eq=False, kw_only=True)
class Checks:
    simulation: Simulation
    answers: Counter[tuple[int, int]] = attrs.field(factory=Counter)
    """By run of the service and request."""
    _events: int = 0
    _at_once: int = 0
    """Events that were applied without any time passing."""
    _last: float = -1.0
    _leased_since: dict[tuple[int, str], float] = attrs.field(factory=dict)
    """By run of the service and VM: since when its guest is asked for the time."""

    def before_effect(self, service: Incarnation, effect: Effect) -> None:
        if isinstance(effect, Grant | Refuse | Confirm | ConfirmRenewal):
            request = (service.number, effect.request_id)
            self.answers[request] += 1
            self.simulation.findings.check("requests_are_answered_once", self.answers[request] == 1, effect)

    def after_event(self, service: Incarnation, event: Event) -> None:
        findings, books = self.simulation.findings, self.simulation.books
        coordinator = service.coordinator
        if isinstance(event, VmLost):
            findings.check("no_actor_has_a_bug", not event.reason.startswith("internal error"), event)
        if isinstance(event, VmGone) and event.let_go:
            service.let_go.add(event.vm_id)
        self._events += 1
        self._at_once = self._at_once + 1 if trio.current_time() == self._last else 0
        self._last = trio.current_time()
        findings.check("the_service_does_not_spin", self._at_once < MOST_AT_ONCE, event)
        if self._events % EACH == 0:
            self._ledger(service)
        if isinstance(event, AdoptionRequested):
            books.check_restored(coordinator.leases())
        if not coordinator.draining:
            books.check_leases(coordinator.leases())
        self._owners(service)
        self.simulation.guest_books.check_calls(service.edge)
        self._the_books_match_the_host(service)
        self._guests_tell_the_time(service)

    def _ledger(self, service: Incarnation) -> None:
        """The ledger's own invariants, all of them."""
        try:
            check_state(service.coordinator._ledger, now=trio.current_time())
        except ViolationError as violation:
            self.simulation.findings.check("the_ledger_is_sound", False, violation)
        self.simulation.findings.check("the_ledger_is_sound", True)

    def _owners(self, service: Incarnation) -> None:
        known = (
            {vm.vm_id for vm in service.coordinator._ledger._moves.fleet.all()}
            | service.assembly.building
            | service.let_go
        )
        strangers = sorted(service.host.alive - known)
        self.simulation.findings.check("no_vm_without_an_owner", not strangers, strangers)

    def _the_books_match_the_host(self, service: Incarnation) -> None:
        """A VM that is idle or leased in the books is there, in that state; and it is recorded if it may be adopted."""
        check, host = self.simulation.findings.check, service.host
        for vm in service.coordinator._ledger._moves.fleet.all():
            actor = service.coordinator._actors[vm.vm_id]
            ending = actor._life.cancel_called or actor.state not in (VmState.READY, VmState.LEASED)
            machine = host.machines.get(vm.vm_id)
            if vm.state in (VmState.READY, VmState.LEASED) and not ending:
                there = vm.vm_id in host.alive and machine is not None
                check("vms_in_the_books_are_there", there, vm)
                checked = actor._inbox.statistics().current_buffer_used or actor._vm is None
                if there and machine is not None and vm.state is VmState.READY and actor.state is VmState.READY:
                    page = service.coordinator._ledger._moves.fleet.pages[vm.profile]
                    idle = machine.state.value.power is not Power.RUNNING
                    checked = checked or vm.vm_id in page.ready.being_checked
                    check("idle_vms_are_paused", idle or checked, vm)
            adoptable = actor.state in (VmState.READY, VmState.LEASED)
            recorded = host.disk.has_record(vm.vm_id)
            if vm.vm_id not in self.simulation.refused and actor.state is not VmState.ADOPTING:
                check("who_may_be_adopted_is_recorded", recorded or not adoptable or ending, vm)
                check("nobody_else_is_recorded", adoptable or actor._letting_go or not recorded, vm)

    def _guests_tell_the_time(self, service: Incarnation) -> None:
        """Of a leased VM that answers, unless something has just put its clock off."""
        simulation, now = self.simulation, trio.current_time()
        for vm_id, actor in service.coordinator._actors.items():
            machine = service.host.machines.get(vm_id)
            if machine is None or actor.state is not VmState.LEASED or actor._vm is None:
                continue
            since = max(
                self._leased_since.setdefault((service.number, vm_id), now),
                simulation.clock_troubles.get(vm_id, -math.inf),
                simulation.wall_clock.set_at,
            )
            was_hung = machine.hung_at > -math.inf
            if now - since > CLOCK_LIMIT_S and machine.state.value == MachineState() and not was_hung:
                off_ns = machine.wall_clock_ns - simulation.wall_clock()
                right = abs(off_ns) <= TOLERANCE_NS + _ROUNDING_NS
                simulation.findings.check("guests_tell_the_time", right, (vm_id, off_ns))

    # -- at rest -----------------------------------------------------------------------------------------------------

    def unrest(self, service: Incarnation) -> str:
        """Why the service is not at rest, with all its pools full; empty if it is."""
        if service.phase is not Phase.SERVING:
            return f"it is {service.phase.value}"
        coordinator = service.coordinator
        for view in coordinator.views():
            if why := self._lacking(service, view):
                return f"{view.name}: {why}: {view}"
        if leases := coordinator.leases():
            return f"leases: {leases}"
        vms = {vm.vm_id for vm in coordinator._ledger._moves.fleet.all()}
        if vms != service.host.alive or vms != coordinator._actors.keys():
            return f"VMs {sorted(vms)}, of the host {sorted(service.host.alive)}"
        recorded = {vm_id for vm_id in vms if service.host.disk.has_record(vm_id)}
        ready = {vm.vm_id for vm in coordinator._ledger._moves.fleet.all() if vm.state is VmState.READY}
        if recorded != ready:
            return f"recorded {sorted(recorded)}, ready {sorted(ready)}"
        self.nothing_is_counted(service)
        open_requests = coordinator.statistics().open_requests
        return f"{open_requests} requests are open" if open_requests else ""

    def _lacking(self, service: Incarnation, view: ProfileView) -> str:
        ledger = service.coordinator._ledger
        policy, admission = ledger.policies[view.name], ledger._moves.admission
        wanted = 0 if view.drained else view.size
        if policy.max_vms is not None:
            wanted = min(wanted, max(0, policy.max_vms - view.leased))
        taken_mib = sum(vm.memory_mib for vm in ledger._moves.fleet.all())
        crowded = taken_mib + policy.memory_mib > admission.policy.memory_budget_mib
        if view.handing_out or view.waiting:
            return "somebody waits"
        if policy.max_age_s < math.inf and (view.ready + view.producing >= wanted or self._produces(service)):
            return ""  # some are always being replaced, and those of another pool may come first
        if view.producing or view.stopping:
            return "it is busy"
        if not (view.ready == wanted or (crowded and view.ready < wanted)):
            return f"{wanted} are wanted"
        if view.stale and not crowded:
            return "some are stale"
        if view.shells != (0 if view.drained else policy.shells) and not crowded:
            return f"{policy.shells} shells are wanted"
        return ""

    def _produces(self, service: Incarnation) -> bool:
        return any(view.producing for view in service.coordinator.views())

    def nothing_is_counted(self, service: Incarnation) -> None:
        """Once all of its calls have ended."""
        counted = service.edge.counted()
        self.simulation.findings.check("what_calls_take_is_given_back", not counted, counted)

    # -- at the end --------------------------------------------------------------------------------------------------

    def drained(self, service: Incarnation) -> None:
        host, statistics = service.host, service.coordinator.statistics()
        recorded = [vm_id for vm_id in host.machines if host.disk.has_record(vm_id)]
        check = self.simulation.findings.check
        check("a_drain_leaves_nothing", host.alive <= service.assembly.building, lambda: sorted(host.alive))
        check("a_drain_leaves_nothing", not recorded, recorded)
        check("a_drain_leaves_nothing", not statistics.actors, statistics)
