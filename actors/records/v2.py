"""Version 2 of a VM's record, which is read and not written: its lease has no name.

It shares the parts of version 3 that are the same; a part that changes there is copied here first.
"""

from __future__ import annotations

import math

import attrs

from actors.record import LeaseRecord, VmRecord
from actors.records.strict import Moment, kind_of
from actors.records.v3 import Process, Report, Timings, Uid
from vmm.words.kinds import BackendKind, ProducerKind
from vmm.words.leases import LeaseRequest, LeaseTerms


@attrs.frozen(kw_only=True)
class Lease:
    lease_id: str
    owner_uid: Uid
    key: str
    ttl_s: float | None
    """As requested; None for no end."""
    bound: bool
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
