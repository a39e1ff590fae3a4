"""Why a VM is ended or detached."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from pool.ledger.records import EndReason
from vmm.words.facts import LossCause


class StopReason(enum.Enum):
    """One word for logs, watchers and counters; a sentence with details may accompany it."""

    # The pool has no use for it.
    DRAIN = "drain"
    """Its profile is drained."""
    RESIZE = "resize"
    """The pool was made smaller."""
    DEMAND = "demand"
    """The pool is smaller because demand is less."""
    SURPLUS = "surplus"
    """The pool is full without it: it was made for a caller who got another VM, or to replace a stale VM."""
    MEMORY = "memory"
    """A claim or the host needs its memory, or the budget is smaller than before."""
    ADMIN = "admin"
    """Its eviction was requested."""

    # It is replaced.
    STALE = "stale"
    """It is of an older generation."""
    AGE = "age"
    """It has been idle for too long."""
    REPLACED = "replaced"
    """Its replacement was requested."""

    # It is unusable.
    DEAD = "dead"
    """QEMU ended by itself."""
    MUTE = "mute"
    """Its agent, or QEMU, does not answer."""
    FAULTY = "faulty"
    """An answer was invalid."""
    PRODUCTION = "production"
    """It did not come up."""
    HAND_OUT = "hand_out"
    """Its hand-out failed."""

    # Its hand-out ended without a lease.
    WISH = "wish"
    """The guest refused a setting of the caller's."""
    DEADLINE = "deadline"
    """The caller's deadline passed."""

    # Its lease has ended.
    RELEASED = "released"
    EXPIRED = "expired"
    ABANDONED = "abandoned"
    """The caller went away, before it had the lease or while it held the lease open."""

    # The service ends.
    SHUTDOWN = "shutdown"

    # It lives on.
    HANDED_OVER = "handed_over"
    """To the next run of the service."""
    GIVEN_AWAY = "given_away"
    """It left the service for good."""


EVICTIONS: Final = frozenset(
    {
        StopReason.DRAIN,
        StopReason.RESIZE,
        StopReason.DEMAND,
        StopReason.SURPLUS,
        StopReason.MEMORY,
        StopReason.ADMIN,
    }
)

REPLACEMENTS: Final[Mapping[StopReason, str]] = {
    StopReason.STALE: "it is of an older generation",
    StopReason.AGE: "it has been idle for too long",
    StopReason.REPLACED: "its replacement was requested",
}
"""Reasons for a replacement, each with its sentence."""

LOSSES: Final = frozenset(
    {StopReason.DEAD, StopReason.MUTE, StopReason.FAULTY, StopReason.PRODUCTION, StopReason.HAND_OUT}
)

OF_CAUSE: Final[Mapping[LossCause, StopReason]] = {
    LossCause.DEAD: StopReason.DEAD,
    LossCause.MUTE: StopReason.MUTE,
    LossCause.FAULTY: StopReason.FAULTY,
}

OF_LEASE: Final[Mapping[EndReason, StopReason]] = {
    EndReason.RELEASED: StopReason.RELEASED,
    EndReason.EXPIRED: StopReason.EXPIRED,
    EndReason.ABANDONED: StopReason.ABANDONED,
    EndReason.SHUTDOWN: StopReason.SHUTDOWN,
}
"""The reason to stop the VM of an ended lease."""
