"""Arguments of the SDK's calls, as its own records: a program that uses the SDK imports no class of the service."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs


class OnEmpty(enum.Enum):
    """What to do when no VM is ready."""

    WAIT = "wait"
    """Wait until the deadline. Users take turns; the requests of one user are served in order."""
    FAIL = "fail"
    """Fail at once."""
    BOOT = "boot"
    """Produce a VM beyond the pool's size as soon as there is room; fail if its production fails."""


@attrs.frozen(kw_only=True)
class GuestFile:
    """A file for the guest, written before the VM is handed out."""

    path: str
    data: bytes = attrs.field(repr=False)
    mode: int = 0o644


@attrs.frozen(kw_only=True)
class Wishes:
    """What a caller wants in their VM beyond its profile; fields that are not set leave the profile's values.

    Applied at hand-out, so that no secret ever becomes part of a template.
    """

    vcpus: int | None = None
    memory_mib: int | None = None
    hostname: str = ""
    """Empty: the VM's id."""
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False, hash=False)
    """For every command that runs in the VM."""
    files: tuple[GuestFile, ...] = ()
