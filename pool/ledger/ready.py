"""One profile's ready VMs: their order, and which of them are due for replacement or a check."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import attrs

from pool.ledger.reasons import StopReason
from pool.ledger.schedule import Schedule

_LOOK_AHEAD: Final = 8
"""More than the number of simultaneous checks on any sensible setting, so that a VM without a check is among them."""


@attrs.define(eq=False, kw_only=True)
class ReadyVms:
    """Ready VMs, oldest first, which is the order of hand-outs."""

    _vms: OrderedDict[str, None] = attrs.field(factory=OrderedDict, init=False)
    stale: OrderedDict[str, StopReason] = attrs.field(factory=OrderedDict, init=False)
    """VMs that are to be replaced, with the reason."""
    ages: Schedule[str] = attrs.field(factory=Schedule, init=False)
    """When a VM reaches its maximum age."""
    checks: Schedule[str] = attrs.field(factory=Schedule, init=False)
    """When an agent is checked next."""
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
        """Removes and returns the VM to hand out: the oldest, of the current generation if possible.

        A VM that is being checked comes last, since its hand-out waits for the check.
        """
        current = [vm_id for vm_id in itertools.islice(self._vms, _LOOK_AHEAD) if vm_id not in self.stale]
        if not current:  # all of the oldest are stale: look on
            current = list(itertools.islice((vm_id for vm_id in self._vms if vm_id not in self.stale), _LOOK_AHEAD))
        candidates = current or list(itertools.islice(self._vms, _LOOK_AHEAD))
        vm_id = next((vm_id for vm_id in candidates if vm_id not in self.being_checked), candidates[0])
        self.drop(vm_id)
        return vm_id

    def drop(self, vm_id: str) -> None:
        """Removes a VM."""
        del self._vms[vm_id]
        self.stale.pop(vm_id, None)
        self.ages.drop(vm_id)
        self.checks.drop(vm_id)
        self.being_checked.pop(vm_id, None)
