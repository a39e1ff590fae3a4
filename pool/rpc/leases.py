"""Leases on the wire: checks of requests, and replies."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from pool.core.matching import Match, WantedMachine
from pool.ledger.news import LeaseChange, LeaseNews
from pool.ledger.policy import OnEmpty
from pool.ledger.records import Lease
from pool.rpc.convert import MAX_TIME_LIMIT_MS, check_size, ms, profile_of
from pool.rpc.errors import InvalidRequestError, shorten
from pool.rpc.wishes import wishes_of
from pool.settings.config import MAX_KERNEL_PARAMETERS, PRINTABLE
from vmm.words.cpu_model import fault_in
from vmm.words.leases import LeaseRequest
from vmpool.wire.generated.vmpool import v1 as wire

MAX_TTL_MS: Final = MAX_TIME_LIMIT_MS
MAX_LEASE_NAME: Final = 63
MAX_LABELS: Final = 32
"""So many labels with keys and values of maximum size fit into a record."""
MAX_LABEL_KEY: Final = 63
MAX_LABEL_BYTES: Final = 256
"""Of a value."""

_LEASE_NAME: Final = re.compile(rf"[A-Za-z][A-Za-z0-9._-]{{0,{MAX_LEASE_NAME - 1}}}")
_LABEL_KEY: Final = re.compile(rf"[A-Za-z0-9._/-]{{1,{MAX_LABEL_KEY}}}")

_ON_EMPTY: Final[Mapping[int, OnEmpty | None]] = {
    wire.OnEmpty.UNSPECIFIED.value: None,
    wire.OnEmpty.WAIT.value: OnEmpty.WAIT,
    wire.OnEmpty.FAIL.value: OnEmpty.FAIL,
    wire.OnEmpty.BOOT.value: OnEmpty.BOOT,
}


@attrs.frozen(kw_only=True)
class AcquireArguments:
    profile: str
    request: LeaseRequest
    """Without `ttl_s` and `bound`."""
    on_empty: OnEmpty | None
    """None: the profile's default."""
    machine: WantedMachine | None
    """None: the profile's machine."""
    ttl_s: float | None
    """None: the profile's default."""
    wait_s: float
    """Infinity: until the call's deadline."""


def acquire_arguments(request: wire.AcquireRequest) -> AcquireArguments:
    """Raises InvalidRequestError."""
    check_size("idempotency_key", request.idempotency_key)
    if int(request.on_empty) not in _ON_EMPTY:
        raise InvalidRequestError(
            field="on_empty",
            reason=f"{int(request.on_empty)} is unknown to this service; use WAIT (1), FAIL (2) or BOOT (3)",
        )
    return AcquireArguments(
        profile=profile_of(request.profile),
        request=LeaseRequest(
            key=request.idempotency_key,
            name=lease_name_of(request.name) if request.name else "",
            labels=labels_of(request.labels),
            wishes=wishes_of(request),
        ),
        on_empty=_ON_EMPTY[int(request.on_empty)],
        machine=None if request.config is None else wanted_machine(request.config),
        ttl_s=lease_ttl("lease_ttl_ms", request.lease_ttl_ms) if request.lease_ttl_ms else None,
        wait_s=request.wait_ms / 1000 if request.wait_ms else math.inf,
    )


def lease_name_of(name: str) -> str:
    """Raises InvalidRequestError."""
    if not _LEASE_NAME.fullmatch(name):
        raise InvalidRequestError(
            field="name",
            reason=f"{name[:MAX_LEASE_NAME]!r} is not a name; use 1 to {MAX_LEASE_NAME} letters, digits, '.', '_' and "
            "'-', the first a letter",
        )
    return name


def labels_of(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Raises InvalidRequestError."""
    if len(labels) > MAX_LABELS:
        raise InvalidRequestError(field="labels", reason=f"has {len(labels)} entries; at most {MAX_LABELS} are allowed")
    for key, value in labels.items():
        field = f"labels[{key[:MAX_LABEL_KEY]!r}]"
        if not _LABEL_KEY.fullmatch(key):
            raise InvalidRequestError(
                field=field,
                reason=f"is not a label key; use 1 to {MAX_LABEL_KEY} letters, digits, '.', '_', '/' and '-'",
            )
        size = len(value.encode())
        if size > MAX_LABEL_BYTES:
            raise InvalidRequestError(field=field, reason=f"has {size} bytes; at most {MAX_LABEL_BYTES} are allowed")
    return dict(labels)


def wanted_machine(config: wire.VmConfig) -> WantedMachine:
    """Raises InvalidRequestError."""
    for field in ("kernel", "initrd"):
        path = getattr(config, field)
        if path and (not path.startswith("/") or "\0" in path):
            raise InvalidRequestError(field=f"config.{field}", reason=f"{path[:256]!r} is not an absolute path")
    parameters = config.kernel_parameters
    if len(parameters) > MAX_KERNEL_PARAMETERS or not re.fullmatch(PRINTABLE, parameters):
        raise InvalidRequestError(
            field="config.kernel_parameters",
            reason=f"must be printable ASCII, at most {MAX_KERNEL_PARAMETERS} characters",
        )
    if config.cpu_model and (fault := fault_in(config.cpu_model)):
        raise InvalidRequestError(field="config.cpu_model", reason=f"{config.cpu_model[:256]!r} {fault}")
    return WantedMachine(
        kernel=Path(config.kernel) if config.kernel else None,
        initrd=Path(config.initrd) if config.initrd else None,
        kernel_parameters=config.kernel_parameters or None,
        cpu_model=config.cpu_model or None,
    )


def lease_ttl(field: str, milliseconds: int) -> float:
    """Seconds."""
    if not milliseconds:
        raise InvalidRequestError(field=field, reason="is 0; set a time in milliseconds, or release the lease")
    if milliseconds > MAX_TTL_MS:
        raise InvalidRequestError(
            field=field, reason=f"{milliseconds} is more than 30 days ({MAX_TTL_MS}); renew the lease from time to time"
        )
    return milliseconds / 1000


def lease_id_of(lease_id: str, *, field: str = "lease_id") -> str:
    """Raises InvalidRequestError."""
    if not lease_id:
        raise InvalidRequestError(field=field, reason="is empty; use the lease_id that Acquire returned")
    check_size(field, lease_id)
    return lease_id


# -- replies -----------------------------------------------------------------------------------------------------------


def acquire_reply(lease: Lease, *, match: Match | None = None, now: float, total_s: float) -> wire.AcquireReply:
    return wire.AcquireReply(
        lease=lease_message(lease, now=now),
        timings=wire.AcquireTimings(
            queued_us=_us(lease.terms.queued_s),
            resume_us=_us(lease.timings.resume_s),
            prepare_us=_us(lease.timings.prepare_s),
            total_us=_us(total_s),
            was_ready=lease.terms.was_ready,
            grow_us=_us(lease.timings.grow_s),
        ),
        match=None if match is None else _match_message(match),
    )


def _match_message(match: Match) -> wire.Match:
    return wire.Match(
        profile=match.profile,
        mismatches=[
            wire.Mismatch(profile=mismatch.profile, fields=list(mismatch.fields)) for mismatch in match.mismatches
        ],
    )


def lease_message(lease: Lease, *, now: float) -> wire.Lease:
    report = lease.report
    return wire.Lease(
        lease_id=lease.lease_id,
        vm_id=lease.vm_id,
        profile=lease.profile,
        pid=lease.pid,
        guest=wire.Guest(
            hostname=report.hostname,
            cpus_online=report.cpus_online,
            memory_mib=report.memory_mib,
            reseeded=report.reseeded,
            wall_clock_ns=report.wall_clock_ns,
            memory_online_mib=report.memory_online_mib or 0,
            machine_id=report.machine_id,
            vm_uuid=report.vm_uuid,
        ),
        made_by=wire.ProducerKind[lease.made_by.name],
        expires_in_ms=_expires_in_ms(lease, now=now),
        fencing_token=lease.terms.fencing_token,
        labels=dict(lease.request.labels),
        name=lease.request.name,
    )


def lease_status(lease: Lease, *, now: float) -> wire.LeaseStatus:
    return wire.LeaseStatus(
        lease_id=lease.lease_id,
        vm_id=lease.vm_id,
        profile=lease.profile,
        owner_uid=lease.owner.uid,
        age_ms=ms(now - lease.granted_at),
        expires_in_ms=_expires_in_ms(lease, now=now),
        labels=dict(lease.request.labels),
        name=lease.request.name,
    )


def lease_change(news: LeaseNews, *, may_know: bool) -> wire.LeaseChange:
    """`may_know`: the watcher may use the lease."""
    return wire.LeaseChange(
        lease_id=news.lease.lease_id if may_know else "",
        vm_id=news.lease.vm_id,
        profile=news.lease.profile,
        change=wire.LeaseChangeKind[news.change.name],
        reason=wire.EndReason.UNSPECIFIED if news.reason is None else wire.EndReason[news.reason.name],
        # Other users see how the lease ended, but not the details, which may quote the guest.
        detail=shorten(news.detail) if may_know else "",
        labels=dict(news.lease.request.labels) if may_know else {},
        took_us=_us(news.lease.terms.queued_s + news.lease.timings.total_s)
        if news.change is LeaseChange.GRANTED
        else 0,
    )


def _expires_in_ms(lease: Lease, *, now: float) -> int:
    """0 for never; at least 1 for a live lease that expires."""
    return 0 if lease.expires_at == math.inf else max(1, ms(lease.expires_at - now))


def _us(seconds: float) -> int:
    return round(max(seconds, 0.0) * 1e6)
