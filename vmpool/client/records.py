"""The SDK's records, frozen; times are in seconds."""

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
    """The guest's kernel killed the command or, if the status is 137, as a shell reports it, a child of the command,
    because the guest ran out of memory. qemu-ga does not report this."""


@attrs.frozen(kw_only=True)
class Guest:
    """The guest's own report after it was prepared."""

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
    """How long the stages of an acquisition took. `prepare_s` overlaps `resume_s`."""

    queued_s: float
    resume_s: float
    prepare_s: float
    total_s: float
    was_ready: bool
    grow_s: float


@attrs.frozen(kw_only=True)
class VmConfig:
    """A machine of the caller's own; empty fields take the default profile's values. Paths are the host's.

    Paths that no profile uses are for root and the service's own user.
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
    """The fields that differ: of VmConfig, or vcpus or memory_mib if they exceed the profile's maximum."""


@attrs.frozen(kw_only=True)
class Match:
    """How a request with a configuration of its own was served."""

    profile: str
    """The pool that served it; empty if the VM was booted for this request."""
    mismatches: tuple[Mismatch, ...]


@attrs.frozen(kw_only=True)
class AcquiredVm:
    """A leased VM. The lease lasts until `Client.release(lease_id)`, until it expires, or until the VM dies."""

    lease_id: str
    vm_id: str
    profile: str
    pid: int
    made_by: ProducerKind
    expires_in_s: float | None
    """Until the lease expires; None for never."""
    fencing_token: int
    """Grows with every lease; for a resource that must refuse earlier holders."""
    labels: Mapping[str, str] = attrs.field(hash=False)
    """As given when the lease was acquired."""
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
    """No VM is handed out or produced until the profile is undrained."""
    producer: ProducerStatus
    circuit: CircuitState
    held_back: str
    """Why missing VMs are not being produced; empty if they are, or if none is missing."""
    failures_in_a_row: int
    retry_in_s: float
    """0 if the pool does not back off."""
    last_error: str
    last_evidence: str
    """Empty unless the caller is root or the service's own user."""
    last_production_s: float
    """Duration of the last successful production; 0 before the first."""
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
    """One of the layers that confine QEMU."""

    name: str
    """ "uid", "landlock", "seccomp", "memory-cgroup" and so on."""
    applied: bool
    detail: str
    """Why the layer is not applied, or how it is."""


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
    """A VM's new state."""

    vm_id: str
    profile: str
    state: VmState
    reason: StopReason | None
    """Why it is being ended or detached."""
    detail: str
    """A sentence about the reason."""
    age_s: float
    """In a Snapshot: since it became ready or, if it is a shell, since it started; 0 before that, or if unknown."""


@attrs.frozen(kw_only=True)
class LeaseChange:
    lease_id: str
    """Empty for a lease of another user."""
    vm_id: str
    profile: str
    change: LeaseChangeKind
    reason: EndReason | None
    """How the lease ended, if it did."""
    detail: str
    """How a lease ended, or what is known about a silent one; empty for a lease of another user."""
    labels: Mapping[str, str] = attrs.field(hash=False)
    """Empty for a lease of another user."""
    took_s: float
    """Of a granted lease: from the arrival of the request until its VM was handed out."""


@attrs.frozen(kw_only=True)
class ProfileChange:
    profile: str
    """Empty for a change that concerns all profiles."""
    change: ProfileChangeKind
    detail: str


@attrs.frozen(kw_only=True)
class Snapshot:
    """The current state of the pools, which replaces all earlier changes."""

    profiles: tuple[ProfileStatus, ...]
    vms: tuple[VmChange, ...]
    leases: tuple[LeaseStatus, ...]
    """The caller's own; root sees all."""


Change = Snapshot | VmChange | LeaseChange | ProfileChange
