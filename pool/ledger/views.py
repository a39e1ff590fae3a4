"""What the ledger shows of a profile."""

from __future__ import annotations

import enum
from collections import Counter

import attrs

from pool.ledger.reasons import StopReason


class CircuitState(enum.Enum):
    """Whether production is believed to work."""

    CLOSED = "closed"
    OPEN = "open"
    """It failed too often in a row: nothing is tried until the back-off is over."""
    HALF_OPEN = "half_open"
    """One trial at a time is made."""


@attrs.define(kw_only=True)
class Counters:
    """Since the service started."""

    hits: int = 0
    """Claims that found a ready VM."""
    misses: int = 0
    """Claims that had to wait or were refused because nothing was ready."""
    granted: int = 0
    refused: int = 0
    produced: int = 0
    adopted: int = 0
    """Of those produced, how many an earlier run of the service had made."""
    restored: int = 0
    """Leases of an earlier run of the service whose VMs were still there."""
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
    """VMs that were ended or let go of, by reason."""


@attrs.frozen(kw_only=True)
class MemoryView:
    """Nominal memory of all VMs."""

    committed_mib: int
    """Until their processes are gone."""
    stopping_mib: int
    """Of that, what will be free in a moment."""
    budget_mib: float
    """Infinite: no limit."""


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
    """Started and waiting for a guest."""
    stale: int
    """Ready, but of an older generation, too old, or to be replaced by request."""
    drained: bool
    generation: str
    circuit: CircuitState
    failures_in_a_row: int
    retry_in_s: float
    """0 when the pool does not back off."""
    held_back: str
    """Why VMs that are missing are not produced now; empty if they are, or if none is missing."""
    last_error: str
    last_evidence: str
    last_production_s: float
    """Duration of the last successful production; 0 before the first."""
    counters: Counters
