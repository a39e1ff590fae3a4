"""The state behind a view of the service, from snapshots and changes. No I/O."""

from __future__ import annotations

import datetime as dt
import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs

from pool.cli.watch import as_text
from pool.observe.terminal import visible
from vmpool.client import (
    Change,
    LeaseChange,
    LeaseChangeKind,
    LeaseStatus,
    ProfileStatus,
    ServiceStatus,
    Snapshot,
    VmChange,
    VmState,
)

KEPT_HAND_OUTS: Final = 1000
"""The latest hand-outs, from which the latencies are computed."""

KEPT_EVENTS: Final = 200


@attrs.frozen(kw_only=True)
class KnownVm:
    vm_id: str
    profile: str
    state: VmState
    ready_at: float | None
    """On the caller's clock; None if it is not known, or not ready yet."""


@attrs.frozen(kw_only=True)
class Latencies:
    """Of recent hand-outs, from request to VM."""

    count: int
    p50_s: float
    p99_s: float


@attrs.define(eq=False, kw_only=True)
class Board:
    """The current state. All times are on the caller's clock."""

    missing: str = "not connected yet"
    """Why the state of the service is unknown; empty if it is known."""
    service: ServiceStatus | None = None
    profiles: tuple[ProfileStatus, ...] = ()
    vms: dict[str, KnownVm] = attrs.field(factory=dict)
    leases: tuple[LeaseStatus, ...] = ()
    leases_at: float = 0.0
    """When their ages were right."""
    hand_outs: deque[float] = attrs.field(factory=lambda: deque(maxlen=KEPT_HAND_OUTS))
    events: deque[str] = attrs.field(factory=lambda: deque(maxlen=KEPT_EVENTS))
    """The latest last."""
    revision: int = 0
    """Grows with every change."""

    def change(self, change: Change, *, now: float, at: dt.datetime) -> None:
        """Applies a change from a watch; `at` is the time of day."""
        self.missing = ""
        self.revision += 1
        match change:
            case Snapshot():
                self.profiles = change.profiles
                self.leases, self.leases_at = change.leases, now
                self.vms = {vm.vm_id: _known(vm, None, now=now) for vm in change.vms}
                return
            case VmChange(state=VmState.GONE):
                self.vms.pop(change.vm_id, None)
            case VmChange():
                self.vms[change.vm_id] = _known(change, self.vms.get(change.vm_id), now=now)
            case LeaseChange(change=LeaseChangeKind.GRANTED):
                self.hand_outs.append(change.took_s)
        self.events.append(f"{at:%H:%M:%S}  {as_text(change)}")

    def status(self, status: ServiceStatus, *, now: float) -> None:
        """Applies a status, which has the counts that changes lack."""
        self.service, self.profiles = status, status.profiles
        self.leases, self.leases_at = status.leases, now
        self.revision += 1

    def lose(self, reason: str, *, at: dt.datetime) -> None:
        """The service cannot be reached: forgets its state."""
        if not self.missing:
            self.events.append(f"{at:%H:%M:%S}  {visible(reason, kept='')}")
        self.missing = reason
        self.service, self.profiles, self.leases = None, (), ()
        self.vms.clear()
        self.revision += 1

    def latencies(self) -> Latencies | None:
        """None before the first hand-out that was seen."""
        if not self.hand_outs:
            return None
        ordered = sorted(self.hand_outs)
        return Latencies(count=len(ordered), p50_s=percentile(ordered, 50), p99_s=percentile(ordered, 99))

    def profile(self, name: str) -> ProfileStatus | None:
        return next((profile for profile in self.profiles if profile.name == name), None)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest rank, of values in ascending order."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _known(vm: VmChange, before: KnownVm | None, *, now: float) -> KnownVm:
    ready_at = None if before is None else before.ready_at
    if vm.age_s:
        ready_at = now - vm.age_s
    elif vm.state is VmState.READY:
        ready_at = now
    return KnownVm(vm_id=vm.vm_id, profile=vm.profile, state=vm.state, ready_at=ready_at)
