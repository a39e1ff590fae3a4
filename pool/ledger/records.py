"""What the ledger keeps: policies, VMs, claims and leases."""

from __future__ import annotations

import enum
import math

import attrs

from actors.backoff import Backoff
from actors.kinds import ProducerKind
from actors.life import VmState, check_transition
from actors.messages import HandOutTimings, Wishes
from vmm.contract import PreparationReport


class OnEmpty(enum.Enum):
    """What the caller wants when nothing is ready."""

    WAIT = "wait"
    """Until the deadline, in the order of arrival."""
    FAIL = "fail"
    """At once."""
    BOOT = "boot"
    """Produce one more than the pool's size, now, even while the pool backs off; fail if that production fails."""


@attrs.frozen(kw_only=True)
class PoolPolicy:
    """What the ledger needs to know of a profile."""

    size: int = attrs.field(validator=attrs.validators.ge(0))
    """VMs that are ready or being produced for the pool; handed-out ones are not counted."""
    min_ready: int = attrs.field(default=1, validator=attrs.validators.ge(0))
    """Replacing stale VMs never leaves fewer than this ready, or than `size` if that is less."""
    shells: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Processes that are kept started, to be filled when a caller has to wait."""
    max_vcpus: int | None = None
    """What a caller may wish for; None: whatever the machine takes."""
    max_memory_mib: int | None = None
    production_limit: int = attrs.field(default=2, validator=attrs.validators.ge(1))
    """How many VMs may be in production for the pool at a time. Production for BOOT claims comes on top."""
    backoff: Backoff = attrs.field(factory=Backoff)


@attrs.frozen(kw_only=True)
class Owner:
    """Whose a lease is: the peer's uid as the kernel told it. Root may act for anyone."""

    uid: int

    def may_touch(self, other: Owner) -> bool:
        return self.uid in (0, other.uid)


@attrs.define(eq=False, kw_only=True)
class VmEntry:
    vm_id: str
    profile: str
    state: VmState
    since: float
    generation: str = ""
    """What it was made from."""
    made_by: ProducerKind = ProducerKind.DIRECT
    claim_id: int | None = None
    """HANDING_OUT: the claim it goes to."""
    lease_id: str | None = None
    pid: int = 0
    ready_at: float = 0.0
    failures_before: int = 0
    """Failures in a row of its pool when it became ready; an early death counts on from there."""

    def to(self, target: VmState, *, now: float) -> None:
        check_transition(vm_id=self.vm_id, state=self.state, target=target)
        self.state = target
        self.since = now


@attrs.define(eq=False, kw_only=True)
class Claim:
    """One acquisition on its way: possibly several requests, when a caller retries with the same idempotency key."""

    claim_id: int
    profile: str
    owner: Owner
    key: str
    """Idempotency key; empty for none."""
    on_empty: OnEmpty
    arrived_at: float
    wishes: Wishes = attrs.field(factory=Wishes)
    ttl_s: float = math.inf
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


@attrs.frozen(kw_only=True)
class Lease:
    lease_id: str
    vm_id: str
    pid: int
    profile: str
    owner: Owner
    key: str
    granted_at: float
    expires_at: float = math.inf
    """When it ends by itself, unless it is renewed."""
    fencing_token: int = 0
    """Grows with every lease, so that whoever guards something else can turn away the holder of an older one."""
    queued_s: float
    """From the claim's arrival until a VM was chosen for it."""
    was_ready: bool
    """A VM was ready when the claim arrived: the pool's hit."""
    made_by: ProducerKind = ProducerKind.DIRECT
    report: PreparationReport
    timings: HandOutTimings


class EndReason(enum.Enum):
    RELEASED = "released"
    EXPIRED = "expired"
    VM_LOST = "vm_lost"
    ABANDONED = "abandoned"
    """The caller went away before it had the lease in hand, or while it held it open."""
    SHUTDOWN = "shutdown"


@attrs.frozen(kw_only=True)
class EndedLease:
    """What is remembered of a lease for a while, so that its owner learns what became of it."""

    lease_id: str
    owner: Owner
    reason: EndReason
    detail: str
