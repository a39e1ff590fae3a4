"""What a VM actor says to the pool: facts, in the order in which they became true.

A VM's facts are `ShellReady` if it begins as a shell, `VmReady`, then `VmHandedOut` or `WishRefused`, then `VmSilent`
as often as that changes, then `VmLost` if it ended by itself, and always `VmGone` last. One that is adopted begins with
`VmReady`, or with `LeaseAdopted`.
"""

from __future__ import annotations

import enum

import attrs

from vmm.words.kinds import ProducerKind
from vmm.words.preparation import PreparationReport


class Obstacle(enum.Enum):
    """What stood in a request's way: from that follows what whoever asked can do."""

    REQUEST = "request"
    """It asks for what cannot be; the same again would be refused again."""
    EXHAUSTED = "exhausted"
    """There is no more of something that it takes: memory, processes, room."""
    UNABLE = "unable"
    """This guest cannot do it, whoever asks."""


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


class LossCause(enum.Enum):
    """What is the matter with a VM that is lost."""

    DEAD = "dead"
    """QEMU is gone."""
    MUTE = "mute"
    """It is there, and does not answer."""
    FAULTY = "faulty"
    """It answers, and not as it should."""


@attrs.frozen(kw_only=True)
class VmLost:
    """The VM cannot be used any more, for a reason of its own: it failed to come up, died, or failed a hand-out."""

    vm_id: str
    reason: str
    """One line."""
    cause: LossCause = LossCause.FAULTY
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
