"""Generated messages to the house's records and back; every field of a request is judged here."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

from actors.producer import ProducerStatistics
from pool.core.matching import Match, WantedMachine
from pool.ledger.policy import OnEmpty
from pool.ledger.records import Lease
from pool.ledger.views import ProfileView
from pool.rpc.arguments import check_command, check_path
from pool.rpc.errors import InvalidRequestError, sendable, shorten
from pool.rpc.wishes import wishes_of
from pool.settings.config import MAX_KERNEL_PARAMETERS, PRINTABLE
from vmm.words.commands import MAX_GIVEN_STDIN, CommandExit, CommandSpec, Output, OutputStream
from vmm.words.confinement import LayerState
from vmm.words.cpu_model import fault_in
from vmm.words.machines import AgentKind
from vmm.words.wishes import Wishes
from vmpool.wire.generated.vmpool import v1 as wire

DEFAULT_PROFILE: Final = "default"
MAX_NAME_BYTES: Final = 128
"""Of a profile, an idempotency key, a lease id."""
MAX_TIME_LIMIT_MS: Final = 30 * 24 * 3600 * 1000
"""30 days; more is a unit mixed up."""
MAX_TTL_MS: Final = MAX_TIME_LIMIT_MS
MAX_SIGNAL: Final = 64
PAYLOAD_BYTES: Final = 256 * 1024
"""At most this much output in one message, far below what clients take."""

_ON_EMPTY: Final[Mapping[int, OnEmpty | None]] = {
    wire.OnEmpty.UNSPECIFIED.value: None,
    wire.OnEmpty.WAIT.value: OnEmpty.WAIT,
    wire.OnEmpty.FAIL.value: OnEmpty.FAIL,
    wire.OnEmpty.BOOT.value: OnEmpty.BOOT,
}


@attrs.frozen(kw_only=True)
class ProfileShape:
    """What Status says of a profile's machines."""

    vcpus: int
    memory_mib: int
    max_vcpus: int
    max_memory_mib: int
    max_vms: int = 0
    """0: no limit."""
    lease_ttl_s: float = math.inf
    agent: AgentKind = AgentKind.BUILTIN


@attrs.frozen(kw_only=True)
class AcquireArguments:
    profile: str
    key: str
    on_empty: OnEmpty | None
    """None: the profile's default."""
    wishes: Wishes
    machine: WantedMachine | None
    """None: that of the profile."""
    ttl_s: float | None
    """None: the profile's default."""
    wait_s: float
    """Infinite: as long as the call's deadline."""


def acquire_arguments(request: wire.AcquireRequest) -> AcquireArguments:
    """Raises InvalidRequestError, as all readers of requests here."""
    _check_size("idempotency_key", request.idempotency_key)
    if int(request.on_empty) not in _ON_EMPTY:
        raise InvalidRequestError(
            field="on_empty",
            reason=f"{int(request.on_empty)} is unknown to this service; use WAIT (1), FAIL (2) or BOOT (3)",
        )
    return AcquireArguments(
        profile=profile_of(request.profile),
        key=request.idempotency_key,
        on_empty=_ON_EMPTY[int(request.on_empty)],
        wishes=wishes_of(request),
        machine=None if request.config is None else wanted_machine(request.config),
        ttl_s=lease_ttl("lease_ttl_ms", request.lease_ttl_ms) if request.lease_ttl_ms else None,
        wait_s=request.wait_ms / 1000 if request.wait_ms else math.inf,
    )


def wanted_machine(config: wire.VmConfig) -> WantedMachine:
    """Raises InvalidRequestError."""
    for field in ("kernel", "initrd"):
        path = getattr(config, field)
        if path and (not path.startswith("/") or "\0" in path):
            raise InvalidRequestError(field=f"config.{field}", reason=f"{path[:256]!r} is no absolute path")
    parameters = config.kernel_parameters
    if len(parameters) > MAX_KERNEL_PARAMETERS or not re.fullmatch(PRINTABLE, parameters):
        raise InvalidRequestError(
            field="config.kernel_parameters",
            reason=f"must be ASCII that can be printed, at most {MAX_KERNEL_PARAMETERS} characters of it",
        )
    if config.cpu_model and (fault := fault_in(config.cpu_model)):
        raise InvalidRequestError(field="config.cpu_model", reason=f"{config.cpu_model[:256]!r} {fault}")
    return WantedMachine(
        kernel=Path(config.kernel) if config.kernel else None,
        initrd=Path(config.initrd) if config.initrd else None,
        kernel_parameters=config.kernel_parameters or None,
        cpu_model=config.cpu_model or None,
    )


def profile_of(name: str) -> str:
    _check_size("profile", name)
    return name or DEFAULT_PROFILE


def lease_ttl(field: str, milliseconds: int) -> float:
    """Seconds."""
    if not milliseconds:
        raise InvalidRequestError(field=field, reason="is 0; say for how long, or release the lease")
    if milliseconds > MAX_TTL_MS:
        raise InvalidRequestError(
            field=field, reason=f"{milliseconds} is more than 30 days ({MAX_TTL_MS}); renew the lease from time to time"
        )
    return milliseconds / 1000


def lease_id_of(request: wire.ReleaseRequest | wire.RenewRequest | wire.ExecStart, *, field: str = "lease_id") -> str:
    if not request.lease_id:
        raise InvalidRequestError(field=field, reason="is empty; use the lease_id that Acquire returned")
    _check_size(field, request.lease_id)
    return request.lease_id


def command_spec(start: wire.ExecStart) -> CommandSpec:
    check_command(start.argv, start.environment)
    check_path("start.working_directory", start.working_directory)
    if start.time_limit_ms > MAX_TIME_LIMIT_MS:
        raise InvalidRequestError(
            field="start.time_limit_ms",
            reason=f"{start.time_limit_ms} is more than 30 days ({MAX_TIME_LIMIT_MS}); use 0 for no limit",
        )
    if len(start.stdin) > MAX_GIVEN_STDIN:
        raise InvalidRequestError(
            field="start.stdin",
            reason=f"has {len(start.stdin)} bytes, {MAX_GIVEN_STDIN} at most can be given; send it in `stdin` "
            "messages, or put a file",
        )
    return CommandSpec(
        argv=tuple(start.argv),
        environment=dict(start.environment),
        working_directory=start.working_directory or None,
        time_limit_s=start.time_limit_ms / 1000 if start.time_limit_ms else None,
        stdin=bytes(start.stdin) or None,
    )


def exec_kind(request: wire.ExecRequest) -> str:
    """Which one of its kinds a request is."""
    kinds = [kind for kind in ("start", "stdin", "close_stdin", "signal") if getattr(request, kind) is not None]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "nothing"
        raise InvalidRequestError(field="kind", reason=f"is {found}; set one of start, stdin, close_stdin and signal")
    return kinds[0]


def signal_number(number: int) -> int:
    if not 1 <= number <= MAX_SIGNAL:
        raise InvalidRequestError(field="signal", reason=f"{number} is no signal; use 1 to {MAX_SIGNAL}")
    return number


def _check_size(field: str, text: str) -> None:
    size = len(text.encode())
    if size > MAX_NAME_BYTES:
        raise InvalidRequestError(field=field, reason=f"has {size} bytes; at most {MAX_NAME_BYTES} are allowed")


# -- replies -----------------------------------------------------------------------------------------------------------


def acquire_reply(lease: Lease, *, match: Match | None = None, now: float, total_s: float) -> wire.AcquireReply:
    return wire.AcquireReply(
        lease=lease_message(lease, now=now),
        timings=wire.AcquireTimings(
            queued_us=_us(lease.queued_s),
            resume_us=_us(lease.timings.resume_s),
            prepare_us=_us(lease.timings.prepare_s),
            total_us=_us(total_s),
            was_ready=lease.was_ready,
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
        made_by=lease.made_by.value,
        expires_in_ms=_expires_in_ms(lease, now=now),
        fencing_token=lease.fencing_token,
    )


def exec_replies(event: Output | CommandExit) -> Iterable[wire.ExecReply]:
    match event:
        case Output(stream=OutputStream.STDOUT, data=data):
            return (wire.ExecReply(stdout=piece) for piece in _pieces(data))
        case Output(data=data):
            return (wire.ExecReply(stderr=piece) for piece in _pieces(data))
        case CommandExit():
            ended = wire.ExecExit(
                status=event.status,
                signal=event.signal,
                timed_out=event.timed_out,
                out_of_memory=event.out_of_memory,
            )
            return (wire.ExecReply(exit=ended),)


def profile_status(
    view: ProfileView, *, shape: ProfileShape, producer: ProducerStatistics, with_evidence: bool
) -> wire.ProfileStatus:
    return wire.ProfileStatus(
        name=view.name,
        size=view.size,
        ready=view.ready,
        producing=view.producing,
        handing_out=view.handing_out,
        leased=view.leased,
        stopping=view.stopping,
        waiting=view.waiting,
        vcpus=shape.vcpus,
        memory_mib=shape.memory_mib,
        producer=wire.ProducerStatus(
            kind=producer.kind.value,
            ready=producer.ready,
            accelerator=producer.accelerator or "",
            detail=shorten(producer.detail),
            produced=producer.produced,
            failed=producer.failed,
            fallbacks=producer.fallbacks,
        ),
        failures_in_a_row=view.failures_in_a_row,
        retry_in_ms=_ms(view.retry_in_s),
        last_error=shorten(view.last_error),
        last_evidence=sendable(view.last_evidence) if with_evidence else "",
        last_production_ms=_ms(view.last_production_s),
        counters=wire.PoolCounters(**attrs.asdict(view.counters)),
        shells=view.shells,
        stale=view.stale,
        generation=view.generation,
        max_vcpus=shape.max_vcpus,
        max_memory_mib=shape.max_memory_mib,
        drained=view.drained,
        circuit=view.circuit.value,
        held_back=view.held_back,
        max_vms=shape.max_vms,
    )


def lease_status(lease: Lease, *, now: float) -> wire.LeaseStatus:
    return wire.LeaseStatus(
        lease_id=lease.lease_id,
        vm_id=lease.vm_id,
        profile=lease.profile,
        owner_uid=lease.owner.uid,
        age_ms=_ms(now - lease.granted_at),
        expires_in_ms=_expires_in_ms(lease, now=now),
    )


def status_reply(
    *,
    version: str,
    uptime_s: float,
    draining: bool,
    profiles: Iterable[wire.ProfileStatus],
    leases: Iterable[wire.LeaseStatus],
    fallbacks: int = 0,
    confinement: Iterable[LayerState] = (),
) -> wire.StatusReply:
    return wire.StatusReply(
        version=version,
        pid=os.getpid(),
        uptime_ms=_ms(uptime_s),
        draining=draining,
        profiles=list(profiles),
        leases=list(leases),
        fallbacks=fallbacks,
        confinement=[
            wire.ConfinementLayer(name=layer.name, applied=layer.applied, detail=shorten(layer.detail))
            for layer in confinement
        ],
    )


def _expires_in_ms(lease: Lease, *, now: float) -> int:
    """0 for never; what lives has at least a millisecond."""
    return 0 if lease.expires_at == math.inf else max(1, _ms(lease.expires_at - now))


def _pieces(data: bytes) -> Iterable[bytes]:
    return (data[start : start + PAYLOAD_BYTES] for start in range(0, len(data), PAYLOAD_BYTES))


def _us(seconds: float) -> int:
    return round(max(seconds, 0.0) * 1e6)


def _ms(seconds: float) -> int:
    return round(max(seconds, 0.0) * 1e3)
