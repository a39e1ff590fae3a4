"""The facts that a VM actor reports to the pool, in the order in which they became true.

A VM's facts are `ShellReady` if it begins as a shell, `VmReady`, then `VmHandedOut` or `WishRefused`, then `VmSilent`
at each change, then `VmLost` if it ended by itself, and always `VmGone` last. An adopted VM begins with `VmReady` or
`LeaseAdopted`.
"""

from __future__ import annotations

import enum

import attrs

from vmm.words.kinds import ProducerKind
from vmm.words.preparation import PreparationReport


class Obstacle(enum.Enum):
    """The kind of a refusal, from which the caller sees what to do."""

    REQUEST = "request"
    """The request is invalid; the same request would be refused again."""
    EXHAUSTED = "exhausted"
    """A resource is exhausted: memory, processes, space."""
    UNABLE = "unable"
    """This guest cannot fulfil it for any caller."""


@attrs.frozen(kw_only=True)
class HandOutTimings:
    """Where the time of a hand-out went, in seconds."""

    grow_s: float = 0.0
    """Hot-adding CPUs and memory, before the guest runs."""
    resume_s: float
    """From the first command until QEMU reported that the vCPUs run."""
    prepare_s: float
    """From writing the combined request until the guest's answer; overlaps `resume_s`."""
    total_s: float


@attrs.frozen(kw_only=True)
class ShellReady:
    """A process waits for its guest."""

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
    """An earlier run of the service made the VM. `production_s` is the time that the adoption took."""


@attrs.frozen(kw_only=True)
class VmHealthy:
    """The agent of an idle VM answered a check."""

    vm_id: str


@attrs.frozen(kw_only=True)
class LeaseAdopted:
    """The VM of a lease that an earlier run of the service granted runs, and is watched."""

    vm_id: str
    pid: int


@attrs.frozen(kw_only=True)
class VmHandedOut:
    """The VM is the caller's, and recorded as such."""

    vm_id: str
    report: PreparationReport
    timings: HandOutTimings


@attrs.frozen(kw_only=True)
class WishRefused:
    """The guest or QEMU refused a wish of the caller. Without the wish the VM would have been handed out, and another
    VM would refuse it, too. The VM is half prepared and waits for its end.
    """

    vm_id: str
    field: str
    """The wish's name in the caller's request: `files[0].path`."""
    reason: str
    """One line."""
    obstacle: Obstacle = Obstacle.REQUEST


@attrs.frozen(kw_only=True)
class VmSilent:
    """The guest of a leased VM has not answered for a while, or answers again."""

    vm_id: str
    detail: str
    """Empty if it answers again."""


class LossCause(enum.Enum):
    """Why a VM is lost."""

    DEAD = "dead"
    """QEMU is gone."""
    MUTE = "mute"
    """QEMU runs, and does not answer."""
    FAULTY = "faulty"
    """The VM answers wrongly."""


@attrs.frozen(kw_only=True)
class VmLost:
    """The VM failed: it did not come up, died, or failed a hand-out."""

    vm_id: str
    reason: str
    """One line."""
    cause: LossCause = LossCause.FAULTY
    evidence: str = ""
    """QEMU's argv, stderr and console tails, as far as they are known; many lines."""


@attrs.frozen(kw_only=True)
class VmGone:
    """Process dead, files removed; nothing of the VM is left on the host.

    `error` is set if the end could not be verified: it says what was tried and what is left.
    """

    vm_id: str
    error: str | None = None
    let_go: bool = False
    """The VM was detached: it runs on, and its record exists for a later run of the service."""


VmFact = ShellReady | VmReady | VmHealthy | LeaseAdopted | VmHandedOut | WishRefused | VmSilent | VmLost | VmGone
