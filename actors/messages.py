"""What a VM actor says to the pool: facts, in the order in which they became true.

A VM's facts are `VmReady`, then `VmHandedOut`, then `VmLost` if it ended by itself, and always `VmGone` last.
"""

from __future__ import annotations

import attrs

from vmm.contract import PreparationReport


@attrs.frozen(kw_only=True)
class HandOutTimings:
    """Where the time of a hand-out went, in seconds."""

    resume_s: float
    """From the first command until QEMU said that the vCPUs run."""
    prepare_s: float
    """From writing the combined request until the guest's answer; overlaps `resume_s`."""
    total_s: float


@attrs.frozen(kw_only=True)
class VmReady:
    """Paused and agent-checked. `production_s` is from the order to now, queueing excluded."""

    vm_id: str
    pid: int
    production_s: float


@attrs.frozen(kw_only=True)
class VmHandedOut:
    vm_id: str
    report: PreparationReport
    timings: HandOutTimings


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


VmFact = VmReady | VmHandedOut | VmLost | VmGone
