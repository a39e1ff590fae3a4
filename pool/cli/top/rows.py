"""The rows of a view, as text without control characters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from pool.cli.top.board import Board, KnownVm
from pool.observe.terminal import visible
from vmpool.client import LeaseStatus, ProfileStatus

LEASE_CHARACTERS: Final = 14
"""Of a lease's id, where there is little room: enough to tell leases apart."""


@attrs.frozen
class Row:
    key: str
    """Of what it is about: a profile's name, the id of a VM or a lease."""
    cells: tuple[str, ...]


POOLS: Final = ("profile", "size", "ready", "making", "leased", "waiting", "hit rate", "circuit", "state")
VMS: Final = ("vm", "profile", "state", "age", "owner")
LEASES: Final = ("lease", "vm", "profile", "owner", "age", "expires", "labels")


def headline(board: Board) -> str:
    if board.missing:
        return visible(f"no connection to the service, trying again: {board.missing}", kept="")
    if board.service is None:
        return "connected"
    state = "draining" if board.service.draining else "running"
    uptime = duration(board.service.uptime_s)
    return visible(f"vmpool {board.service.version}, pid {board.service.pid}, {state} for {uptime}", kept="")


def latency_line(board: Board) -> str:
    latencies = board.latencies()
    if latencies is None:
        return "hand-outs: none seen yet"
    p50, p99 = (f"{seconds * 1e3:.1f} ms" for seconds in (latencies.p50_s, latencies.p99_s))
    return f"last {latencies.count} hand-outs: p50 {p50}, p99 {p99}"


def pool_rows(board: Board) -> list[Row]:
    return [_row(profile.name, _pool(profile)) for profile in board.profiles]


def vm_rows(board: Board, *, now: float) -> list[Row]:
    lease_of = {lease.vm_id: lease for lease in board.leases}
    return [_row(vm.vm_id, _vm(vm, lease_of.get(vm.vm_id), now=now)) for vm in board.vms.values()]


def lease_rows(board: Board, *, now: float, whole_ids: bool = False) -> list[Row]:
    since_s = now - board.leases_at
    return [_row(lease.lease_id, _lease(lease, since_s=since_s, whole_id=whole_ids)) for lease in board.leases]


def duration(seconds: float) -> str:
    """As two figures or less are read: 7 s, 3 min 5 s, 2 h 10 min, 4 d 3 h."""
    whole = max(0, round(seconds))
    for name, size, smaller_name, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {smaller_name}"
    return f"{whole} s"


def _row(key: str, cells: Iterable[str]) -> Row:
    return Row(key, tuple(visible(cell, kept="") for cell in cells))


def _pool(profile: ProfileStatus) -> tuple[str, ...]:
    asked = profile.counters.hits + profile.counters.misses
    return (
        profile.name,
        str(profile.size),
        str(profile.ready),
        str(profile.producing),
        str(profile.leased),
        str(profile.waiting),
        f"{100 * profile.counters.hits / asked:.0f} %" if asked else "-",
        profile.circuit,
        "drained" if profile.drained else profile.held_back or "ok",
    )


def _vm(vm: KnownVm, lease: LeaseStatus | None, *, now: float) -> tuple[str, ...]:
    age = "-" if vm.ready_at is None else duration(now - vm.ready_at)
    return vm.vm_id, vm.profile, vm.state, age, "-" if lease is None else f"uid {lease.owner_uid}"


def _lease(lease: LeaseStatus, *, since_s: float, whole_id: bool) -> tuple[str, ...]:
    expires = "never" if lease.expires_in_s is None else f"in {duration(lease.expires_in_s - since_s)}"
    return (
        lease.lease_id if whole_id else f"{lease.lease_id[:LEASE_CHARACTERS]}…",
        lease.vm_id,
        lease.profile,
        f"uid {lease.owner_uid}",
        duration(lease.age_s + since_s),
        expires,
        " ".join(f"{key}={value}" for key, value in sorted(lease.labels.items())) or "-",
    )
