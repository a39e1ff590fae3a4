"""The ledger's news: every change of a VM, lease or profile, once, after the fact."""

from __future__ import annotations

import enum

import attrs

from pool.ledger.reasons import StopReason
from pool.ledger.records import EndReason, Lease
from vmm.words.kinds import ProducerKind
from vmm.words.life import VmState


@attrs.frozen(kw_only=True)
class VmNews:
    """A VM has changed its state."""

    vm_id: str
    profile: str
    state: VmState
    was: VmState | None = None
    """None for a new VM."""
    made_by: ProducerKind = ProducerKind.DIRECT
    """Valid once the VM is ready."""
    production_s: float | None = None
    """Set when the VM has become ready, unless it was adopted."""
    reason: StopReason | None = None
    """Why it is being ended or detached."""
    detail: str = ""
    """A sentence about the reason. Every user may watch, so it does not name the VM's user."""


class LeaseChange(enum.Enum):
    GRANTED = "granted"
    RESTORED = "restored"
    """The VM of a lease from an earlier run was adopted."""
    RENEWED = "renewed"
    SILENT = "silent"
    """The guest does not answer; the lease goes on."""
    ANSWERING = "answering"
    """The guest answers again."""
    ENDED = "ended"


@attrs.frozen(kw_only=True)
class LeaseNews:
    lease: Lease
    """After the change; of an ended lease, as it was last."""
    change: LeaseChange
    reason: EndReason | None = None
    """How the lease ended."""
    detail: str = ""
    """A sentence about the end, or what is known about a silent lease."""


class ProfileChange(enum.Enum):
    RESIZED = "resized"
    DRAINED = "drained"
    UNDRAINED = "undrained"
    GENERATION = "generation"
    CIRCUIT = "circuit"
    HOST_MEMORY = "host_memory"


@attrs.frozen(kw_only=True)
class ProfileNews:
    profile: str
    """Empty for a change that concerns all profiles."""
    change: ProfileChange
    detail: str


News = VmNews | LeaseNews | ProfileNews
