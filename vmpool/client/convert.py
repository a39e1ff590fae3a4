"""Conversion between generated messages and the SDK's records."""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Mapping
from typing import Final, TypeVar

import attrs
import betterproto2

from vmpool.client.errors import CallError
from vmpool.client.kinds import (
    CircuitState,
    EndReason,
    LeaseChangeKind,
    ProducerKind,
    ProfileChangeKind,
    StopReason,
    VmState,
)
from vmpool.client.records import (
    AcquiredVm,
    AcquireTimings,
    Change,
    CommandExit,
    ConfinementLayer,
    Guest,
    LeaseChange,
    LeaseStatus,
    Match,
    Mismatch,
    Output,
    OutputStream,
    PoolCounters,
    ProducerStatus,
    ProfileChange,
    ProfileStatus,
    ServiceStatus,
    Snapshot,
    VmChange,
    VmConfig,
)
from vmpool.client.requests import OnEmpty, Wishes
from vmpool.wire.generated.vmpool import v1 as wire

Word = TypeVar("Word", bound=enum.StrEnum)

ON_EMPTY: Final[Mapping[OnEmpty, wire.OnEmpty]] = {
    OnEmpty.WAIT: wire.OnEmpty.WAIT,
    OnEmpty.FAIL: wire.OnEmpty.FAIL,
    OnEmpty.BOOT: wire.OnEmpty.BOOT,
}


NO_TIMINGS: Final = AcquireTimings(queued_s=0.0, resume_s=0.0, prepare_s=0.0, total_s=0.0, was_ready=False, grow_s=0.0)


def acquire_request(
    *,
    profile: str,
    key: str,
    on_empty: OnEmpty | None,
    wishes: Wishes,
    config: VmConfig | None,
    ttl_s: float | None,
    labels: Mapping[str, str] | None,
    wait_s: float = math.inf,
    name: str = "",
) -> wire.AcquireRequest:
    return wire.AcquireRequest(
        profile=profile,
        idempotency_key=key,
        on_empty=wire.OnEmpty.UNSPECIFIED if on_empty is None else ON_EMPTY[OnEmpty(on_empty)],
        vcpus=wishes.vcpus or 0,
        memory_mib=wishes.memory_mib or 0,
        hostname=wishes.hostname,
        environment=dict(wishes.environment),
        lease_ttl_ms=0 if ttl_s is None else _ttl_ms(ttl_s),
        wait_ms=0 if wait_s == math.inf else max(math.ceil(wait_s * 1000), 1),  # 0 on the wire is no limit
        files=[wire.GuestFile(path=file.path, data=file.data, mode=file.mode) for file in wishes.files],
        labels=dict(labels or {}),
        name=name,
        config=None if config is None else wire.VmConfig(**attrs.asdict(config)),
    )


def _ttl_ms(ttl_s: float) -> int:
    """CallError for what is no time to live; on the wire, 0 is the profile's default."""
    if not 0 < ttl_s < math.inf:
        raise CallError(status="INVALID_ARGUMENT", message=f"ttl: {ttl_s:g} is not a time to live; set seconds above 0")
    return math.ceil(ttl_s * 1000)


def acquired_vm(reply: wire.AcquireReply) -> AcquiredVm:
    """Raises CallError if a part of the reply is missing."""
    if reply.lease is None or reply.timings is None:
        raise _incomplete("AcquireReply")
    timings = reply.timings
    return attrs.evolve(
        leased_vm(reply.lease),
        timings=AcquireTimings(
            queued_s=timings.queued_us / 1e6,
            resume_s=timings.resume_us / 1e6,
            prepare_s=timings.prepare_us / 1e6,
            total_s=timings.total_us / 1e6,
            was_ready=timings.was_ready,
            grow_s=timings.grow_us / 1e6,
        ),
        match=None if reply.match is None else _match(reply.match),
    )


def leased_vm(lease: wire.Lease) -> AcquiredVm:
    """A VM that was leased before: nothing is known of how long that took. Raises CallError."""
    if lease.guest is None:
        raise _incomplete("Lease")
    guest = lease.guest
    return AcquiredVm(
        lease_id=lease.lease_id,
        vm_id=lease.vm_id,
        profile=lease.profile,
        pid=lease.pid,
        made_by=word(ProducerKind, lease.made_by),
        expires_in_s=_seconds_or_never(lease.expires_in_ms),
        fencing_token=lease.fencing_token,
        labels=dict(lease.labels),
        guest=Guest(
            hostname=guest.hostname,
            cpus_online=guest.cpus_online,
            memory_mib=guest.memory_mib,
            reseeded=guest.reseeded,
            wall_clock_ns=guest.wall_clock_ns,
            memory_online_mib=guest.memory_online_mib,
            machine_id=guest.machine_id,
            vm_uuid=guest.vm_uuid,
        ),
        timings=NO_TIMINGS,
        match=None,
        name=lease.name,
    )


def _match(match: wire.Match) -> Match:
    return Match(
        profile=match.profile,
        mismatches=tuple(
            Mismatch(profile=mismatch.profile, fields=tuple(mismatch.fields)) for mismatch in match.mismatches
        ),
    )


def command_event(reply: wire.ExecReply) -> Output | CommandExit | None:
    """None for an unknown message, which a newer service may send."""
    match reply:
        case wire.ExecReply(stdout=bytes(data)):
            return Output(stream=OutputStream.STDOUT, data=data)
        case wire.ExecReply(stderr=bytes(data)):
            return Output(stream=OutputStream.STDERR, data=data)
        case wire.ExecReply(exit=wire.ExecExit() as ended):
            return command_exit(ended)
        case _:
            return None


def command_exit(ended: wire.ExecExit) -> CommandExit:
    return CommandExit(
        status=ended.status, signal=ended.signal, timed_out=ended.timed_out, out_of_memory=ended.out_of_memory
    )


def terminal_size(rows: int, columns: int) -> wire.Terminal:
    return wire.Terminal(rows=rows, columns=columns)


def service_status(reply: wire.StatusReply) -> ServiceStatus:
    return ServiceStatus(
        version=reply.version,
        pid=reply.pid,
        uptime_s=reply.uptime_ms / 1e3,
        draining=reply.draining,
        profiles=tuple(_profile_status(profile) for profile in reply.profiles),
        leases=tuple(lease_status(lease) for lease in reply.leases),
        fallbacks=reply.fallbacks,
        confinement=tuple(
            ConfinementLayer(name=layer.name, applied=layer.applied, detail=layer.detail) for layer in reply.confinement
        ),
    )


def change(reply: wire.WatchReply) -> Change | None:
    """None for an unknown message, which a newer service may send."""
    match reply:
        case wire.WatchReply(snapshot=wire.Snapshot() as snapshot):
            return Snapshot(
                profiles=tuple(_profile_status(profile) for profile in snapshot.profiles),
                vms=tuple(_vm_change(vm) for vm in snapshot.vms),
                leases=tuple(lease_status(lease) for lease in snapshot.leases),
            )
        case wire.WatchReply(vm=wire.VmChange() as vm):
            return _vm_change(vm)
        case wire.WatchReply(lease=wire.LeaseChange() as lease):
            return LeaseChange(
                lease_id=lease.lease_id,
                vm_id=lease.vm_id,
                profile=lease.profile,
                change=word(LeaseChangeKind, lease.change),
                reason=word(EndReason, lease.reason) if lease.reason else None,
                detail=lease.detail,
                labels=dict(lease.labels),
                took_s=lease.took_us / 1e6,
            )
        case wire.WatchReply(profile=wire.ProfileChange() as profile):
            return ProfileChange(
                profile=profile.profile,
                change=word(ProfileChangeKind, profile.change),
                detail=profile.detail,
            )
        case _:
            return None


def _vm_change(vm: wire.VmChange) -> VmChange:
    return VmChange(
        vm_id=vm.vm_id,
        profile=vm.profile,
        state=word(VmState, vm.state),
        reason=word(StopReason, vm.reason) if vm.reason else None,
        detail=vm.detail,
        age_s=vm.age_ms / 1e3,
    )


def lease_status(lease: wire.LeaseStatus) -> LeaseStatus:
    return LeaseStatus(
        lease_id=lease.lease_id,
        vm_id=lease.vm_id,
        profile=lease.profile,
        owner_uid=lease.owner_uid,
        age_s=lease.age_ms / 1e3,
        expires_in_s=_seconds_or_never(lease.expires_in_ms),
        labels=dict(lease.labels),
        name=lease.name,
    )


def _seconds_or_never(milliseconds: int) -> float | None:
    return milliseconds / 1e3 if milliseconds else None


def _profile_status(profile: wire.ProfileStatus) -> ProfileStatus:
    producer, counters = profile.producer, profile.counters
    if producer is None or counters is None:
        raise _incomplete("ProfileStatus")
    return ProfileStatus(
        name=profile.name,
        size=profile.size,
        ready=profile.ready,
        producing=profile.producing,
        handing_out=profile.handing_out,
        leased=profile.leased,
        stopping=profile.stopping,
        waiting=profile.waiting,
        shells=profile.shells,
        stale=profile.stale,
        generation=profile.generation,
        vcpus=profile.vcpus,
        memory_mib=profile.memory_mib,
        max_vcpus=profile.max_vcpus,
        max_memory_mib=profile.max_memory_mib,
        max_vms=profile.max_vms or None,
        drained=profile.drained,
        circuit=word(CircuitState, profile.circuit),
        held_back=profile.held_back,
        producer=ProducerStatus(
            kind=word(ProducerKind, producer.kind),
            ready=producer.ready,
            accelerator=producer.accelerator,
            detail=producer.detail,
            produced=producer.produced,
            failed=producer.failed,
            fallbacks=producer.fallbacks,
        ),
        failures_in_a_row=profile.failures_in_a_row,
        retry_in_s=profile.retry_in_ms / 1e3,
        last_error=profile.last_error,
        last_evidence=profile.last_evidence,
        last_production_s=profile.last_production_ms / 1e3,
        counters=_pool_counters(counters),
    )


def _pool_counters(counters: wire.PoolCounters) -> PoolCounters:
    stopped: Counter[StopReason] = Counter()
    for each in counters.stopped:
        stopped[word(StopReason, each.reason)] += each.count  # there may be several that this SDK does not know
    plain = [field.name for field in attrs.fields(PoolCounters) if field.name != "stopped"]
    return PoolCounters(**{name: getattr(counters, name) for name in plain}, stopped=dict(stopped))


def word(kind: type[Word], said: betterproto2.Enum) -> Word:
    """The enum member of a value; UNKNOWN for a value of a newer service."""
    return kind.__members__.get(said.name, kind["UNKNOWN"])


def _incomplete(what: str) -> CallError:
    return CallError(status="INTERNAL", message=f"the service sent an incomplete {what}; are both of one version?")
