"""A lease's request, its terms, and the orders that follow from them to a VM actor."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from vmm.words.wishes import Wishes


@attrs.frozen(kw_only=True)
class LeaseRequest:
    """A caller's whole request for a lease and its VM, passed unchanged from the RPC to the lease and its record."""

    key: str = ""
    """Idempotency key; empty for none."""
    ttl_s: float = math.inf
    """How long the lease lives without being renewed, from the end of the hand-out on."""
    bound: bool = False
    """The lease ends with the call that holds it open."""
    bare: bool = False
    """The VM is to be given away as it is: paused, without a connection of the service. No wishes, no key."""
    name: str = ""
    """By which its owner finds the lease again; empty for none. Of the leases of one owner, one has it."""
    labels: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    """The caller's own marks, without a meaning to the service."""
    wishes: Wishes = attrs.field(factory=Wishes)
    """For the VM. They are dropped once they are fulfilled: see `LeaseTerms.fulfilled`."""


@attrs.frozen(kw_only=True)
class LeaseTerms:
    """The pool's terms for a VM. The hand-out records them with the VM, for a later run of the service."""

    lease_id: str
    owner_uid: int
    request: LeaseRequest = attrs.field(factory=LeaseRequest)
    fencing_token: int = 0
    """A fencing token: greater than that of every lease granted before a VM was chosen for this one, so that another
    resource can refuse the holder of an older lease."""
    queued_s: float = 0.0
    """From the request's arrival until a VM was chosen for it."""
    was_ready: bool = False
    """A VM was ready when the request arrived: the pool's hit."""

    def fulfilled(self) -> LeaseTerms:
        """The terms to keep with the lease: without the wishes, which may hold secrets and whole files."""
        return attrs.evolve(self, request=attrs.evolve(self.request, wishes=Wishes()))


@attrs.frozen(kw_only=True)
class HandOutOrder:
    """Hand the VM out on these terms. A bare VM stays a paused base VM and is only disconnected, so that its taker can
    connect.
    """

    terms: LeaseTerms


@attrs.frozen(kw_only=True)
class CheckOrder:
    """Check that the agent of an idle VM answers."""
