"""What the ledger is told: the actors' facts, and the callers' requests."""

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
    """None: as the profile has it."""
    deadline: float
    opens: PoolPolicy | None = None
    """The profile is one of the caller's own configuration, to be opened if it is not there."""


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
    """The lease is to live for `ttl_s` from now on, whether that is longer than before or shorter."""

    request_id: int
    lease_id: str
    owner: Owner
    ttl_s: float


@attrs.frozen(kw_only=True)
class HeldAnew:
    """A bound lease whose caller is back, with its idempotency key: it lives on for as long as it is asked for now."""

    lease_id: str
    request: AcquireRequested


@attrs.frozen(kw_only=True)
class RenewalRecorded:
    """What became of a RecordExpiry effect; nothing is confirmed that a later run of the service would not know of."""

    renewal: RenewRequested | HeldAnew
    expires_at: float
    recorded: bool


@attrs.frozen(kw_only=True)
class GrantUndelivered:
    """A Grant is in its caller's hand no more, or never was. The lease ends, unless another request got it too."""

    lease_id: str
    detail: str = "its caller went away before it had it"


@attrs.frozen(kw_only=True)
class LeaseRelinquished:
    """The VM of a bare lease is in its taker's hand, and the service's no more."""

    lease_id: str


@attrs.frozen(kw_only=True)
class ShutdownRequested:
    """No more grants: waiting claims are refused, every VM is stopped, nothing is produced."""


@attrs.frozen(kw_only=True)
class HandoverRequested:
    """As a drain, but idle and leased VMs are let go alive, for the next run of the service."""


@attrs.frozen(kw_only=True)
class FoundVm:
    """An earlier run of the service left it: idle, or leased."""

    vm_id: str
    profile: str
    within: str = ""
    """The profile that this one is based on, if it is a caller's own configuration; see `PoolPolicy`."""
    lease: Lease | None = None
    """With its times on this run's clock."""
    memory_mib: int = 0
    """What a leased VM was grown to."""


@attrs.frozen(kw_only=True)
class AdoptionRequested:
    """All that was found; the first event of a run, so that nothing is produced that is there already."""

    found: tuple[FoundVm, ...]


@attrs.frozen(kw_only=True)
class ResizeRequested:
    request_id: int
    profile: str
    size: int


@attrs.frozen(kw_only=True)
class DrainRequested:
    """Nothing more is handed out or produced of this profile, idle VMs go; leases go on."""

    request_id: int
    profile: str


@attrs.frozen(kw_only=True)
class UndrainRequested:
    """Ends a suspension."""

    request_id: int
    profile: str


@attrs.frozen(kw_only=True)
class EvictRequested:
    """An idle VM goes at once; without a VM named, all idle ones of the profile are replaced, few at a time."""

    request_id: int
    profile: str = ""
    vm_id: str = ""


@attrs.frozen(kw_only=True)
class ResetRequested:
    """Failures are forgotten: back-off and circuit begin anew."""

    request_id: int
    profile: str


@attrs.frozen(kw_only=True)
class HostMemoryLow:
    """One idle VM goes for each of these, and nothing is produced until HostMemoryOk."""

    detail: str


@attrs.frozen(kw_only=True)
class HostMemoryOk:
    pass


@attrs.frozen(kw_only=True)
class GenerationChanged:
    """A profile's producer makes VMs of another generation from now on; those of other ones are stale."""

    profile: str
    generation: str


@attrs.frozen(kw_only=True)
class Tick:
    """Time has passed; what is due is done on every event, this one carries nothing else."""


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
