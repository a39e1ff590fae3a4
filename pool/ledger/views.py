"""The ledger's views of profiles and memory."""

from __future__ import annotations

import enum
from collections import Counter

import attrs

from pool.ledger.reasons import StopReason


class CircuitState(enum.Enum):
    """Whether production is believed to work."""

    CLOSED = "closed"
    OPEN = "open"
    """Production failed too often in a row: no VM is made until the back-off is over."""
    HALF_OPEN = "half_open"
    """One VM at a time is made as a trial."""


@attrs.define(kw_only=True)
class Counters:
    """Since the service started."""

    hits: int = 0
    """Claims that found a ready VM."""
    misses: int = 0
    """Claims that had to wait, or were refused because no VM was ready."""
    granted: int = 0
    refused: int = 0
    produced: int = 0
    adopted: int = 0
    """VMs of `produced` that an earlier run of the service had made."""
    restored: int = 0
    """Leases of an earlier run of the service whose VMs were still running."""
    production_failures: int = 0
    lost_idle: int = 0
    lost_leased: int = 0
    hand_out_failures: int = 0
    lost_shells: int = 0
    rolled: int = 0
    """Stale VMs that were stopped, to be replaced by ones of the current generation."""
    evicted: int = 0
    """Idle VMs that were stopped by request, or because memory was needed."""
    stopped: Counter[StopReason] = attrs.field(factory=Counter)
    """VMs that were ended or detached, by reason."""


@attrs.frozen(kw_only=True)
class MemoryView:
    """Nominal memory of all VMs."""

    committed_mib: int
    """Of all VMs, until their processes are gone."""
    stopping_mib: int
    """The part of `committed_mib` whose VMs are stopping."""
    budget_mib: float
    """Infinity: no limit."""


@attrs.frozen(kw_only=True)
class ProfileView:
    """A profile as `status` shows it. Times are seconds from now."""

    name: str
    size: int
    ready: int
    producing: int
    handing_out: int
    leased: int
    stopping: int
    waiting: int
    shells: int
    """QEMU processes that wait for a guest."""
    stale: int
    """Ready VMs that are to be replaced: of an older generation, too old, or by request."""
    drained: bool
    generation: str
    circuit: CircuitState
    failures_in_a_row: int
    retry_in_s: float
    """0 if the pool does not back off."""
    held_back: str
    """Why missing VMs are not being produced; empty if they are, or if none is missing."""
    last_error: str
    last_evidence: str
    last_production_s: float
    """Duration of the last successful production; 0 before the first."""
    counters: Counters
