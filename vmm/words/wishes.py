"""What a caller wishes for, what the pool promises, and what a VM actor is ordered to do about it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs


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

    @property
    def grows(self) -> bool:
        return self.vcpus is not None or self.memory_mib is not None


@attrs.frozen(kw_only=True)
class LeaseTerms:
    """What the pool promises with a VM. The hand-out records it with the VM, for a later run of the service."""

    lease_id: str
    owner_uid: int
    key: str = ""
    """Idempotency key; empty for none."""
    ttl_s: float = math.inf
    """From the end of the hand-out on."""
    bound: bool = False
    """Held open by a client's call."""
    fencing_token: int = 0
    queued_s: float = 0.0
    was_ready: bool = False


@attrs.frozen(kw_only=True)
class HandOutOrder:
    """What a hand-out is to do, and for what lease."""

    wishes: Wishes = attrs.field(factory=Wishes)
    lease_terms: LeaseTerms
    bare: bool = False
    """The VM stays a base VM, paused: it is only let go of, so that its taker can connect. Nothing is wished for."""


@attrs.frozen(kw_only=True)
class CheckOrder:
    """Ask the agent of an idle VM whether it is there."""
