"""Why a VM is ended, or let go of."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from pool.ledger.records import EndReason
from vmm.words.facts import LossCause


class StopReason(enum.Enum):
    """One word for logs, watchers and counters; a sentence with the particulars may go with it."""

    # The pool has no use for it.
    DRAIN = "drain"
    """Its profile is drained."""
    RESIZE = "resize"
    """The pool was made smaller."""
    DEMAND = "demand"
    """The pool is smaller because demand is less."""
    SURPLUS = "surplus"
    """The pool has its number without it: it was made for a caller who got another, or beside one that was replaced."""
    MEMORY = "memory"
    """A claim or the host needs its memory, or the budget is smaller than before."""
    ADMIN = "admin"
    """Its eviction was requested."""

    # Another one takes its place.
    STALE = "stale"
    """It is of an older generation."""
    AGE = "age"
    """It has been idle for too long."""
    REPLACED = "replaced"
    """Its replacement was requested."""

    # It is of no use to anybody.
    DEAD = "dead"
    """QEMU ended by itself."""
    MUTE = "mute"
    """Its agent, or QEMU, does not answer."""
    FAULTY = "faulty"
    """It answered, and not as it should."""
    PRODUCTION = "production"
    """It did not come up."""
    HAND_OUT = "hand_out"
    """It could not be made a caller's."""

    # Its hand-out was begun for a caller who does not get it.
    WISH = "wish"
    """The guest refused what the caller wished."""
    DEADLINE = "deadline"
    """The caller's deadline passed."""

    # Its lease has ended.
    RELEASED = "released"
    EXPIRED = "expired"
    ABANDONED = "abandoned"
    """The caller went away, with the lease in hand or before."""

    # The service ends.
    SHUTDOWN = "shutdown"

    # It lives on.
    HANDED_OVER = "handed_over"
    """To the next run of the service."""
    GIVEN_AWAY = "given_away"
    """It is its taker's alone."""


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
"""With the sentence that goes with each."""

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
"""For the VM of a lease that was taken back."""
