"""The ledger: VMs, leases and waiting claims, and the decisions about them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import assert_never

import attrs

from pool.ledger import refusals
from pool.ledger.administration import Administration
from pool.ledger.callers import Callers
from pool.ledger.effects import Effect, Refusal
from pool.ledger.events import (
    AcquireRequested,
    AdoptionRequested,
    DrainRequested,
    Event,
    EvictRequested,
    GenerationChanged,
    GrantUndelivered,
    HandoverRequested,
    HostMemoryLow,
    HostMemoryOk,
    LeaseRelinquished,
    ReleaseRequested,
    RenewalRecorded,
    RenewRequested,
    RequestAbandoned,
    ResetRequested,
    ResizeRequested,
    ShutdownRequested,
    Tick,
    UndrainRequested,
)
from pool.ledger.facts import Facts
from pool.ledger.moves import Moves
from pool.ledger.policy import PoolPolicy, ServicePolicy
from pool.ledger.records import Lease, Owner, VmEntry
from pool.ledger.refill import Refill
from pool.ledger.succession import Succession
from pool.ledger.upkeep import Upkeep
from pool.ledger.views import CircuitState, MemoryView, ProfileView
from vmm.words.facts import (
    LeaseAdopted,
    ShellReady,
    VmGone,
    VmHandedOut,
    VmHealthy,
    VmLost,
    VmReady,
    VmSilent,
    WishRefused,
)


@attrs.define(eq=False, kw_only=True)
class Ledger:
    """`apply` every event in order, and perform the returned effects in order.

    `new_id` makes ids that never repeat on this host; lease ids must not be guessable either. `rng` jitters back-off
    and spreads checks.
    """

    policies: Mapping[str, PoolPolicy]
    service: ServicePolicy = attrs.field(factory=ServicePolicy)
    new_id: Callable[[str], str]
    rng: random.Random = attrs.field(factory=random.Random)
    first_fencing_token: int = 1
    """Greater than the tokens of all earlier runs of the service."""
    _moves: Moves = attrs.field(init=False)
    _callers: Callers = attrs.field(init=False)
    _facts: Facts = attrs.field(init=False)
    _refill: Refill = attrs.field(init=False)
    _upkeep: Upkeep = attrs.field(init=False)
    _administration: Administration = attrs.field(init=False)
    _succession: Succession = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._moves = moves = Moves(
            policies=self.policies,
            service=self.service,
            new_id=self.new_id,
            rng=self.rng,
            first_fencing_token=self.first_fencing_token,
        )
        self._callers = Callers(moves=moves)
        self._facts = Facts(moves=moves)
        self._refill = Refill(moves=moves)
        self._upkeep = Upkeep(moves=moves, facts=self._facts)
        self._administration = Administration(moves=moves)
        self._succession = Succession(moves=moves)

    # -- questions -----------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        return self._moves.draining

    @property
    def empty(self) -> bool:
        """No VM is left, whatever its state."""
        return not self._moves.fleet

    def next_wakeup(self) -> float:
        """When a Tick is due, on the clock of `now`; infinity if none is. The time may be in the past."""
        if self.draining:
            return math.inf
        moves = self._moves
        retries = (page.next_wakeup() for page in moves.fleet.pages.values())
        return min(
            moves.claims.next_deadline(), moves.leases.next_expiry(), self._upkeep.next_wakeup(), *retries, math.inf
        )

    def views(self, *, now: float) -> tuple[ProfileView, ...]:
        """The configured profiles."""
        return tuple(self._view(page.name, now=now) for page in self._moves.fleet.pages.values() if not page.passing)

    def _view(self, name: str, *, now: float) -> ProfileView:
        page = self._moves.fleet.pages[name]
        held_back = ""
        if page.shortage() > page.handing_out:
            held_back = self._moves.admission.holds_back(page.policy)
        elif not page.has_room() and page.waiting:
            held_back = f"max_vms ({page.policy.max_vms}) is reached"
        return page.view(held_back=held_back, now=now)

    def memory(self) -> MemoryView:
        admission = self._moves.admission
        return MemoryView(
            committed_mib=admission.committed_mib,
            stopping_mib=admission.stopping_mib,
            budget_mib=admission.policy.memory_budget_mib,
        )

    def waiting(self) -> int:
        """The number of requests that wait for a VM to be chosen, of all profiles."""
        return self._moves.claims.waiting()

    def can_hand_out(self, profile: str, *, now: float) -> bool:
        """Whether a configured profile is not drained, and has a ready VM or a closed circuit."""
        page = self._moves.fleet.pages[profile]
        if self.draining or page.drained:
            return False
        return len(page.ready) > 0 or page.circuit(now=now) is CircuitState.CLOSED

    def leases(self) -> tuple[Lease, ...]:
        return self._moves.leases.all()

    def vms(self) -> tuple[VmEntry, ...]:
        """Copies of all entries."""
        return tuple(attrs.evolve(entry) for entry in self._moves.fleet.all())

    def find_lease(self, lease_id: str, *, owner: Owner) -> Lease | Refusal:
        """The lease if it lives and `owner` may use it, else the refusal."""
        return self._moves.leases.find(lease_id, owner=owner)

    def find_lease_by_name(self, name: str, *, owner: Owner) -> Lease | Refusal:
        """The owner's own lease of this name, else the refusal."""
        lease = self._moves.leases.of_name(owner, name)
        return refusals.unknown_name(name) if lease is None else lease

    def find_vm(self, vm_id: str, *, owner: Owner) -> VmEntry | Refusal:
        """The VM if `owner` may use its lease, or may act for anyone, else the refusal."""
        entry = self._moves.fleet.get(vm_id)
        if entry is None:
            return refusals.unknown_vm(vm_id)
        if owner.may_act_for_anyone:
            return entry
        if entry.lease_id is None or isinstance(self.find_lease(entry.lease_id, owner=owner), Refusal):
            return refusals.foreign_vm(vm_id)
        return entry

    # -- changes --------------------------------------------------------------------------

    def apply(self, event: Event, *, now: float) -> list[Effect]:
        """Processes an event and returns the effects to perform. `now` must not decrease."""
        # Before the event: a deadline that has passed wins over a VM that becomes ready now.
        self._callers.expire(now=now)
        self._take_note(event, now=now)
        self._upkeep.note_ages(now=now)
        self._refill.settle(now=now)
        if not self.draining:
            self._succession.reach_idle()
            self._upkeep.check_agents(now=now)  # of VMs that are still idle
        return self._moves.take_effects()

    def _take_note(self, event: Event, *, now: float) -> None:
        match event:
            case AcquireRequested():
                self._callers.acquire(event, now=now)
            case RequestAbandoned():
                self._callers.abandoned(event)
            case ReleaseRequested():
                self._callers.release(event)
            case RenewRequested():
                self._callers.renew(event, now=now)
            case RenewalRecorded():
                self._callers.renewal_recorded(event, now=now)
            case GrantUndelivered() | LeaseRelinquished():
                self._callers.has_it_no_more(event)
            case (
                LeaseAdopted()
                | ShellReady()
                | VmReady()
                | VmHealthy()
                | VmHandedOut()
                | WishRefused()
                | VmSilent()
                | VmLost()
                | VmGone()
            ):
                self._facts.note(event, now=now)
            case GenerationChanged():
                self._upkeep.generation_changed(event)
            case HostMemoryLow() | HostMemoryOk():
                self._upkeep.host_memory(event)
            case ResizeRequested() | DrainRequested() | UndrainRequested() | EvictRequested() | ResetRequested():
                if self.draining:
                    self._moves.refuse(event.request_id, refusals.shutting_down())
                else:
                    self._administration.do(event)
            case AdoptionRequested():
                self._succession.adopt(event)
                self._callers.expire(now=now)  # some leases have expired while no service ran
            case ShutdownRequested() | HandoverRequested():
                self._succession.end(event)
            case Tick():
                pass
            case _:
                assert_never(event)
