"""What the ledger wants done. The coordinator does it, in order, without waiting."""

from __future__ import annotations

import enum

import attrs

from actors.messages import Wishes
from pool.ledger.records import Lease


class RefusalCode(enum.Enum):
    UNKNOWN_PROFILE = "unknown_profile"
    NOTHING_READY = "nothing_ready"
    DEADLINE = "deadline"
    PRODUCTION_FAILED = "production_failed"
    HAND_OUT_FAILED = "hand_out_failed"
    DRAINING = "draining"
    OVER_MAXIMUM = "over_maximum"
    KEY_REUSED = "key_reused"
    UNKNOWN_LEASE = "unknown_lease"
    FOREIGN_LEASE = "foreign_lease"
    LEASE_ENDED = "lease_ended"


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
    wishes: Wishes = attrs.field(factory=Wishes)


@attrs.frozen(kw_only=True)
class StopVm:
    vm_id: str
    reason: str


@attrs.frozen(kw_only=True)
class Grant:
    request_id: int
    lease: Lease


@attrs.frozen(kw_only=True)
class Refuse:
    request_id: int
    refusal: Refusal


@attrs.frozen(kw_only=True)
class ConfirmRelease:
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


Effect = StartVm | FillShell | HandOutVm | StopVm | Grant | Refuse | ConfirmRelease | ConfirmRenewal | LeaseEnded
