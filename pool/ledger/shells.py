"""One profile's shells: QEMU processes that wait for a guest."""

from __future__ import annotations

from collections import OrderedDict

import attrs

from pool.ledger.failures import Failures


@attrs.define(eq=False, kw_only=True)
class ShellRack:
    """The shells, and the productions that came from one."""

    starting: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    idle: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    """Oldest first, which is the order of filling."""
    filling: set[str] = attrs.field(factory=set)
    """VMs in production from a shell."""
    failures: Failures = attrs.field(factory=Failures)
    """Shells that did not come up or died early. They are counted apart from the pool's failures: a shell that starts
    proves nothing about clones, and a shell that fails keeps no caller waiting."""

    def __len__(self) -> int:
        """Shells that can be filled, now or soon."""
        return len(self.starting) + len(self.idle)

    def may_start(self, *, now: float) -> bool:
        """Whether a shell may be started; ends a back-off that is over. After a failure one at a time is tried."""
        return self.failures.may_try(now=now) and not (self.failures.in_a_row and self.starting)

    def forget(self, vm_id: str) -> bool:
        """Removes a VM. Returns whether it was a shell without a guest."""
        self.filling.discard(vm_id)
        was_shell = vm_id in self.starting or vm_id in self.idle
        self.starting.pop(vm_id, None)
        self.idle.pop(vm_id, None)
        return was_shell
