"""The words that the service says: each is its value, so that it compares and prints as that.

UNKNOWN is what a newer service says and this SDK has no word for.
"""

from __future__ import annotations

import enum


class ProducerKind(enum.StrEnum):
    UNKNOWN = "unknown"
    DIRECT = "direct"
    """Each VM is booted."""
    TEMPLATE = "template"
    """VMs are cloned from a template."""


class VmState(enum.StrEnum):
    UNKNOWN = "unknown"
    PRODUCING = "producing"
    ADOPTING = "adopting"
    """An earlier run of the service made it; it is found out whether it is still good."""
    SHELL = "shell"
    """A process that waits for a guest."""
    READY = "ready"
    HANDING_OUT = "handing_out"
    LEASED = "leased"
    STOPPING = "stopping"
    GONE = "gone"


class StopReason(enum.StrEnum):
    """Why a VM is ended, or let go of."""

    UNKNOWN = "unknown"
    DRAIN = "drain"
    """Its profile is drained."""
    RESIZE = "resize"
    """The pool was made smaller."""
    DEMAND = "demand"
    """The pool is smaller because demand is less."""
    SURPLUS = "surplus"
    """The pool has its number without it."""
    MEMORY = "memory"
    """A claim or the host needs its memory, or the budget is smaller than before."""
    ADMIN = "admin"
    """Its eviction was asked for."""
    STALE = "stale"
    """It is of an older generation."""
    AGE = "age"
    """It has been idle for too long."""
    REPLACED = "replaced"
    """Its replacement was asked for."""
    DEAD = "dead"
    """QEMU ended by itself."""
    MUTE = "mute"
    """It does not answer."""
    FAULTY = "faulty"
    """It answered, and not as it should."""
    PRODUCTION = "production"
    """It did not come up."""
    HAND_OUT = "hand_out"
    """It could not be made a caller's."""
    WISH = "wish"
    """The guest refused what the caller wished."""
    DEADLINE = "deadline"
    """The caller's deadline passed."""
    RELEASED = "released"
    EXPIRED = "expired"
    ABANDONED = "abandoned"
    """The caller went away, with the lease in hand or before."""
    SHUTDOWN = "shutdown"
    HANDED_OVER = "handed_over"
    """It lives on, for the next run of the service."""
    GIVEN_AWAY = "given_away"
    """It lives on, and is its taker's alone."""


class EndReason(enum.StrEnum):
    """How a lease ended."""

    UNKNOWN = "unknown"
    RELEASED = "released"
    EXPIRED = "expired"
    VM_LOST = "vm_lost"
    ABANDONED = "abandoned"
    """The caller went away before it had the lease in hand, or while it held it open."""
    SHUTDOWN = "shutdown"
    GIVEN_AWAY = "given_away"
    """The VM lives on, and is its taker's alone."""


class CircuitState(enum.StrEnum):
    """Whether production of a profile is believed to work."""

    UNKNOWN = "unknown"
    CLOSED = "closed"
    OPEN = "open"
    """It failed too often in a row: nothing is tried until the back-off is over."""
    HALF_OPEN = "half_open"
    """One trial at a time is made."""


class LeaseChangeKind(enum.StrEnum):
    UNKNOWN = "unknown"
    GRANTED = "granted"
    RESTORED = "restored"
    """The VM of an earlier run's lease was found."""
    RENEWED = "renewed"
    SILENT = "silent"
    """Its guest does not answer, and the lease goes on."""
    ANSWERING = "answering"
    """It does again."""
    ENDED = "ended"


class ProfileChangeKind(enum.StrEnum):
    UNKNOWN = "unknown"
    RESIZED = "resized"
    DRAINED = "drained"
    UNDRAINED = "undrained"
    GENERATION = "generation"
    """VMs of another generation are produced from now on."""
    CIRCUIT = "circuit"
    HOST_MEMORY = "host_memory"
