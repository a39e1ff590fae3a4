"""What the SDK hands out: frozen records, times in seconds."""

from __future__ import annotations

import attrs

from vmm.contract import CommandExit


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
class AcquiredVm:
    """A leased VM. Yours until `Client.release(lease_id)`, or until it dies."""

    lease_id: str
    vm_id: str
    profile: str
    pid: int
    made_by: str
    """ "template" or "direct"."""
    expires_in_s: float | None
    """Until the lease ends by itself; None for never."""
    fencing_token: int
    """Grows with every lease; for whatever must turn away an earlier holder."""
    guest: Guest
    timings: AcquireTimings


@attrs.frozen(kw_only=True)
class CompletedCommand:
    exit: CommandExit
    stdout: bytes
    stderr: bytes


@attrs.frozen(kw_only=True)
class ProducerStatus:
    kind: str
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
    producer: ProducerStatus
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


@attrs.frozen(kw_only=True)
class ServiceStatus:
    version: str
    pid: int
    uptime_s: float
    draining: bool
    profiles: tuple[ProfileStatus, ...]
    leases: tuple[LeaseStatus, ...]
    """The caller's own; root sees all."""
