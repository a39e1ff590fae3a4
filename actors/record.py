"""The record of a VM in memory: what a later run of the service needs to know to adopt it.

What of it is on disk, and how, is said in `actors.records`.
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
    # Nobody shall read from our files what a guest drew from its generator.
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

        Of the memory that the guest says it has, no more is recorded than the host granted: it counts for the budget of
        the next run.
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
    """Of the service that made it; no other one can adopt it."""
    process: ProcessIdentity
    boot_id: str
    """Of the host's boot in which the process runs; in another one its pid means nothing."""
    made_at_ns: int
    """When it became ready, on CLOCK_BOOTTIME."""
    lease: LeaseRecord | None


def expiry_ns(*, now_ns: int, expires_in_s: float) -> int | None:
    """The moment in so many seconds; None for never, or for longer than any host is up."""
    return None if expires_in_s > _FOREVER_S else now_ns + int(expires_in_s * _NS)
