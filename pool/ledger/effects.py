"""The ledger's effects, which the coordinator performs in order, without waiting."""

from __future__ import annotations

import enum

import attrs

from pool.ledger.events import HeldAnew, RenewRequested
from pool.ledger.news import News
from pool.ledger.reasons import StopReason
from pool.ledger.records import Lease
from vmm.words.leases import HandOutOrder


class RefusalCode(enum.Enum):
    UNKNOWN_PROFILE = "unknown_profile"
    NOTHING_READY = "nothing_ready"
    DEADLINE = "deadline"
    PRODUCTION_FAILED = "production_failed"
    HAND_OUT_FAILED = "hand_out_failed"
    SHUTTING_DOWN = "shutting_down"
    OVER_MAXIMUM = "over_maximum"
    KEY_REUSED = "key_reused"
    NAME_TAKEN = "name_taken"
    UNKNOWN_NAME = "unknown_name"
    UNKNOWN_LEASE = "unknown_lease"
    FOREIGN_LEASE = "foreign_lease"
    LEASE_ENDED = "lease_ended"
    QUOTA = "quota"
    CROWDED = "crowded"
    DRAINED = "drained"
    CIRCUIT_OPEN = "circuit_open"
    UNKNOWN_VM = "unknown_vm"
    VM_NOT_UP = "vm_not_up"
    VM_IN_USE = "vm_in_use"
    ADAPTIVE = "adaptive"
    NOT_RECORDED = "not_recorded"
    WISH_REFUSED = "wish_refused"
    WISH_TOO_MUCH = "wish_too_much"
    WISH_UNSUPPORTED = "wish_unsupported"


@attrs.frozen(kw_only=True)
class Refusal:
    code: RefusalCode
    message: str
    """Names the field or profile and says what the caller can do."""


@attrs.frozen(kw_only=True)
class StartVm:
    vm_id: str
    profile: str
    as_shell: bool = False


@attrs.frozen(kw_only=True)
class FillShell:
    """Make a VM of the shell."""

    vm_id: str


@attrs.frozen(kw_only=True)
class HandOutVm:
    vm_id: str
    order: HandOutOrder


@attrs.frozen(kw_only=True)
class AdoptVm:
    """Adopt a VM of an earlier run: leased, or as a base VM, which waits for its ReachVm."""

    vm_id: str
    profile: str


@attrs.frozen(kw_only=True)
class ReachVm:
    """Connect to this base VM now to adopt it; a VmReady or VmLost fact answers."""

    vm_id: str


@attrs.frozen(kw_only=True)
class CheckVm:
    """Check its agent; a VmHealthy or VmLost fact answers."""

    vm_id: str


@attrs.frozen(kw_only=True)
class StopVm:
    vm_id: str
    reason: StopReason
    detail: str = ""
    """A sentence for people."""


@attrs.frozen(kw_only=True)
class DetachVm:
    """Let go of the living VM, for the next run of the service or because it was given away."""

    vm_id: str


@attrs.frozen(kw_only=True)
class Grant:
    request_id: int
    lease: Lease


@attrs.frozen(kw_only=True)
class Refuse:
    request_id: int
    refusal: Refusal


@attrs.frozen(kw_only=True)
class Confirm:
    """The request is done; its answer is empty."""

    request_id: int


@attrs.frozen(kw_only=True)
class LeaseEnded:
    """Wakes the calls that wait for the end of the lease; `Ledger.find_lease` returns how it ended."""

    lease_id: str


@attrs.frozen(kw_only=True)
class ConfirmRenewal:
    request_id: int
    lease: Lease
    """After the renewal."""


@attrs.frozen(kw_only=True)
class RecordExpiry:
    """Record a lease's new expiry on disk; it applies once a RenewalRecorded event confirms the write."""

    vm_id: str
    expires_at: float
    renewal: RenewRequested | HeldAnew


@attrs.frozen(kw_only=True)
class Tell:
    """News for watchers, the log and the metrics."""

    news: News


@attrs.frozen(kw_only=True)
class ProfileClosed:
    """A passing profile has no VM and no claim left, and is forgotten."""

    profile: str


Effect = (
    StartVm
    | AdoptVm
    | ReachVm
    | FillShell
    | CheckVm
    | HandOutVm
    | StopVm
    | DetachVm
    | Grant
    | Refuse
    | Confirm
    | ConfirmRenewal
    | RecordExpiry
    | LeaseEnded
    | Tell
    | ProfileClosed
)
