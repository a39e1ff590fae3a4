"""What the ledger tells those who watch: every change, once, after the fact."""

from __future__ import annotations

import enum

import attrs

from pool.ledger.records import Lease
from vmm.words.life import VmState


@attrs.frozen(kw_only=True)
class VmNews:
    """A VM is in another state than before."""

    vm_id: str
    profile: str
    state: VmState
    reason: str = ""
    """Why it is being stopped; empty otherwise."""


class LeaseChange(enum.Enum):
    GRANTED = "granted"
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
    detail: str = ""
    """What became of a lease that ended, or what is known of a silent one."""


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
