"""What was done and what was seen, and what must not be: kept by those outside of the service."""

from __future__ import annotations

from collections import Counter
from typing import Final

import attrs
import trio

from tests.chaos.plan import Blow

FLOODED: Final = "keeps sending frames that were not requested"
"""In the reason of a lease that ended for it."""

UNKNOWN: Final = "there is no lease"
"""Of one that ended shortly before another service took over, who does not know why."""


class ViolationError(AssertionError):
    """The service did what it must not do."""


@attrs.define(eq=False, kw_only=True)
class Holding:
    """A lease that its client knows of."""

    lease_id: str
    vm_id: str
    expires_at: float
    """At the earliest, on trio's clock."""
    marked: bool = False
    """Its id was written into the guest for certain."""
    lines: int | None = None
    """So many lines of its detached process were seen. None: it was not started for certain."""
    given_back: bool = False
    """Its release was asked for, and may have been done."""


@attrs.define(eq=False, kw_only=True)
class Books:
    killed: set[str] = attrs.field(factory=set)
    """VMs whose QEMU was killed by us; entered before it is done."""
    flooding: set[str] = attrs.field(factory=set)
    """VMs whose guest floods the service, or is about to."""
    of_vm: dict[str, str] = attrs.field(factory=dict)
    """VM id to the one lease that it may ever have."""
    blows: Counter[Blow] = attrs.field(factory=Counter)
    done: Counter[str] = attrs.field(factory=Counter)
    """What clients did, and how their calls ended where that was not as wished."""
    lost: Counter[str] = attrs.field(factory=Counter)
    """Leases that ended before their client gave them back, and why that is right."""
    starts: int = 0

    def granted(self, holding: Holding) -> None:
        """Raises ViolationError if the VM was somebody else's before."""
        first = self.of_vm.setdefault(holding.vm_id, holding.lease_id)
        if first != holding.lease_id:
            raise ViolationError(f"{holding.vm_id} has lease {holding.lease_id}, and had lease {first} before")

    def ended(self, holding: Holding, *, said: str) -> None:
        """The service says that a lease has ended. Raises ViolationError if nothing that was done explains it."""
        if holding.given_back:
            self.lost["it was given back, and the answer to that was lost"] += 1
        elif holding.vm_id in self.killed:
            self.lost["its QEMU was killed"] += 1
        elif holding.vm_id in self.flooding and (FLOODED in said or UNKNOWN in said):
            self.lost["its guest flooded the service"] += 1
        elif trio.current_time() >= holding.expires_at:
            self.lost["its time was over"] += 1
        else:
            left_s = holding.expires_at - trio.current_time()
            raise ViolationError(
                f"lease {holding.lease_id} of {holding.vm_id} ended, {left_s:.1f} s early and with its QEMU not "
                f"killed: {said}"
            )
