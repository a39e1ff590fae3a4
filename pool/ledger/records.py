"""What the ledger keeps: VMs, claims and leases."""

from __future__ import annotations

import enum
import math

import attrs

from pool.ledger.policy import OnEmpty
from vmm.words.facts import HandOutTimings
from vmm.words.kinds import ProducerKind
from vmm.words.leases import LeaseRequest, LeaseTerms
from vmm.words.life import VmState, check_transition
from vmm.words.preparation import PreparationReport


@attrs.frozen(kw_only=True)
class Owner:
    """Whose a lease is: the peer's uid as the kernel told it. Root may act for anyone."""

    uid: int

    @property
    def may_act_for_anyone(self) -> bool:
        return self.uid == 0

    def may_touch(self, other: Owner) -> bool:
        return self.may_act_for_anyone or self.uid == other.uid


@attrs.define(eq=False, kw_only=True)
class VmEntry:
    vm_id: str
    profile: str
    state: VmState
    memory_mib: int
    """What it takes of the budget; more than its base if its lease was promised more."""
    adopted: bool = False
    """An earlier run of the service made it."""
    generation: str = ""
    """What it was made from."""
    made_by: ProducerKind = ProducerKind.DIRECT
    claim_id: int | None = None
    """HANDING_OUT: the claim it goes to."""
    lease_id: str | None = None
    terms: LeaseTerms | None = None
    """HANDING_OUT: those of the lease that is to come."""
    pid: int = 0
    ready_at: float = 0.0
    failures_before: int = 0
    """Failures in a row of its pool when it became ready; an early death counts on from there."""

    def to(self, target: VmState) -> None:
        check_transition(vm_id=self.vm_id, state=self.state, target=target)
        self.state = target


Place = tuple[float, float]
"""Of a claim among all: its round, and its id, which ascends with arrival."""


@attrs.define(eq=False, kw_only=True)
class Claim:
    """One acquisition on its way: possibly several requests, when a caller retries with the same idempotency key."""

    claim_id: int
    profile: str
    owner: Owner
    request: LeaseRequest = attrs.field(factory=LeaseRequest)
    """As it came first; those that join by its key get what that one asked for."""
    on_empty: OnEmpty
    arrived_at: float
    round: int = 0
    """In which it is its user's turn; see `pool.ledger.queue`."""
    found_ready: bool
    """A VM was ready when it arrived: the pool's hit."""
    requests: dict[int, float] = attrs.field(factory=dict)
    """Request id to its deadline. The claim is dropped when the last one has gone."""
    vm_id: str | None = None
    """Set while a VM is being handed out to it; None while it waits."""
    chosen_at: float = 0.0
    """When that VM was chosen."""
    attempts: int = 0
    """Hand-outs that failed so far."""
    last_failure: str = ""
    """What the last of them failed with."""

    @property
    def place(self) -> Place:
        """Who comes first."""
        return self.round, self.claim_id


@attrs.frozen(kw_only=True)
class Lease:
    vm_id: str
    pid: int
    profile: str
    terms: LeaseTerms
    """Without wishes: they are fulfilled."""
    granted_at: float
    expires_at: float = math.inf
    """When it ends by itself, unless it is renewed."""
    made_by: ProducerKind = ProducerKind.DIRECT
    report: PreparationReport
    timings: HandOutTimings

    @property
    def lease_id(self) -> str:
        return self.terms.lease_id

    @property
    def owner(self) -> Owner:
        return Owner(uid=self.terms.owner_uid)

    @property
    def request(self) -> LeaseRequest:
        """What was asked of it."""
        return self.terms.request


class EndReason(enum.Enum):
    RELEASED = "released"
    EXPIRED = "expired"
    VM_LOST = "vm_lost"
    ABANDONED = "abandoned"
    """The caller went away before it had the lease in hand, or while it held it open."""
    SHUTDOWN = "shutdown"
    GIVEN_AWAY = "given_away"
    """The VM lives on, and is its taker's alone."""


@attrs.frozen(kw_only=True)
class EndedLease:
    """What is remembered of a lease for a while, so that its owner learns what became of it."""

    lease_id: str
    owner: Owner
    reason: EndReason
    detail: str
