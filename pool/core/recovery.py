"""Recovery from an earlier run of the service: VMs to adopt, and remains to clear away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import attrs
import structlog
import trio

from actors.adoption import Adoption
from actors.journal import GivenAway, Journal, Recorded, Unusable
from actors.record import LeaseRecord, VmRecord
from actors.turns import Turns
from pool.core.reception import OWN
from pool.host.endpoint import EndpointError
from pool.ledger.events import FoundVm
from pool.ledger.records import Lease
from vmm.backend import Backend, Remains
from vmm.errors import StopError

_log = structlog.get_logger("vmpool.recovery")

RECONNECT_S: Final = 30.0
"""How long a lease that was held open by a call waits for its holder to come back, by its idempotency key."""


MAX_FENCING_TOKEN: Final = 2**62
"""Of an adopted lease. Later tokens continue from it, and a record holds up to twice this value. Tokens begin at the
wall clock, in nanoseconds, which reaches this value in 2116."""

MAX_MEMORY_MIB: Final = 2**24
"""Of an adopted lease; no host has as much."""

SWEPT_AT_ONCE: Final = 16
SWEEP_PATIENCE_S: Final = 1.0
"""Ending a VM takes some 50 ms; a process that hangs in the kernel is given up after 20 s, and often many hang."""


@attrs.frozen(kw_only=True)
class Recovered:
    """The VMs to adopt, for the coordinator."""

    found: tuple[FoundVm, ...]
    adoptions: Mapping[str, Adoption]


class Sweep(Protocol):
    """Ends the VMs that an earlier run left, except those to keep, and living ones that were given away."""

    async def __call__(self, vms: Path, *, keep: Collection[str], given_away: Collection[str]) -> None: ...


async def sweep_remains(vms: Path, *, keep: Collection[str], given_away: Collection[str], backend: Backend) -> None:
    """Ends the VMs that the backend finds on this host.

    Raises EndpointError, before any VM is ended, if a running service has one of them. Its locks do not show this if
    its directory was removed.
    """
    found = await trio.to_thread.run_sync(backend.remains_in, vms)
    to_end = [remains for remains in found if remains.vm_id not in keep and remains.vm_id not in given_away]
    await _check_nobodys([pid for remains in to_end for pid in remains.pids], vms=vms, backend=backend)
    turns = Turns(at_once=SWEPT_AT_ONCE, patience_s=SWEEP_PATIENCE_S)
    async with trio.open_nursery() as nursery:
        for remains in found:
            if remains.vm_id in given_away and remains.pids:
                # If the earlier run was killed before its reply was sent, the VM has no taker; this is undetectable.
                _log.info("a VM that was given away lives on", vm=remains.vm_id, pids=remains.pids)
            elif remains.vm_id not in keep:
                nursery.start_soon(_end, remains, turns, backend)


async def _check_nobodys(pids: Collection[int], *, vms: Path, backend: Backend) -> None:
    owner = await trio.to_thread.run_sync(backend.owner_of, pids) if pids else None
    if owner is not None:
        raise EndpointError(
            f"process {owner} has VMs of {vms}, whose files were removed; stop the process, or choose another "
            "directory with --socket or service.runtime_directory"
        )


async def _end(remains: Remains, turns: Turns, backend: Backend) -> None:
    _log.warning("ending an orphan", vm=remains.vm_id, pids=remains.pids)
    try:
        async with turns.turn(remains.vm_id):
            await backend.end(remains)
    except (StopError, OSError) as error:
        # It keeps its memory until the next run tries again, and does not disturb this run.
        _log.error("an orphan cannot be ended", vm=remains.vm_id, error=str(error))


async def recover(
    journal: Journal,
    *,
    profiles: Collection[str],
    backend: Backend,
    base: str = "",
    sweep: Sweep | None = None,
    clock: Callable[[], float] = trio.current_time,
) -> Recovered:
    """Reads the records, and ends the VMs without a usable one. `clock` is trio's. `base` is the profile on which
    callers' own configurations are based. `sweep` defaults to `sweep_remains`.

    Living VMs that were given away are left alone; the remains of ended ones are cleared away.

    The caller must hold the directory's lock.
    """
    records: dict[str, VmRecord] = {}
    given_away: set[str] = set()
    for entry in journal.read_all():
        match entry:
            case Recorded(vm_id=vm_id, record=record) if why := _implausible(record):
                _tell_unusable(vm_id, why)
            case Recorded(vm_id=vm_id, record=record) if record.lease is not None or record.profile in profiles:
                records[vm_id] = record
            case Unusable(vm_id=vm_id, reason=reason):
                _tell_unusable(vm_id, reason)
            case GivenAway(vm_id=vm_id):
                given_away.add(vm_id)
            case _:
                pass
    _drop_doubles(records)
    sweep = sweep or partial(sweep_remains, backend=backend)
    await sweep(journal.directory, keep=records, given_away=given_away)
    _limit_again(journal.directory, records, backend=backend)
    # Both clocks at once, and after the sweep: the time between the two readings would be deducted from each lease.
    now, now_ns = clock(), journal.now_ns()
    found = tuple(
        FoundVm(
            vm_id=vm_id,
            profile=record.profile,
            within=base if record.profile.startswith(OWN) and record.profile not in profiles else "",
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
        adoptions={vm_id: Adoption(record=record, adopt=backend.adopt) for vm_id, record in records.items()},
    )


def _tell_unusable(vm_id: str, reason: str) -> None:
    _log.warning("a record cannot be used; its VM is ended", vm=vm_id, reason=reason)


def _implausible(record: VmRecord) -> str:
    """The impossible value that would affect other VMs; empty if there is none. A damaged record costs its own VM."""
    lease = record.lease
    if lease is not None and lease.terms.fencing_token > MAX_FENCING_TOKEN:
        return f"lease.fencing_token: {lease.terms.fencing_token} is out of range; the maximum is {MAX_FENCING_TOKEN}"
    if lease is not None and (lease.report.memory_online_mib or 0) > MAX_MEMORY_MIB:
        memory_mib = lease.report.memory_online_mib
        return f"lease.report.memory_online_mib: {memory_mib} is out of range; the maximum is {MAX_MEMORY_MIB}"
    return ""


def _drop_doubles(records: dict[str, VmRecord]) -> None:
    """Drops the earlier of two records with the same lease id, or with the same key of one user."""
    kept: dict[object, str] = {}
    by_token = sorted(records.values(), key=lambda record: record.lease.terms.fencing_token if record.lease else 0)
    for record in reversed(by_token):
        if record.lease is None:
            continue
        terms = record.lease.terms
        names: list[object] = [terms.lease_id]
        if terms.request.key:
            names.append((terms.owner_uid, terms.request.key))
        other = next((kept[name] for name in names if name in kept), None)
        if other is None:
            kept |= dict.fromkeys(names, record.vm_id)
        else:
            _tell_unusable(record.vm_id, f"{other} has the same lease or key")
            del records[record.vm_id]


def restored(record: VmRecord, lease: LeaseRecord, *, now: float, now_ns: int) -> Lease:
    """The lease, with its times on this run's clock."""

    def here(moment_ns: int) -> float:
        return now + (moment_ns - now_ns) / 1e9

    expires_at = float("inf") if lease.expires_at_ns is None else here(lease.expires_at_ns)
    return Lease(
        vm_id=record.vm_id,
        pid=record.process.pid,
        profile=record.profile,
        terms=lease.terms,
        granted_at=here(lease.granted_at_ns),
        expires_at=min(expires_at, now + RECONNECT_S) if lease.terms.request.bound else expires_at,
        made_by=record.made_by,
        report=lease.report,
        timings=lease.timings,
    )


def _limit_again(vms: Path, vm_ids: Collection[str], *, backend: Backend) -> None:
    """Sets the limits of adopted VMs again. A VM whose limits cannot be set is kept, with a warning."""
    for vm_id in vm_ids:
        try:
            backend.limit_again(vms / vm_id)
        except OSError as error:
            _log.warning("the limits of an adopted VM cannot be set", vm=vm_id, error=str(error))
