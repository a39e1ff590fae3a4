"""Ledgers that ask too much of the host: its memory, its CPUs, its VMs' agents."""

from __future__ import annotations

from pool.ledger.admission import Admission
from pool.ledger.effects import ReachVm
from pool.ledger.facts import Facts
from pool.ledger.fleet import Fleet
from pool.ledger.policy import PoolPolicy
from pool.ledger.records import VmEntry
from pool.ledger.succession import Succession
from pool.ledger.upkeep import Upkeep
from vmm.words.facts import VmLost
from vmm.words.kinds import ProductionCost
from vmm.words.life import VmState


class SpendsMoreThanItHas(Admission):
    def fits(self, mib: int) -> bool:
        return True


class NeverGetsMemoryBack(Fleet):
    def gone(self, entry: VmEntry) -> None:
        super().gone(entry)
        self.admission.committed_mib += entry.memory_mib


class ForgetsWhatGrew(Fleet):
    """A VM that is given more memory is counted as if it were not."""

    def grow(self, entry: VmEntry, *, memory_mib: int) -> None:
        entry.memory_mib = memory_mib


class BootsAllAtOnce(Admission):
    def holds_back(self, profile: PoolPolicy) -> str:
        reason = super().holds_back(profile)
        return "" if reason.endswith("already") else reason


class ForgetsProductions(Admission):
    def production_ended(self, cost: ProductionCost) -> None:
        pass


class ProducesThoughMemoryIsLow(Admission):
    def holds_back(self, profile: PoolPolicy) -> str:
        low, self.memory_low = self.memory_low, ""
        reason = super().holds_back(profile)
        self.memory_low = low
        return reason


class AsksAllAgentsAtOnce(Upkeep):
    def _checks_under_way(self) -> int:
        return 0


class BlamesThePool(Facts):
    """For whatever a VM was lost for."""

    def lost(self, entry: VmEntry, fact: VmLost, *, now: float) -> None:
        super().lost(entry, fact, now=now)
        self.moves.fleet.page_of(entry).last_error = fact.reason


class AsksOnlyOnce(Facts):
    """The next check of a VM that has answered is forgotten."""

    def healthy(self, entry: VmEntry, *, now: float) -> None:
        super().healthy(entry, now=now)
        self.moves.fleet.page_of(entry).ready.checks.drop(entry.vm_id)


class ReachesAllAtOnce(Succession):
    def _under_way(self) -> int:
        return 0


class ReachesOnlyTheFirst(Succession):
    """The others wait for ever."""

    def reach_idle(self) -> None:
        if not any(entry.adopted for entry in self.moves.fleet.all() if entry.state is not VmState.ADOPTING):
            super().reach_idle()


class ReachesTwice(Succession):
    def reach_idle(self) -> None:
        super().reach_idle()
        reached = [effect for effect in self.moves.effects if isinstance(effect, ReachVm)]
        self.moves.effects.extend(reached)
