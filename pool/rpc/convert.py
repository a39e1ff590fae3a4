"""Conversion between generated messages and vmpool's records; checks every field of a request."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Final

import attrs

from actors.producer import ProducerStatistics
from pool.ledger.views import Counters, ProfileView
from pool.rpc.errors import InvalidRequestError, sendable, shorten
from vmm.words.confinement import LayerState
from vmm.words.machines import AgentKind
from vmpool.wire.generated.vmpool import v1 as wire

DEFAULT_PROFILE: Final = "default"
MAX_NAME_BYTES: Final = 128
"""Of a profile, an idempotency key, a lease id."""
MAX_TIME_LIMIT_MS: Final = 30 * 24 * 3600 * 1000
"""30 days; a larger value is probably in the wrong unit."""


@attrs.frozen(kw_only=True)
class ProfileShape:
    """The machine of a profile, as Status reports it."""

    vcpus: int
    memory_mib: int
    max_vcpus: int
    max_memory_mib: int
    max_vms: int = 0
    """0: no limit."""
    lease_ttl_s: float = math.inf
    agent: AgentKind = AgentKind.BUILTIN


def profile_of(name: str) -> str:
    check_size("profile", name)
    return name or DEFAULT_PROFILE


def vm_id_of(request: wire.ConsoleRequest) -> str:
    if not request.vm_id:
        raise InvalidRequestError(field="vm_id", reason="is empty; `vmpool watch` lists the VMs")
    check_size("vm_id", request.vm_id)
    return request.vm_id


def check_size(field: str, text: str) -> None:
    """Raises InvalidRequestError."""
    size = len(text.encode())
    if size > MAX_NAME_BYTES:
        raise InvalidRequestError(field=field, reason=f"has {size} bytes; at most {MAX_NAME_BYTES} are allowed")


# -- replies -----------------------------------------------------------------------------------------------------------


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
            kind=wire.ProducerKind[producer.kind.name],
            ready=producer.ready,
            accelerator=producer.accelerator or "",
            detail=shorten(producer.detail),
            produced=producer.produced,
            failed=producer.failed,
            fallbacks=producer.fallbacks,
        ),
        failures_in_a_row=view.failures_in_a_row,
        retry_in_ms=ms(view.retry_in_s),
        last_error=shorten(view.last_error),
        last_evidence=sendable(view.last_evidence) if with_evidence else "",
        last_production_ms=ms(view.last_production_s),
        counters=_pool_counters(view.counters),
        shells=view.shells,
        stale=view.stale,
        generation=view.generation,
        max_vcpus=shape.max_vcpus,
        max_memory_mib=shape.max_memory_mib,
        drained=view.drained,
        circuit=wire.CircuitState[view.circuit.name],
        held_back=view.held_back,
        max_vms=shape.max_vms,
    )


def _pool_counters(counters: Counters) -> wire.PoolCounters:
    plain = attrs.asdict(counters, filter=attrs.filters.exclude("stopped"))
    stopped = [
        wire.StoppedVms(reason=wire.StopReason[reason.name], count=count) for reason, count in counters.stopped.items()
    ]
    return wire.PoolCounters(**plain, stopped=stopped)


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
        uptime_ms=ms(uptime_s),
        draining=draining,
        profiles=list(profiles),
        leases=list(leases),
        fallbacks=fallbacks,
        confinement=[
            wire.ConfinementLayer(name=layer.name, applied=layer.applied, detail=shorten(layer.detail))
            for layer in confinement
        ],
    )


def ms(seconds: float) -> int:
    """Milliseconds."""
    return round(max(seconds, 0.0) * 1e3)
