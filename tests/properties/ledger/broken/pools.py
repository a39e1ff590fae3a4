"""Ledgers that keep their pools wrong: VMs, shells, generations."""

from __future__ import annotations

from pool.ledger.events import GenerationChanged
from pool.ledger.facts import Facts
from pool.ledger.fleet import Fleet
from pool.ledger.profile import ProfilePage, Room
from pool.ledger.records import VmEntry
from pool.ledger.refill import Refill
from pool.ledger.upkeep import Upkeep
from pool.ledger.views import CircuitState
from vmm.words.facts import VmReady


class KeepsReadyVmsInProduction(Facts):
    def ready(self, entry: VmEntry, fact: VmReady, *, now: float) -> None:
        super().ready(entry, fact, now=now)
        self.moves.fleet.page_of(entry).producing_for_pool[fact.vm_id] = None


class ForgetsToCountProductions(Facts):
    def ready(self, entry: VmEntry, fact: VmReady, *, now: float) -> None:
        super().ready(entry, fact, now=now)
        self.moves.fleet.page_of(entry).counters.produced = 0


class ProducesOneTooMany(Refill):
    def settle(self, *, now: float) -> None:
        super().settle(now=now)
        if not self.moves.draining:
            self.moves.start_vm(next(self._pages()), claim_id=None)


class ProducesWithoutLimit(Refill):
    def start_shells(self, page: ProfilePage, *, now: float) -> None:
        while page.shortage() > 0:
            self.moves.start_vm(page, claim_id=None)


class ForgetsThatLeasedVmsAreVms(ProfilePage):
    def wanted(self) -> int:
        room, self.room = self.room, Room(vms=self.room.vms - self.leased)
        wanted = super().wanted()
        self.room = room
        return wanted


class CountsOwnConfigurationsApart(Fleet):
    """Each new one may have as many VMs as the profile."""

    def _share_room(self, page: ProfilePage) -> None:
        pass


class NeverCloses(ProfilePage):
    def is_over(self) -> bool:
        return False


class NeverOpensTheCircuit(ProfilePage):
    def circuit(self, *, now: float) -> CircuitState:
        return CircuitState.CLOSED


class TriesSeveralAtOnce(ProfilePage):
    """Though the last ones failed."""

    def may_refill(self, *, now: float) -> bool:
        in_production = len(self.producing_for_pool)
        return self.failures.may_try(now=now) and self.shortage() > 0 and in_production < self.policy.production_limit


class KeepsIdleVmsOfADrainedProfile(Refill):
    def shrink(self, page: ProfilePage) -> bool:
        return not page.drained and super().shrink(page)


# -- shells --------------------------------------------------------------------------------------------------------


class StartsOneShellTooMany(Refill):
    def start_shells(self, page: ProfilePage, *, now: float) -> None:
        if page.policy.shells:
            self.moves.start_shell(page)


class KeepsStaleShells(Facts):
    def stop_stale_shell(self, entry: VmEntry) -> None:
        pass


class NeverFillsShells(Refill):
    def fill_shells(self, page: ProfilePage, *, now: float) -> bool:
        return False


# -- generations ---------------------------------------------------------------------------------------------------


class ForgetsWhatIsStale(Upkeep):
    def generation_changed(self, event: GenerationChanged) -> None:
        super().generation_changed(event)
        self.moves.fleet.pages[event.profile].ready.stale.clear()


class RollsAllAtOnce(Refill):
    def replace_stale(self, page: ProfilePage) -> None:
        for vm_id, why in list(page.ready.stale.items()):
            self.moves.stop_vm(self.moves.fleet[vm_id], why)
