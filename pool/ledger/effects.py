"""What the ledger wants done. The coordinator does it, in order, without waiting."""

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
    """Names the field and ends in what the caller can do."""


@attrs.frozen(kw_only=True)
class StartVm:
    vm_id: str
    profile: str
    as_shell: bool = False


@attrs.frozen(kw_only=True)
class FillShell:
    """The shell is to become a VM now."""

    vm_id: str


@attrs.frozen(kw_only=True)
class HandOutVm:
    vm_id: str
    order: HandOutOrder


@attrs.frozen(kw_only=True)
class AdoptVm:
    """An earlier run of the service left it: as a base VM, which waits for its turn, or leased."""

    vm_id: str
    profile: str


@attrs.frozen(kw_only=True)
class ReachVm:
    """It is this base VM's turn to be adopted; a VmReady or VmLost fact answers."""

    vm_id: str


@attrs.frozen(kw_only=True)
class CheckVm:
    """Ask its agent whether it is there; a VmHealthy or VmLost fact answers."""

    vm_id: str


@attrs.frozen(kw_only=True)
class StopVm:
    vm_id: str
    reason: StopReason
    detail: str = ""
    """A sentence for people."""


@attrs.frozen(kw_only=True)
class DetachVm:
    """Let go of it, and let it run on: for the next run of the service, or for whom it was given to."""

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
    """What was asked for is done, and there is nothing to say about it."""

    request_id: int


@attrs.frozen(kw_only=True)
class LeaseEnded:
    """For whoever waits for that; `Ledger.find_lease` says what became of it."""

    lease_id: str


@attrs.frozen(kw_only=True)
class ConfirmRenewal:
    request_id: int
    lease: Lease
    """As it is now."""


@attrs.frozen(kw_only=True)
class RecordExpiry:
    """A lease is to have another end. It has it once a RenewalRecorded event says that it is on disk."""

    vm_id: str
    expires_at: float
    renewal: RenewRequested | HeldAnew


@attrs.frozen(kw_only=True)
class Tell:
    """For those who watch."""

    news: News


@attrs.frozen(kw_only=True)
class ProfileClosed:
    """A profile that was opened for one configuration has no VM and no claim any more, and is forgotten."""

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
