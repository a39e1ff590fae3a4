"""The ledger's records: VMs, claims and leases."""

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
    """The owner of a lease: the peer's uid as the kernel reports it. Root may act for anyone."""

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
    """Counts against the budget; more than the base VM's if the claim or lease requests more."""
    adopted: bool = False
    """An earlier run of the service made it."""
    generation: str = ""
    """The generation that its producer made when it was produced."""
    made_by: ProducerKind = ProducerKind.DIRECT
    claim_id: int | None = None
    """HANDING_OUT: the claim that gets it."""
    lease_id: str | None = None
    terms: LeaseTerms | None = None
    """HANDING_OUT: the terms of the future lease."""
    pid: int = 0
    ready_at: float = 0.0
    failures_before: int = 0
    """Its pool's failures in a row when it became ready; an early death continues that count."""

    def to(self, target: VmState) -> None:
        check_transition(vm_id=self.vm_id, state=self.state, target=target)
        self.state = target


Place = tuple[float, float]
"""A claim's place in the queue: its round, and its id, which ascends with arrival."""


@attrs.define(eq=False, kw_only=True)
class Claim:
    """One pending acquisition: several requests, if a caller retries with the same idempotency key."""

    claim_id: int
    profile: str
    owner: Owner
    request: LeaseRequest = attrs.field(factory=LeaseRequest)
    """The first request; requests that join by its key get the same lease."""
    on_empty: OnEmpty
    arrived_at: float
    round: int = 0
    """The round of its turn; see `pool.ledger.queue`."""
    found_ready: bool
    """A VM was ready when it arrived: a hit of the pool."""
    requests: dict[int, float] = attrs.field(factory=dict)
    """Request id to its deadline. The claim is dropped with its last request."""
    vm_id: str | None = None
    """Set while a VM is being handed out to it; None while it waits."""
    chosen_at: float = 0.0
    """When that VM was chosen."""
    attempts: int = 0
    """Failed hand-outs so far."""
    last_failure: str = ""
    """The error of the last failed hand-out."""

    @property
    def place(self) -> Place:
        return self.round, self.claim_id


@attrs.frozen(kw_only=True)
class Lease:
    vm_id: str
    pid: int
    profile: str
    terms: LeaseTerms
    """Without wishes, which are fulfilled."""
    granted_at: float
    expires_at: float = math.inf
    """When it expires, unless it is renewed."""
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
        return self.terms.request


class EndReason(enum.Enum):
    RELEASED = "released"
    EXPIRED = "expired"
    VM_LOST = "vm_lost"
    ABANDONED = "abandoned"
    """The caller went away before it had the lease, or while it held the lease open."""
    SHUTDOWN = "shutdown"
    GIVEN_AWAY = "given_away"
    """The VM lives on outside the service, which gave it away."""


@attrs.frozen(kw_only=True)
class EndedLease:
    """An ended lease, remembered for a while so that its owner can learn how it ended."""

    lease_id: str
    owner: Owner
    reason: EndReason
    detail: str
