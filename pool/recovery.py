"""What an earlier run of the service left: VMs to adopt, and remains to clear away."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from actors.adoption import Adoption
from actors.journal import GivenAway, Journal, Recorded, Unusable
from actors.producer import Adopt
from actors.record import LeaseRecord, VmRecord
from pool.ledger.events import FoundVm
from pool.ledger.records import Lease, Owner
from vmm.qemu.orphans import end_orphan, find_orphans

_log = structlog.get_logger("vmpool.recovery")

RECONNECT_S: Final = 30.0
"""How long a lease that was held open by a call waits for its holder to come back, by its idempotency key."""


@attrs.frozen(kw_only=True)
class Recovered:
    """For the coordinator."""

    found: tuple[FoundVm, ...]
    adoptions: Mapping[str, Adoption]


async def recover(journal: Journal, *, profiles: Collection[str], adopt: Adopt, now: float) -> Recovered:
    """Reads the records, and ends whatever is left and has none that can be used. `now` is on trio's clock.

    VMs that were given away are left alone; what one of them left when it ended is cleared away.

    Whoever calls this holds the lock that says that nobody else uses the directory. Raises StopError.
    """
    records: dict[str, VmRecord] = {}
    given_away: set[str] = set()
    for entry in journal.read_all():
        match entry:
            case Recorded(vm_id=vm_id, record=record) if record.lease is not None or record.profile in profiles:
                records[vm_id] = record
            case Unusable(vm_id=vm_id, reason=reason):
                _log.warning("a record cannot be used; its VM is ended", vm_id=vm_id, reason=reason)
            case GivenAway(vm_id=vm_id):
                given_away.add(vm_id)
            case _:
                pass
    await _end_others(journal.directory, keep=records, given_away=given_away)
    now_ns = journal.now_ns()
    found = tuple(
        FoundVm(
            vm_id=vm_id,
            profile=record.profile,
            lease=None if record.lease is None else restored(record, record.lease, now=now, now_ns=now_ns),
            memory_mib=(record.lease.report.memory_online_mib or 0) if record.lease else 0,
        )
        for vm_id, record in records.items()
    )
    if found:
        leases = sum(vm.lease is not None for vm in found)
        _log.info("adopting VMs of an earlier run", idle=len(found) - leases, leased=leases)
    return Recovered(
        found=found,
        adoptions={vm_id: Adoption(record=record, adopt=adopt) for vm_id, record in records.items()},
    )


def restored(record: VmRecord, lease: LeaseRecord, *, now: float, now_ns: int) -> Lease:
    """The lease on this run's clock. Pure."""

    def here(moment_ns: int) -> float:
        return now + (moment_ns - now_ns) / 1e9

    expires_at = float("inf") if lease.expires_at_ns is None else here(lease.expires_at_ns)
    return Lease(
        lease_id=lease.lease_id,
        vm_id=record.vm_id,
        pid=record.process.pid,
        profile=record.profile,
        owner=Owner(uid=lease.owner_uid),
        key=lease.key,
        granted_at=here(lease.granted_at_ns),
        expires_at=min(expires_at, now + RECONNECT_S) if lease.bound else expires_at,
        bound=lease.bound,
        fencing_token=lease.fencing_token,
        queued_s=lease.queued_s,
        was_ready=lease.was_ready,
        made_by=record.made_by,
        report=lease.report,
        timings=lease.timings,
    )


async def _end_others(vms: Path, *, keep: Collection[str], given_away: Collection[str]) -> None:
    for orphan in await trio.to_thread.run_sync(find_orphans, vms):
        pids = [process.pid for process in orphan.processes]
        if orphan.vm_id in given_away and pids:
            # If we were killed before its taker had the answer it is nobody's, and there is no telling.
            _log.info("a VM that was given away lives on", vm_id=orphan.vm_id, pids=pids)
        elif orphan.vm_id not in keep:
            _log.warning("ending an orphan", vm_id=orphan.vm_id, pids=pids)
            await end_orphan(orphan)
