"""The ledger's events: the actors' facts and the callers' requests."""

from __future__ import annotations

import attrs

from pool.ledger.policy import OnEmpty, PoolPolicy
from pool.ledger.records import Lease, Owner
from vmm.words.facts import VmFact
from vmm.words.leases import LeaseRequest


@attrs.frozen(kw_only=True)
class AcquireRequested:
    request_id: int
    profile: str
    owner: Owner
    request: LeaseRequest = attrs.field(factory=LeaseRequest)
    on_empty: OnEmpty | None = None
    """None: the profile's setting."""
    deadline: float
    opens: PoolPolicy | None = None
    """Of a profile for the caller's own configuration, which is opened if it does not exist."""


@attrs.frozen(kw_only=True)
class RequestAbandoned:
    """The caller of an AcquireRequested went away before its answer was delivered."""

    request_id: int


@attrs.frozen(kw_only=True)
class ReleaseRequested:
    request_id: int
    lease_id: str
    owner: Owner


@attrs.frozen(kw_only=True)
class RenewRequested:
    """Sets the lease's remaining time to `ttl_s`, which may be longer or shorter than before."""

    request_id: int
    lease_id: str
    owner: Owner
    ttl_s: float


@attrs.frozen(kw_only=True)
class HeldAnew:
    """A caller holds its bound lease again, with the idempotency key; the new request sets the time to live."""

    lease_id: str
    request: AcquireRequested


@attrs.frozen(kw_only=True)
class RenewalRecorded:
    """The result of a RecordExpiry effect. Only recorded renewals are confirmed, so that a later run knows them."""

    renewal: RenewRequested | HeldAnew
    expires_at: float
    recorded: bool


@attrs.frozen(kw_only=True)
class GrantUndelivered:
    """A Grant did not reach its caller, or its caller gave it up. The lease ends, unless another request got it too."""

    lease_id: str
    detail: str = "its caller went away before it had the lease"


@attrs.frozen(kw_only=True)
class LeaseRelinquished:
    """The VM of a bare lease was given away: it has left the service."""

    lease_id: str


@attrs.frozen(kw_only=True)
class ShutdownRequested:
    """No more grants: waiting claims are refused, every VM is stopped, nothing is produced."""


@attrs.frozen(kw_only=True)
class HandoverRequested:
    """Like a shutdown, but idle and leased VMs are detached, for the next run of the service."""


@attrs.frozen(kw_only=True)
class FoundVm:
    """A VM that an earlier run of the service left, idle or leased."""

    vm_id: str
    profile: str
    within: str = ""
    """The profile on which a caller's own configuration is based; see `PoolPolicy`."""
    lease: Lease | None = None
    """With its times on this run's clock."""
    memory_mib: int = 0
    """Of a leased VM, hot-added memory included."""


@attrs.frozen(kw_only=True)
class AdoptionRequested:
    """All VMs that were found; the first event of a run, so that existing VMs are not produced again."""

    found: tuple[FoundVm, ...]


@attrs.frozen(kw_only=True)
class ResizeRequested:
    request_id: int
    profile: str
    size: int


@attrs.frozen(kw_only=True)
class DrainRequested:
    """The profile's idle VMs are stopped, and none are handed out or produced; leases go on."""

    request_id: int
    profile: str


@attrs.frozen(kw_only=True)
class UndrainRequested:
    """Ends a drain."""

    request_id: int
    profile: str


@attrs.frozen(kw_only=True)
class EvictRequested:
    """Stops an idle VM at once; without `vm_id`, replaces all idle VMs of the profile, a few at a time."""

    request_id: int
    profile: str = ""
    vm_id: str = ""


@attrs.frozen(kw_only=True)
class ResetRequested:
    """Failures are forgotten: the back-off ends, the circuit closes."""

    request_id: int
    profile: str


@attrs.frozen(kw_only=True)
class HostMemoryLow:
    """One idle VM is evicted for each of these events, and nothing is produced until HostMemoryOk."""

    detail: str


@attrs.frozen(kw_only=True)
class HostMemoryOk:
    pass


@attrs.frozen(kw_only=True)
class GenerationChanged:
    """A profile's producer makes VMs of another generation from now on; those of other generations are stale."""

    profile: str
    generation: str


@attrs.frozen(kw_only=True)
class Tick:
    """Time has passed. Every event triggers what is due; this one has no other content."""


AdministrationRequest = ResizeRequested | DrainRequested | UndrainRequested | EvictRequested | ResetRequested

Event = (
    AcquireRequested
    | RequestAbandoned
    | ReleaseRequested
    | RenewRequested
    | RenewalRecorded
    | GrantUndelivered
    | LeaseRelinquished
    | GenerationChanged
    | AdministrationRequest
    | AdoptionRequested
    | HostMemoryLow
    | HostMemoryOk
    | ShutdownRequested
    | HandoverRequested
    | Tick
    | VmFact
)
