"""Limits on the productions under way and on the memory of all VMs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import attrs

from pool.ledger.policy import PoolPolicy, ServicePolicy
from vmm.words.kinds import ProductionCost


@attrs.define(eq=False, kw_only=True)
class Admission:
    """Decides by counts that the fleet keeps up to date."""

    policy: ServicePolicy
    under_way: Counter[ProductionCost] = attrs.field(factory=Counter)
    """Productions, by cost class."""
    committed_mib: int = 0
    """Nominal memory of all VMs, until their processes are gone."""
    stopping_mib: int = 0
    """The part of `committed_mib` whose VMs are stopping."""
    reserved_mib: int = 0
    """Memory that the claims at the heads of queues wait for. Later claims and the pools do not take it; otherwise a
    large claim would wait for ever."""
    memory_low: str = ""
    """The host's report of low memory; empty while memory is not low."""

    def production_began(self, cost: ProductionCost) -> None:
        self.under_way[cost] += 1

    def production_ended(self, cost: ProductionCost) -> None:
        self.under_way[cost] -= 1

    def fits(self, mib: int) -> bool:
        """Whether `mib` more are within the budget now."""
        return self.committed_mib + mib <= self.policy.memory_budget_mib

    def missing_mib(self, mib: int) -> float:
        """The memory that must be freed for `mib` more, beyond that of stopping VMs."""
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
                f"and a VM needs {profile.memory_mib} MiB"
            )
        under_way = self.under_way[profile.cost]
        return (
            f"{under_way} VMs are {_UNDER_WAY[profile.cost]} already"
            if under_way >= self.policy.at_once(profile.cost)
            else ""
        )


_UNDER_WAY: Final[Mapping[ProductionCost, str]] = {
    ProductionCost.BOOT: "booting",
    ProductionCost.CLONE: "being cloned",
}
