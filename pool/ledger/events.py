"""What the ledger is told: the actors' facts, and the callers' requests."""

from __future__ import annotations

import math

import attrs

from actors.messages import VmFact, Wishes
from pool.ledger.records import OnEmpty, Owner


@attrs.frozen(kw_only=True)
class AcquireRequested:
    request_id: int
    profile: str
    owner: Owner
    key: str
    on_empty: OnEmpty
    deadline: float
    wishes: Wishes = attrs.field(factory=Wishes)
    ttl_s: float = math.inf
    """How long the lease lives without being renewed."""


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
class GrantUndelivered:
    """A Grant is in its caller's hand no more, or never was. The lease ends, unless another request got it too."""

    lease_id: str
    detail: str = "its caller went away before it had it"


@attrs.frozen(kw_only=True)
class DrainRequested:
    """No more grants: waiting claims are refused, every VM is stopped, nothing is produced."""


@attrs.frozen(kw_only=True)
class GenerationChanged:
    """A profile's producer makes VMs of another generation from now on; those of other ones are stale."""

    profile: str
    generation: str


@attrs.frozen(kw_only=True)
class Tick:
    """Time has passed; what is due is done on every event, this one carries nothing else."""


Event = (
    AcquireRequested
    | RequestAbandoned
    | ReleaseRequested
    | RenewRequested
    | GrantUndelivered
    | GenerationChanged
    | DrainRequested
    | Tick
    | VmFact
)
