"""Version 3 of a VM's record, which is written, and its conversion from and to the record in memory."""

from __future__ import annotations

import math
from typing import Annotated, Final

import attrs

from actors.record import LeaseRecord, VmRecord
from actors.records.strict import Between, Moment, kind_of
from vmm.words.facts import HandOutTimings
from vmm.words.kinds import BackendKind, ProducerKind
from vmm.words.leases import LeaseRequest, LeaseTerms
from vmm.words.preparation import PreparationReport
from vmm.words.processes import ProcessIdentity

VERSION: Final = 3

MAX_PID: Final = 2**22
"""Linux's highest /proc/sys/kernel/pid_max."""

Uid = Annotated[int, Between(0, 2**32 - 1)]


@attrs.frozen(kw_only=True)
class Process:
    pid: Annotated[int, Between(0, MAX_PID)]
    start_time: int

    def in_memory(self) -> ProcessIdentity:
        return ProcessIdentity(pid=self.pid, start_time=self.start_time)


@attrs.frozen(kw_only=True)
class Report:
    """The guest's report of its hand-out, without its random bytes."""

    reseeded: bool
    wall_clock_ns: int
    hostname: str
    cpus_online: int
    memory_mib: int
    memory_online_mib: int | None
    machine_id: str
    vm_uuid: str

    def in_memory(self) -> PreparationReport:
        return PreparationReport(
            reseeded=self.reseeded,
            wall_clock_ns=self.wall_clock_ns,
            hostname=self.hostname,
            cpus_online=self.cpus_online,
            memory_mib=self.memory_mib,
            memory_online_mib=self.memory_online_mib,
            machine_id=self.machine_id,
            vm_uuid=self.vm_uuid,
        )


@attrs.frozen(kw_only=True)
class Timings:
    grow_s: float
    resume_s: float
    prepare_s: float
    total_s: float

    def in_memory(self) -> HandOutTimings:
        return HandOutTimings(
            grow_s=self.grow_s, resume_s=self.resume_s, prepare_s=self.prepare_s, total_s=self.total_s
        )


@attrs.frozen(kw_only=True)
class Lease:
    lease_id: str
    owner_uid: Uid
    key: str
    ttl_s: float | None
    """As requested; None for no end."""
    bound: bool
    name: str
    labels: dict[str, str]
    granted_at_ns: Moment
    expires_at_ns: Moment | None
    """As last renewed; None for never."""
    fencing_token: Moment
    queued_s: float
    was_ready: bool
    report: Report
    timings: Timings

    def in_memory(self) -> LeaseRecord:
        return LeaseRecord(
            terms=LeaseTerms(
                lease_id=self.lease_id,
                owner_uid=self.owner_uid,
                request=LeaseRequest(
                    key=self.key,
                    ttl_s=math.inf if self.ttl_s is None else self.ttl_s,
                    bound=self.bound,
                    name=self.name,
                    labels=self.labels,
                ),
                fencing_token=self.fencing_token,
                queued_s=self.queued_s,
                was_ready=self.was_ready,
            ),
            granted_at_ns=self.granted_at_ns,
            expires_at_ns=self.expires_at_ns,
            report=self.report.in_memory(),
            timings=self.timings.in_memory(),
        )


@attrs.frozen(kw_only=True)
class Vm:
    version: int
    vm_id: str
    profile: str
    generation: str
    made_by: str
    backend: str
    process: Process
    boot_id: str
    made_at_ns: Moment
    lease: Lease | None

    def in_memory(self) -> VmRecord:
        """Raises RecordError for an unknown kind."""
        return VmRecord(
            vm_id=self.vm_id,
            profile=self.profile,
            generation=self.generation,
            made_by=kind_of(ProducerKind, self.made_by, key="made_by"),
            backend=kind_of(BackendKind, self.backend, key="backend"),
            process=self.process.in_memory(),
            boot_id=self.boot_id,
            made_at_ns=self.made_at_ns,
            lease=None if self.lease is None else self.lease.in_memory(),
        )


def written(record: VmRecord) -> Vm:
    """The record in its form on disk; its values are checked when it is read."""
    return Vm(
        version=VERSION,
        vm_id=record.vm_id,
        profile=record.profile,
        generation=record.generation,
        made_by=record.made_by.value,
        backend=record.backend.value,
        process=Process(pid=record.process.pid, start_time=record.process.start_time),
        boot_id=record.boot_id,
        made_at_ns=record.made_at_ns,
        lease=None if record.lease is None else _written_lease(record.lease),
    )


def _written_lease(lease: LeaseRecord) -> Lease:
    terms, request, report, timings = lease.terms, lease.terms.request, lease.report, lease.timings
    return Lease(
        lease_id=terms.lease_id,
        owner_uid=terms.owner_uid,
        key=request.key,
        ttl_s=None if request.ttl_s == math.inf else request.ttl_s,
        bound=request.bound,
        name=request.name,
        labels=dict(request.labels),
        granted_at_ns=lease.granted_at_ns,
        expires_at_ns=lease.expires_at_ns,
        fencing_token=terms.fencing_token,
        queued_s=terms.queued_s,
        was_ready=terms.was_ready,
        report=Report(
            reseeded=report.reseeded,
            wall_clock_ns=report.wall_clock_ns,
            hostname=report.hostname,
            cpus_online=report.cpus_online,
            memory_mib=report.memory_mib,
            memory_online_mib=report.memory_online_mib,
            machine_id=report.machine_id,
            vm_uuid=report.vm_uuid,
        ),
        timings=Timings(
            grow_s=timings.grow_s,
            resume_s=timings.resume_s,
            prepare_s=timings.prepare_s,
            total_s=timings.total_s,
        ),
    )
