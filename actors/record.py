"""The record of a VM in memory, with which a later run of the service adopts it.

`actors.records` has its form on disk.
"""

from __future__ import annotations

from typing import Final

import attrs

from vmm.words.facts import HandOutTimings
from vmm.words.kinds import BackendKind, ProducerKind
from vmm.words.leases import LeaseTerms
from vmm.words.preparation import PreparationReport
from vmm.words.processes import ProcessIdentity

_NS: Final = 1_000_000_000
_FOREVER_S: Final = 100 * 365 * 86400


def _fulfilled(terms: LeaseTerms) -> LeaseTerms:
    return terms.fulfilled()


def _without_random_bytes(report: PreparationReport) -> PreparationReport:
    # The guest's random bytes must not be readable from the service's files.
    return attrs.evolve(report, random=b"")


@attrs.frozen(kw_only=True)
class LeaseRecord:
    """A lease as it was granted, and last renewed. Times are nanoseconds on the host's CLOCK_BOOTTIME."""

    terms: LeaseTerms = attrs.field(converter=_fulfilled)
    granted_at_ns: int
    expires_at_ns: int | None
    """None for never."""
    report: PreparationReport = attrs.field(converter=_without_random_bytes)
    timings: HandOutTimings

    @classmethod
    def grant(
        cls, terms: LeaseTerms, *, now_ns: int, report: PreparationReport, timings: HandOutTimings
    ) -> LeaseRecord:
        """The record of a lease whose hand-out is done just now.

        The memory that the guest reports is recorded up to what the host granted: it counts for the next run's budget.
        """
        if report.memory_online_mib is not None:
            online_mib = min(report.memory_online_mib, terms.request.wishes.memory_mib or 0)
            report = attrs.evolve(report, memory_online_mib=online_mib)
        expires_at_ns = expiry_ns(now_ns=now_ns, expires_in_s=terms.request.ttl_s)
        return cls(terms=terms, granted_at_ns=now_ns, expires_at_ns=expires_at_ns, report=report, timings=timings)


@attrs.frozen(kw_only=True)
class VmRecord:
    """A VM that may be adopted: a base VM, or a leased one."""

    vm_id: str
    profile: str
    generation: str
    made_by: ProducerKind
    backend: BackendKind
    """The backend of the service that made the VM; no other one can adopt it."""
    process: ProcessIdentity
    boot_id: str
    """The host's boot in which the process runs; after another boot its pid means nothing."""
    made_at_ns: int
    """When the VM became ready, on CLOCK_BOOTTIME."""
    lease: LeaseRecord | None


def expiry_ns(*, now_ns: int, expires_in_s: float) -> int | None:
    """The moment of expiry; None for never, or for longer than any host is up."""
    return None if expires_in_s > _FOREVER_S else now_ns + int(expires_in_s * _NS)
