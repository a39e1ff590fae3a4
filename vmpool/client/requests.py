"""What the SDK is asked for. Records of its own: a program that uses it imports no class of the service."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs


class OnEmpty(enum.Enum):
    """What the caller wants when nothing is ready."""

    WAIT = "wait"
    """Until the deadline. Users take turns; of one user who came first is served first."""
    FAIL = "fail"
    """At once."""
    BOOT = "boot"
    """Produce one more than the pool's size, as soon as there is room; fail if that production fails."""


@attrs.frozen(kw_only=True)
class GuestFile:
    """A file for the guest, written before the lease is given."""

    path: str
    data: bytes = attrs.field(repr=False)
    mode: int = 0o644


@attrs.frozen(kw_only=True)
class Wishes:
    """What a caller wants of its VM beyond what the base has; what is not wished for stays as the base has it.

    It is bound at hand-out, so that no secret is ever part of a template.
    """

    vcpus: int | None = None
    memory_mib: int | None = None
    hostname: str = ""
    """Empty for the VM's id."""
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """For every command that runs in it later."""
    files: tuple[GuestFile, ...] = ()
