"""What the SDK hands out: frozen records, times in seconds."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from vmpool.client.kinds import (
    CircuitState,
    EndReason,
    LeaseChangeKind,
    ProducerKind,
    ProfileChangeKind,
    StopReason,
    VmState,
)


class OutputStream(enum.Enum):
    STDOUT = "stdout"
    STDERR = "stderr"


@attrs.frozen(kw_only=True)
class Output:
    stream: OutputStream
    data: bytes


@attrs.frozen(kw_only=True)
class CommandExit:
    """How a command ended: exactly one of `status` and `signal` is set."""

    status: int | None = None
    signal: int | None = None
    timed_out: bool = False
    """The time limit ended it (signal is SIGKILL then)."""
    out_of_memory: bool = False
    """The guest's kernel killed it because memory was short, or, where its status is 137 as a shell's, something while
    it ran. qemu-ga does not tell."""


@attrs.frozen(kw_only=True)
class Guest:
    """What the guest said of itself after it was prepared."""

    hostname: str
    cpus_online: int
    memory_mib: int
    reseeded: bool
    wall_clock_ns: int
    memory_online_mib: int
    machine_id: str
    vm_uuid: str


@attrs.frozen(kw_only=True)
class AcquireTimings:
    """Where the time went. `prepare_s` overlaps `resume_s`."""

    queued_s: float
    resume_s: float
    prepare_s: float
    total_s: float
    was_ready: bool
    grow_s: float


@attrs.frozen(kw_only=True)
class VmConfig:
    """A machine of one's own; what is left out is as the default profile has it. Paths are the host's.

    Paths that no profile has are for root and the service's own user.
    """

    kernel: str = ""
    initrd: str = ""
    kernel_parameters: str = ""
    cpu_model: str = ""


@attrs.frozen(kw_only=True)
class Mismatch:
    """Why the pool of a profile did not serve a configuration."""

    profile: str
    fields: tuple[str, ...]
    """Those that differ: of VmConfig, or vcpus or memory_mib where the profile's maximum is less."""


@attrs.frozen(kw_only=True)
class Match:
    """What became of a request with a configuration of its own."""

    profile: str
    """The pool that served it; empty if the VM was booted for this request."""
    mismatches: tuple[Mismatch, ...]


@attrs.frozen(kw_only=True)
class AcquiredVm:
    """A leased VM. Yours until `Client.release(lease_id)`, or until it dies."""

    lease_id: str
    vm_id: str
    profile: str
    pid: int
    made_by: ProducerKind
    expires_in_s: float | None
    """Until the lease ends by itself; None for never."""
    fencing_token: int
    """Grows with every lease; for whatever must turn away an earlier holder."""
    labels: Mapping[str, str] = attrs.field(hash=False)
    """As they were asked for when the lease was granted."""
    guest: Guest
    timings: AcquireTimings
    match: Match | None
    """None unless the request had a configuration of its own."""


@attrs.frozen(kw_only=True)
class CompletedCommand:
    exit: CommandExit
    stdout: bytes
    stderr: bytes


@attrs.frozen(kw_only=True)
class ProducerStatus:
    kind: ProducerKind
    ready: bool
    accelerator: str
    """Empty while undecided."""
    detail: str
    produced: int
    failed: int
    fallbacks: int


@attrs.frozen(kw_only=True)
class PoolCounters:
    """Since the service started."""

    hits: int
    misses: int
    granted: int
    refused: int
    produced: int
    production_failures: int
    lost_idle: int
    lost_leased: int
    hand_out_failures: int
    lost_shells: int
    rolled: int
    adopted: int
    """Idle VMs that an earlier run of the service had made."""
    restored: int
    """Leases that an earlier run had granted."""
    evicted: int
    """Idle VMs that were stopped by request, or because memory was needed."""
    stopped: Mapping[StopReason, int] = attrs.field(hash=False)
    """VMs that were ended or let go of."""


@attrs.frozen(kw_only=True)
class ProfileStatus:
    name: str
    size: int
    ready: int
    producing: int
    handing_out: int
    leased: int
    stopping: int
    waiting: int
    shells: int
    stale: int
    generation: str
    vcpus: int
    memory_mib: int
    max_vcpus: int
    max_memory_mib: int
    max_vms: int | None
    """None: no limit."""
    drained: bool
    """Nothing is handed out or produced until it is undrained."""
    producer: ProducerStatus
    circuit: CircuitState
    held_back: str
    """Why VMs that are missing are not being produced; empty if they are."""
    failures_in_a_row: int
    retry_in_s: float
    """0 when the pool does not back off."""
    last_error: str
    last_evidence: str
    """Empty unless the caller is root or the service's own user."""
    last_production_s: float
    """0 before the first."""
    counters: PoolCounters


@attrs.frozen(kw_only=True)
class LeaseStatus:
    lease_id: str
    vm_id: str
    profile: str
    owner_uid: int
    age_s: float
    expires_in_s: float | None
    labels: Mapping[str, str] = attrs.field(hash=False)


@attrs.frozen(kw_only=True)
class ConfinementLayer:
    """One of those between a QEMU that its guest has taken over and the host."""

    name: str
    """ "uid", "landlock", "seccomp", "memory-cgroup" and so on."""
    applied: bool
    detail: str
    """Why not, or how."""


@attrs.frozen(kw_only=True)
class ServiceStatus:
    version: str
    pid: int
    uptime_s: float
    draining: bool
    profiles: tuple[ProfileStatus, ...]
    leases: tuple[LeaseStatus, ...]
    """The caller's own; root sees all."""
    fallbacks: int
    """Requests with a configuration of their own that no pool could serve, since the service started."""
    confinement: tuple[ConfinementLayer, ...] = ()


@attrs.frozen(kw_only=True)
class VmChange:
    """A VM is in this state now."""

    vm_id: str
    profile: str
    state: VmState
    reason: StopReason | None
    """Why it is being ended, or let go of."""
    detail: str
    """A sentence about that."""
    age_s: float
    """In a Snapshot: since it became ready, or the shell that it was; 0 before that, and if it is not known."""


@attrs.frozen(kw_only=True)
class LeaseChange:
    lease_id: str
    """Empty for a lease of another user."""
    vm_id: str
    profile: str
    change: LeaseChangeKind
    reason: EndReason | None
    """How it ended, if it did."""
    detail: str
    """What became of a lease that ended, what is known of a silent one; empty for a lease of another user."""
    labels: Mapping[str, str] = attrs.field(hash=False)
    """Empty for a lease of another user."""
    took_s: float
    """Of one that was granted: from the arrival of the request until its VM was handed out."""


@attrs.frozen(kw_only=True)
class ProfileChange:
    profile: str
    """Empty for what concerns all."""
    change: ProfileChangeKind
    detail: str


@attrs.frozen(kw_only=True)
class Snapshot:
    """The pools as they are; all that was known before is replaced by it."""

    profiles: tuple[ProfileStatus, ...]
    vms: tuple[VmChange, ...]
    leases: tuple[LeaseStatus, ...]
    """The caller's own; root sees all."""


Change = Snapshot | VmChange | LeaseChange | ProfileChange
