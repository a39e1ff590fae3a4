"""Spans of the calls that acquire VMs."""

from __future__ import annotations

import trio

from pool.ledger.records import Lease
from pool.observe.spans import NO_SPANS, Spans, Stage
from pool.rpc.calls import ServerStream
from pool.rpc.stream import guarded


def record_hand_out(stream: ServerStream, lease: Lease, *, spans: Spans, method: str) -> None:
    """Records the call so far, with the stages of the hand-out."""
    if spans is NO_SPANS:
        return
    lasted_s = trio.current_time() - guarded(stream).arrived_at
    spans.record(
        method,
        lasted_s=lasted_s,
        stages=_stages(lease, lasted_s=lasted_s),
        parent=_traceparent(stream),
        source="vmpool",
        subsystem="pool",
        profile=lease.profile,
        vm=lease.vm_id,
        was_ready=lease.terms.was_ready,
    )


def _traceparent(stream: ServerStream) -> str:
    """The caller's `traceparent` (W3C Trace Context); empty without one."""
    return "" if stream.metadata is None else str(stream.metadata.get("traceparent", ""))


def _stages(lease: Lease, *, lasted_s: float) -> tuple[Stage, ...]:
    """The stages of the hand-out; empty for a call that joined the lease later, by its key."""
    timings, queued_s = lease.timings, lease.terms.queued_s
    in_vm_s = queued_s + timings.grow_s
    if lease.granted_at < trio.current_time() - lasted_s or queued_s + timings.total_s > lasted_s:
        return ()
    stages = (
        Stage(name="queue", begins_s=0.0, lasts_s=queued_s),
        Stage(name="grow", begins_s=queued_s, lasts_s=timings.grow_s),
        Stage(name="resume", begins_s=in_vm_s, lasts_s=timings.resume_s),
        Stage(name="prepare", begins_s=in_vm_s, lasts_s=timings.prepare_s),
    )
    return tuple(stage for stage in stages if stage.lasts_s)
