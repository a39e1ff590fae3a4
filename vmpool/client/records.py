"""The SDK's records, frozen; times are in seconds."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import AnyStr, Generic

import attrs

from vmpool.client.kinds import (
    CircuitState,
    EndReason,
    FileChangeKind,
    FileKind,
    LeaseChangeKind,
    ProducerKind,
    ProfileChangeKind,
    StopReason,
    VmState,
)


class OutputStream(enum.Enum):
    """Which of a command's two outputs."""

    STDOUT = "stdout"
    STDERR = "stderr"


@attrs.frozen(kw_only=True)
class Output:
    """A piece of a command's output."""

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

    @property
    def ok(self) -> bool:
        """It ended by itself, with status 0."""
        return self.status == 0 and not self.timed_out

    def describe(self) -> str:
        """As the end of a sentence: "ended with status 3"."""
        if self.timed_out:
            return "did not end within its time limit"
        how = f"ended with status {self.status}" if self.signal is None else f"was ended by signal {self.signal}"
        return f"{how}, because the guest ran out of memory" if self.out_of_memory else how


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
    name: str = ""
    """As given when the lease was acquired; of the leases of one user, one has it."""


@attrs.frozen(kw_only=True)
class CompletedCommand(Generic[AnyStr]):
    """How a command ended, and what it wrote."""

    exit: CommandExit
    stdout: AnyStr
    stderr: AnyStr

    @property
    def status(self) -> int | None:
        """None if a signal ended it."""
        return self.exit.status

    @property
    def signal(self) -> int | None:
        return self.exit.signal

    @property
    def timed_out(self) -> bool:
        return self.exit.timed_out

    @property
    def out_of_memory(self) -> bool:
        return self.exit.out_of_memory

    @property
    def ok(self) -> bool:
        """It ended by itself, with status 0."""
        return self.exit.ok


@attrs.frozen(kw_only=True)
class ProcessInfo:
    """A process that the service started in a VM: it runs, or has ended and is kept."""

    process_id: int
    """Of the VM; never used again."""
    pid: int
    """In the guest."""
    tag: str
    """As its caller named it; empty for none."""
    argv: tuple[str, ...]
    working_directory: str
    user: str
    """Empty for root."""
    terminal: bool
    attached: bool
    """It ends with the call that runs it."""
    started_at: float
    """By the guest's clock, seconds since 1970."""
    exit: CommandExit | None
    """None while it runs."""
    stdout_end: int
    """Bytes written so far."""
    stdout_kept_from: int
    """Position of the first byte that is kept."""
    stderr_end: int
    stderr_kept_from: int


@attrs.frozen(kw_only=True)
class ProcessOutput:
    """A piece of a detached process's output."""

    stream: OutputStream
    data: bytes
    position: int
    """Of the first byte; the first one ever written has 0."""
    lost: int
    """Bytes before it that were not kept until they were read."""


@attrs.frozen(kw_only=True)
class KeptOutput:
    """The end of what a detached process wrote."""

    stdout: bytes
    stderr: bytes
    stdout_from: int
    """Position of its first byte: so many bytes before it are not kept any more."""
    stderr_from: int


@attrs.frozen(kw_only=True)
class FileInfo:
    """What a path in the guest is, and its attributes."""

    path: str
    """Bytes that are not UTF-8 are surrogates, as `os.fsdecode` has them."""
    kind: FileKind
    size: int
    mode: int
    """Permission bits, with setuid, setgid and sticky."""
    uid: int
    gid: int
    user: str
    """Empty if the guest has no name for the number."""
    group: str
    modified_ns: int
    """Since 1970."""
    target: str
    """Of a symbolic link."""
    links: int
    inode: int

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def is_directory(self) -> bool:
        return self.kind is FileKind.DIRECTORY


@attrs.frozen(kw_only=True)
class FileChange:
    """What happened to a watched file, or in a watched directory."""

    kind: FileChangeKind
    path: str
    target: str
    """Where a file was moved to."""
    directory: bool


@attrs.frozen(kw_only=True)
class TreeSummary:
    """What was extracted in the guest."""

    members: int
    bytes: int


@attrs.frozen(kw_only=True)
class VmMetrics:
    """What a leased VM uses. CPU times and uptime count from its boot, or from that of its template."""

    cpus_online: int
    cpu_busy_s: float
    cpu_idle_s: float
    cpu_share: float
    """Of all CPUs, since the last time that somebody asked, or since the VM was handed out; 0 to 1."""
    memory_total_bytes: int
    memory_available_bytes: int
    """What programs could still get without swapping."""
    processes: int
    load_1m: float
    disk_total_bytes: int
    """The root file system's."""
    disk_available_bytes: int
    uptime_s: float
    wall_clock_ns: int


@attrs.frozen(kw_only=True)
class ProducerStatus:
    """What makes the VMs of a profile; the numbers are of VMs since the service started."""

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
    """The pool of a profile: how many VMs are in which state, the shape of a VM, and whether production works."""

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
    """A lease that has not ended."""

    lease_id: str
    vm_id: str
    profile: str
    owner_uid: int
    age_s: float
    expires_in_s: float | None
    labels: Mapping[str, str] = attrs.field(hash=False)
    name: str = ""


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
    """The service, its pools and its leases."""

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
    """What happened to a lease."""

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
    """What happened to a profile."""

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
