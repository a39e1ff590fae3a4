"""One profile's shells: processes that are started and wait for a guest."""

from __future__ import annotations

from collections import OrderedDict

import attrs

from pool.ledger.failures import Failures


@attrs.define(eq=False, kw_only=True)
class ShellRack:
    """Which shells there are, and which productions came from one."""

    starting: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    idle: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    """Oldest first; filled in this order."""
    filling: set[str] = attrs.field(factory=set)
    """In production, out of a shell."""
    failures: Failures = attrs.field(factory=Failures)
    """Shells that did not come up or died early. The pool's own are apart: a shell that starts proves nothing about
    clones, and one that does not keeps nobody waiting."""

    def __len__(self) -> int:
        """Shells that are, or soon will be, there to be filled."""
        return len(self.starting) + len(self.idle)

    def may_start(self, *, now: float) -> bool:
        """Whether one may be started; ends a back-off that is over. After a failure one at a time is tried."""
        return self.failures.may_try(now=now) and not (self.failures.in_a_row and self.starting)

    def forget(self, vm_id: str) -> bool:
        """A VM is a shell no more, for whatever reason. Returns whether it was one that holds no guest."""
        self.filling.discard(vm_id)
        was_shell = vm_id in self.starting or vm_id in self.idle
        self.starting.pop(vm_id, None)
        self.idle.pop(vm_id, None)
        return was_shell
