"""What the ledger tells those who watch: every change, once, after the fact."""

from __future__ import annotations

import enum

import attrs

from pool.ledger.reasons import StopReason
from pool.ledger.records import EndReason, Lease
from vmm.words.kinds import ProducerKind
from vmm.words.life import VmState


@attrs.frozen(kw_only=True)
class VmNews:
    """A VM is in another state than before."""

    vm_id: str
    profile: str
    state: VmState
    was: VmState | None = None
    """None: it is new."""
    made_by: ProducerKind = ProducerKind.DIRECT
    """Once it is ready."""
    production_s: float | None = None
    """When it has become ready, unless it was adopted."""
    reason: StopReason | None = None
    """Why it is being ended, or let go of."""
    detail: str = ""
    """A sentence about that. Everybody may watch: it says nothing of whose VM it was."""


class LeaseChange(enum.Enum):
    GRANTED = "granted"
    RESTORED = "restored"
    """The VM of an earlier run's lease was found."""
    RENEWED = "renewed"
    SILENT = "silent"
    """Its VM's guest does not answer. The lease goes on."""
    ANSWERING = "answering"
    """It does again."""
    ENDED = "ended"


@attrs.frozen(kw_only=True)
class LeaseNews:
    lease: Lease
    """As it is after the change, or was when it ended."""
    change: LeaseChange
    reason: EndReason | None = None
    """Of its end."""
    detail: str = ""
    """More about that, or what is known of a silent one."""


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
    """Empty for what concerns all of them."""
    change: ProfileChange
    detail: str


News = VmNews | LeaseNews | ProfileNews
