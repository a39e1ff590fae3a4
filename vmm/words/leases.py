"""What a caller asks of a lease, what the pool promises with it, and what a VM actor is ordered to do about that."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from vmm.words.wishes import Wishes


@attrs.frozen(kw_only=True)
class LeaseRequest:
    """All that a caller asks of the lease and its VM. It travels whole, from the edge to the lease and its record."""

    key: str = ""
    """Idempotency key; empty for none."""
    ttl_s: float = math.inf
    """How long the lease lives without being renewed, from the end of the hand-out on."""
    bound: bool = False
    """It ends with the call that holds it open."""
    bare: bool = False
    """The VM is to be given away as it is: paused, nothing of the service connected to it. No wishes, no key."""
    labels: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    """The caller's own marks; they mean nothing here."""
    wishes: Wishes = attrs.field(factory=Wishes)
    """Of the VM. They are forgotten once they are fulfilled: see `LeaseTerms.fulfilled`."""


@attrs.frozen(kw_only=True)
class LeaseTerms:
    """What the pool promises with a VM. The hand-out records it with the VM, for a later run of the service."""

    lease_id: str
    owner_uid: int
    request: LeaseRequest = attrs.field(factory=LeaseRequest)
    fencing_token: int = 0
    """Greater than that of every lease that had been granted when a VM was chosen for this one, so that whoever guards
    something else can turn away the holder of an older one."""
    queued_s: float = 0.0
    """From the request's arrival until a VM was chosen for it."""
    was_ready: bool = False
    """A VM was ready when the request arrived: the pool's hit."""

    def fulfilled(self) -> LeaseTerms:
        """As they are kept with the lease: without the wishes, which may hold secrets and whole files."""
        return attrs.evolve(self, request=attrs.evolve(self.request, wishes=Wishes()))


@attrs.frozen(kw_only=True)
class HandOutOrder:
    """Hand the VM out on these terms. One that is asked for bare stays a base VM, paused: it is only let go of, so that
    its taker can connect.
    """

    terms: LeaseTerms


@attrs.frozen(kw_only=True)
class CheckOrder:
    """Ask the agent of an idle VM whether it is there."""
