"""What the host can bear: how many productions at a time, and how much memory in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import attrs

from pool.ledger.policy import PoolPolicy, ServicePolicy
from vmm.words.kinds import ProductionCost


@attrs.define(eq=False, kw_only=True)
class Admission:
    """Counts what is under way; the fleet keeps the counts."""

    policy: ServicePolicy
    under_way: Counter[ProductionCost] = attrs.field(factory=Counter)
    """Productions, by what they cost."""
    committed_mib: int = 0
    """Nominal memory of all VMs, until their processes are gone."""
    stopping_mib: int = 0
    """Of that, what will be free in a moment."""
    reserved_mib: int = 0
    """Of the budget, what the claims at the heads of queues wait for. Who came later and pools leave it alone, or who
    needs much would never get it."""
    memory_low: str = ""
    """What the host said when its memory got low; empty while it is not."""

    def production_began(self, cost: ProductionCost) -> None:
        self.under_way[cost] += 1

    def production_ended(self, cost: ProductionCost) -> None:
        self.under_way[cost] -= 1

    def fits(self, mib: int) -> bool:
        """Whether so much more memory is within the budget now."""
        return self.committed_mib + mib <= self.policy.memory_budget_mib

    def missing_mib(self, mib: int) -> float:
        """What must be freed for so much more, beyond what is being freed already."""
        return self.committed_mib - self.stopping_mib + mib - self.policy.memory_budget_mib

    def holds_back(self, profile: PoolPolicy) -> str:
        """Why no production of this profile may begin now; empty if one may."""
        if self.memory_low:
            return f"the host's memory is low: {self.memory_low}"
        reserved_mib = self.reserved_mib if profile.memory_mib else 0
        if profile.memory_mib and not self.fits(profile.memory_mib + reserved_mib):
            reserved = f" and {reserved_mib} reserved for claims" if reserved_mib else ""
            return (
                f"{self.committed_mib} of {self.policy.memory_budget_mib:g} MiB are taken{reserved}, "
                f"a VM takes {profile.memory_mib}"
            )
        under_way = self.under_way[profile.cost]
        return f"{under_way} VMs {_UNDER_WAY[profile.cost]}" if under_way >= self.policy.at_once(profile.cost) else ""


_UNDER_WAY: Final[Mapping[ProductionCost, str]] = {
    ProductionCost.BOOT: "boot already",
    ProductionCost.CLONE: "are being cloned already",
}
