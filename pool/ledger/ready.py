"""One profile's ready VMs: whose turn it is, and which of them are to be replaced or asked whether they are there."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import attrs

from pool.ledger.reasons import StopReason
from pool.ledger.schedule import Schedule

_LOOK_AHEAD: Final = 8
"""More than are being checked at a time on any sensible setting; the oldest of them is good enough."""


@attrs.define(eq=False, kw_only=True)
class ReadyVms:
    """Oldest first; handed out in this order."""

    _vms: OrderedDict[str, None] = attrs.field(factory=OrderedDict, init=False)
    stale: OrderedDict[str, StopReason] = attrs.field(factory=OrderedDict, init=False)
    """Those that are to be replaced, and why."""
    ages: Schedule[str] = attrs.field(factory=Schedule, init=False)
    """When one is too old."""
    checks: Schedule[str] = attrs.field(factory=Schedule, init=False)
    """When an agent is asked next."""
    being_checked: OrderedDict[str, None] = attrs.field(factory=OrderedDict, init=False)

    def __len__(self) -> int:
        return len(self._vms)

    def __iter__(self) -> Iterator[str]:
        return iter(self._vms)

    def __contains__(self, vm_id: object) -> bool:
        return vm_id in self._vms

    def add(self, vm_id: str, *, current: bool) -> None:
        self._vms[vm_id] = None
        if not current:
            self.stale[vm_id] = StopReason.STALE

    def take(self) -> str:
        """The VM to hand out: the one that is ready longest, of the current generation if there is any.

        One that is being asked whether it is there comes last: who gets it waits for its answer.
        """
        current = [vm_id for vm_id in itertools.islice(self._vms, _LOOK_AHEAD) if vm_id not in self.stale]
        if not current:  # all of the oldest are stale: look on
            current = list(itertools.islice((vm_id for vm_id in self._vms if vm_id not in self.stale), _LOOK_AHEAD))
        candidates = current or list(itertools.islice(self._vms, _LOOK_AHEAD))
        vm_id = next((vm_id for vm_id in candidates if vm_id not in self.being_checked), candidates[0])
        self.drop(vm_id)
        return vm_id

    def drop(self, vm_id: str) -> None:
        """It is ready no more, for whatever reason."""
        del self._vms[vm_id]
        self.stale.pop(vm_id, None)
        self.ages.drop(vm_id)
        self.checks.drop(vm_id)
        self.being_checked.pop(vm_id, None)
