"""What the pool does by itself after every event: serve who waits, produce what is missing, stop what is too much."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from pool.ledger.moves import Moves
from pool.ledger.profile import ProfilePage
from pool.ledger.records import Claim
from pool.ledger.views import CircuitState


@attrs.define(eq=False, kw_only=True)
class Refill:
    """Brings what there is towards what is wanted, as far as host, budget and failures let it."""

    moves: Moves

    def settle(self, *, now: float) -> None:
        self.moves.admission.reserved_mib = 0
        for page in self._pages():
            self.serve(page, now=now)
        if self.moves.draining:
            return
        for page in self._pages():
            self.moves.follow_demand(page, now=now)
        # What goes makes room for what comes.
        self.keep_within_budget()
        for page in self._pages():
            self.replace_stale(page)
            self.shrink(page)
        # Those who wait come before the pools, in every profile.
        for page in self._pages():
            self.fill_shells(page, now=now)
            self.boot_for_claims(page, now=now)
        for page in self._pages():
            self.make_room_for_claims(page, now=now)
        while (neediest := self._neediest(now=now)) is not None:
            self.moves.start_vm(neediest, claim_id=None)
        for page in self._pages():
            self.shrink(page)  # what a shell was filled in place of
            self.start_shells(page, now=now)
            if page.is_over():
                self.moves.close_page(page)

    # -- who waits -----------------------------------------------------------------------------------------------

    def serve(self, page: ProfilePage, *, now: float) -> None:
        while page.waiting and page.ready:
            claim = next(iter(page.waiting.values()))
            growth_mib = _growth_mib(claim, page)
            if growth_mib and not self.moves.admission.fits(growth_mib):
                self._make_room(growth_mib, for_page=page)
                return  # who waits behind it waits too, or it might never get its memory
            self.moves.hand_out_oldest(page, claim, now=now)

    def fill_shells(self, page: ProfilePage, *, now: float) -> None:
        closed = page.circuit(now=now) is CircuitState.CLOSED  # else one trial at a time is made, from nothing
        while closed and self._admits(page, for_claim=True) and (shell := page.shell_to_fill(now=now)) is not None:
            self.moves.fill_shell(shell)

    def boot_for_claims(self, page: ProfilePage, *, now: float) -> None:
        """A production for each BOOT claim: a new one, or one of the pool's that is under way."""
        while page.unserved_boot_claims and not page.ready:
            claim_id = next(iter(page.unserved_boot_claims))
            if page.shortage() > 0 and page.may_boot_for_claim(now=now) and self._admits(page, for_claim=True):
                self.moves.start_vm(page, claim_id=claim_id)
            elif page.producing_for_pool:
                page.pass_on_production(claim_id)
            else:
                return

    def make_room_for_claims(self, page: ProfilePage, *, now: float) -> None:
        """Whoever waits has more right to memory than VMs that nobody has asked for."""
        unserved = min(len(page.waiting), page.shortage())
        if unserved > 0 and page.policy.memory_mib and not page.ready and page.may_serve_claims(now=now):
            self._make_room(unserved * page.policy.memory_mib, for_page=page)

    def _make_room(self, mib: int, *, for_page: ProfilePage) -> None:
        """Evicts idle VMs, first where most are above their minimum, until so much more fits once they are gone."""
        self.moves.admission.reserved_mib += mib
        while self.moves.admission.missing_mib(mib) > 0:
            # Its own VMs too, but for the one that its head claim is to get.
            donors = [
                page
                for page in self._pages()
                if page.policy.memory_mib and (len(page.ready) > 1 if page is for_page else not page.waiting)
                if page.ready
            ]
            if not donors:
                return
            donor = max(donors, key=lambda p: len(p.ready) - p.min_ready())
            vm_id = next(iter(donor.stale or donor.ready))
            self.moves.evict(vm_id, reason=f"its memory is needed for a claim of profile {for_page.name}")

    # -- the pools -----------------------------------------------------------------------------------------------

    def keep_within_budget(self) -> None:
        """What an earlier run with a larger one left idle goes."""
        while self.moves.admission.missing_mib(0) > 0:
            donors = [page for page in self._pages() if page.ready or page.producing_for_pool]
            if not donors:
                return
            donor = max(donors, key=lambda page: page.present() - page.min_ready())
            self.moves.stop_vm(self.moves.fleet[donor.cheapest()], reason="the memory budget is smaller than before")

    def replace_stale(self, page: ProfilePage) -> None:
        admission = self.moves.admission
        while page.may_roll(may_surge=admission.fits(page.policy.memory_mib)) and not admission.memory_low:
            page.counters.rolled += 1
            vm_id, why = next(iter(page.stale.items()))
            self.moves.stop_vm(self.moves.fleet[vm_id], reason=why.value)

    def _neediest(self, *, now: float) -> ProfilePage | None:
        """The page that is to get the next production: the one with the smallest part of what it wants."""
        # All of them are asked, since asking ends a back-off that is over.
        able = [page for page in self._pages() if page.may_refill(now=now)]
        wanting = [p for p in able if p.waiting and not p.ready and self._admits(p, for_claim=True)]
        return min(wanting or (page for page in able if self._admits(page)), key=_part, default=None)

    def start_shells(self, page: ProfilePage, *, now: float) -> None:
        while page.wants_shell(now=now) and not self.moves.admission.memory_low:
            self.moves.start_shell(page)

    def shrink(self, page: ProfilePage) -> None:
        while page.has_too_many():
            self.moves.stop_vm(self.moves.fleet[page.cheapest()], reason="the pool wants fewer VMs")
        while page.suspended and page.shells.idle:
            self.moves.stop_vm(self.moves.fleet[next(iter(page.shells.idle))], reason="the pool wants no shells")

    def _admits(self, page: ProfilePage, *, for_claim: bool = False) -> bool:
        return not self.moves.admission.holds_back(page.policy, for_claim=for_claim)

    def _pages(self) -> Iterator[ProfilePage]:
        return iter(tuple(self.moves.fleet.pages.values()))


def _growth_mib(claim: Claim, page: ProfilePage) -> int:
    return max(0, (claim.wishes.memory_mib or 0) - page.policy.memory_mib)


def _part(page: ProfilePage) -> float:
    return page.present() / page.wanted()
