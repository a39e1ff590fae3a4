"""What a VM actor says to the pool: facts, in the order in which they became true.

A VM's facts are `ShellReady` if it begins as a shell, `VmReady`, then `VmHandedOut` or `WishRefused`, then `VmSilent`
as often as that changes, then `VmLost` if it ended by itself, and always `VmGone` last. One that is adopted begins with
`VmReady`, or with `LeaseAdopted`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from actors.kinds import ProducerKind
from vmm.contract import PreparationReport
from vmm.errors import Obstacle


@attrs.frozen(kw_only=True)
class HandOutTimings:
    """Where the time of a hand-out went, in seconds."""

    grow_s: float = 0.0
    """Hot-adding CPUs and memory, before the guest runs."""
    resume_s: float
    """From the first command until QEMU said that the vCPUs run."""
    prepare_s: float
    """From writing the combined request until the guest's answer; overlaps `resume_s`."""
    total_s: float


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


@attrs.frozen(kw_only=True)
class ShellReady:
    """A process that waits for its guest."""

    vm_id: str
    pid: int
    generation: str


@attrs.frozen(kw_only=True)
class VmReady:
    """Paused, agent-checked and recorded. `production_s` is from the order to now, queueing excluded."""

    vm_id: str
    pid: int
    production_s: float
    generation: str = ""
    """See `actors.producer.BaseVm`."""
    made_by: ProducerKind = ProducerKind.DIRECT
    adopted: bool = False
    """An earlier run of the service made it. `production_s` is what it took to see that it is still good."""


@attrs.frozen(kw_only=True)
class VmHealthy:
    """The agent of an idle VM was asked, and answered."""

    vm_id: str


@attrs.frozen(kw_only=True)
class LeaseAdopted:
    """The VM of a lease that an earlier run of the service granted: its process is there, and is watched."""

    vm_id: str
    pid: int


@attrs.frozen(kw_only=True)
class VmHandedOut:
    """The caller's, and recorded as such."""

    vm_id: str
    report: PreparationReport
    timings: HandOutTimings


@attrs.frozen(kw_only=True)
class WishRefused:
    """The guest, or QEMU, did not do what the caller wishes: nobody else would have noticed, and another VM would do
    the same. The VM is half prepared and waits for its end.
    """

    vm_id: str
    field: str
    """Which wish, as the caller's request has it: `files[0].path`."""
    reason: str
    """One line."""
    obstacle: Obstacle = Obstacle.REQUEST


@attrs.frozen(kw_only=True)
class VmSilent:
    """The guest of a leased VM has not answered for a while, or answers again."""

    vm_id: str
    detail: str
    """Empty if it answers again."""


@attrs.frozen(kw_only=True)
class VmLost:
    """The VM cannot be used any more, for a reason of its own: it failed to come up, died, or failed a hand-out."""

    vm_id: str
    reason: str
    """One line."""
    evidence: str = ""
    """QEMU's argv, stderr and console tails, as far as they are known; many lines."""


@attrs.frozen(kw_only=True)
class VmGone:
    """Process dead, files removed; nothing of the VM is left on the host.

    `error` is set when the end could not be verified: what was tried and what is left.
    """

    vm_id: str
    error: str | None = None
    let_go: bool = False
    """Nothing of the above: it runs on and its record is there, for a later run of the service."""


VmFact = ShellReady | VmReady | VmHealthy | LeaseAdopted | VmHandedOut | WishRefused | VmSilent | VmLost | VmGone
