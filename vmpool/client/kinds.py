"""Enums of the service's states, kinds and reasons; each member compares and prints as its value.

UNKNOWN stands for a value of a newer service that this SDK does not know.
"""

from __future__ import annotations

import enum


class ProducerKind(enum.StrEnum):
    """How the VMs of a profile are made."""

    UNKNOWN = "unknown"
    DIRECT = "direct"
    """Each VM is booted."""
    TEMPLATE = "template"
    """VMs are cloned from a template."""


class VmState(enum.StrEnum):
    """Where a VM is in its life."""

    UNKNOWN = "unknown"
    PRODUCING = "producing"
    ADOPTING = "adopting"
    """An earlier run of the service made it; the service checks whether it is still usable."""
    SHELL = "shell"
    """A QEMU process that waits for a guest."""
    READY = "ready"
    HANDING_OUT = "handing_out"
    LEASED = "leased"
    STOPPING = "stopping"
    GONE = "gone"


class StopReason(enum.StrEnum):
    """Why a VM is ended or detached."""

    UNKNOWN = "unknown"
    DRAIN = "drain"
    """Its profile is drained."""
    RESIZE = "resize"
    """The pool was made smaller."""
    DEMAND = "demand"
    """The pool is smaller because demand is less."""
    SURPLUS = "surplus"
    """The pool is full without it."""
    MEMORY = "memory"
    """A claim or the host needs its memory, or the budget is smaller than before."""
    ADMIN = "admin"
    """Its eviction was requested."""
    STALE = "stale"
    """It is of an older generation."""
    AGE = "age"
    """It has been idle for too long."""
    REPLACED = "replaced"
    """Its replacement was requested."""
    DEAD = "dead"
    """QEMU ended by itself."""
    MUTE = "mute"
    """The agent or QEMU does not answer."""
    FAULTY = "faulty"
    """An answer was invalid."""
    PRODUCTION = "production"
    """It did not come up."""
    HAND_OUT = "hand_out"
    """Its hand-out failed."""
    WISH = "wish"
    """The guest refused a setting of the caller's."""
    DEADLINE = "deadline"
    """The caller's deadline passed."""
    RELEASED = "released"
    EXPIRED = "expired"
    ABANDONED = "abandoned"
    """The caller went away, before it had the lease or while it held the lease open."""
    SHUTDOWN = "shutdown"
    HANDED_OVER = "handed_over"
    """It lives on, for the next run of the service."""
    GIVEN_AWAY = "given_away"
    """It left the service for good."""


class EndReason(enum.StrEnum):
    """How a lease ended."""

    UNKNOWN = "unknown"
    RELEASED = "released"
    EXPIRED = "expired"
    VM_LOST = "vm_lost"
    ABANDONED = "abandoned"
    """The caller went away before it had the lease, or while it held the lease open."""
    SHUTDOWN = "shutdown"
    GIVEN_AWAY = "given_away"
    """The VM lives on outside the service, which gave it away."""


class CircuitState(enum.StrEnum):
    """Whether production of a profile is believed to work."""

    UNKNOWN = "unknown"
    CLOSED = "closed"
    OPEN = "open"
    """Production failed too often in a row: no VM is made until the back-off is over."""
    HALF_OPEN = "half_open"
    """One VM at a time is made as a trial."""


class LeaseChangeKind(enum.StrEnum):
    """What happened to a lease."""

    UNKNOWN = "unknown"
    GRANTED = "granted"
    RESTORED = "restored"
    """The VM of a lease from an earlier run was adopted."""
    RENEWED = "renewed"
    SILENT = "silent"
    """The guest does not answer; the lease goes on."""
    ANSWERING = "answering"
    """The guest answers again."""
    ENDED = "ended"


class ProfileChangeKind(enum.StrEnum):
    """What happened to a profile."""

    UNKNOWN = "unknown"
    RESIZED = "resized"
    DRAINED = "drained"
    UNDRAINED = "undrained"
    GENERATION = "generation"
    """VMs of another generation are produced from now on."""
    CIRCUIT = "circuit"
    HOST_MEMORY = "host_memory"


class FileKind(enum.StrEnum):
    """What a path in the guest is."""

    UNKNOWN = "unknown"
    REGULAR = "regular"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character_device"
    BLOCK_DEVICE = "block_device"


class FileChangeKind(enum.StrEnum):
    """What happened to a watched file."""

    UNKNOWN = "unknown"
    CREATED = "created"
    MODIFIED = "modified"
    WRITTEN = "written"
    """Closed after it was open for writing."""
    ATTRIBUTES = "attributes"
    REMOVED = "removed"
    MOVED = "moved"
    """From `path` to `target`, within what is watched. Other moves are CREATED or REMOVED."""
    OVERFLOW = "overflow"
    """Changes were lost: the guest made them faster than they were read."""
