"""The pool's own work after every event: serve waiting claims, produce missing VMs, stop surplus ones."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

import attrs

from pool.ledger.moves import Moves
from pool.ledger.profile import ProfilePage
from pool.ledger.reasons import REPLACEMENTS, StopReason
from pool.ledger.records import Claim
from pool.ledger.views import CircuitState


@attrs.define(eq=False, kw_only=True)
class Refill:
    """Brings the pools towards their wanted sizes, as far as host, budget and failures allow."""

    moves: Moves

    def settle(self, *, now: float) -> None:
        if self.moves.draining:
            return
        # Ready VMs go to waiting claims before they can be found to be surplus.
        self.hand_out_ready(now=now)
        for page in self._pages():
            self.moves.follow_demand(page, now=now)
        # First stop VMs, to make room for new ones.
        self.keep_within_budget()
        for page in self._pages():
            self.replace_stale(page)
            self.shrink(page)
        self.serve_claims(now=now)
        while (neediest := self._neediest(now=now)) is not None:
            self.moves.start_vm(neediest, claim_id=None)
        for page in self._pages():
            # Stopping the production that a filled shell replaces may make room for the next shell.
            while self.shrink(page) and self.fill_shells(page, now=now):
                pass
            self.start_shells(page, now=now)
            if page.is_over():
                self.moves.close_page(page)

    # -- waiting claims -----------------------------------------------------------------------------------------------

    def serve_claims(self, *, now: float) -> None:
        """Finds a VM, or starts a production, for each claim in the order of their turns over all profiles.

        A claim that cannot be served yet reserves the memory that it needs, so that no later claim takes it.
        """
        self.moves.admission.reserved_mib = 0
        self._in_turn(self._pages(), lambda page: self._serve(page, now=now))
        for page in sorted(self._pages(), key=lambda page: page.waiting.first_place()):
            self.fill_shells(page, now=now)  # a shell is faster than what is in production for a claim

    def hand_out_ready(self, *, now: float) -> None:
        self.moves.admission.reserved_mib = 0

        def serve(page: ProfilePage) -> bool:
            # Growth is for `serve_claims`: an earlier claim may wait for that memory.
            claim = page.waiting.first()
            grows = claim is None or _growth_mib(claim, page)
            return bool(page.ready) and not grows and self.hand_out(page, now=now)

        self._in_turn((page for page in self._pages() if page.ready), serve)

    def _in_turn(self, pages: Iterable[ProfilePage], serve: Callable[[ProfilePage], bool]) -> None:
        """Serves the claims without a VM in production, one after the other, by their places over all pages.

        If a claim cannot be served, the claims behind it on its page wait, too; otherwise it might never be served.
        """
        by_name = {page.name: page for page in pages}
        # Serving a claim moves no other claim forward, so each page is in the heap once, with the place of its next
        # claim or of an earlier one.
        heads = [(claim.place, name) for name, page in by_name.items() if (claim := page.next_to_serve()) is not None]
        heapq.heapify(heads)
        while heads:
            place, name = heads[0]
            claim = by_name[name].next_to_serve()
            if claim is not None and claim.place > place:
                heapq.heapreplace(heads, (claim.place, name))
            elif claim is None or not serve(by_name[name]):
                heapq.heappop(heads)

    def _serve(self, page: ProfilePage, *, now: float) -> bool:
        """Whether a VM was found, or a production started, for the next claim."""
        if page.ready:
            return self.hand_out(page, now=now)
        return self.fill_shells(page, now=now) or self.produce_for_claim(page, now=now)

    def hand_out(self, page: ProfilePage, *, now: float) -> bool:
        """Whether the head of the queue got its VM. Its growth must fit into the budget."""
        claim = page.waiting.first()
        assert claim is not None
        admission = self.moves.admission
        growth_mib = _growth_mib(claim, page)
        if growth_mib and (admission.memory_low or not admission.fits(admission.reserved_mib + growth_mib)):
            self._reserve(growth_mib, for_page=page)
            return False
        self.moves.hand_out_oldest(page, claim, now=now)
        return True

    def fill_shells(self, page: ProfilePage, *, now: float) -> bool:
        """Whether any shell was filled."""
        filled = False
        closed = page.circuit(now=now) is CircuitState.CLOSED  # else one trial at a time is made, without a shell
        while closed and self._admits(page) and (shell := page.shell_to_fill(now=now)) is not None:
            self.moves.fill_shell(shell)
            filled = True
        return filled

    def produce_for_claim(self, page: ProfilePage, *, now: float) -> bool:
        """Whether a production was started for a waiting claim, or one of the pool's was passed on to it."""
        claim = page.unserved_boot_claims.first()
        claim_id = None if claim is None else claim.claim_id
        if claim_id is None:
            able = page.may_refill(now=now)
        else:
            able = page.shortage() > 0 and page.may_boot_for_claim(now=now)
        if able and self._admits(page):
            self.moves.start_vm(page, claim_id=claim_id)
            return True
        if able:
            # Even if it fits and waits for something else: a pool would take the memory that was freed for it.
            self._reserve(page.policy.memory_mib, for_page=page)
        if claim_id is not None and page.producing_for_pool:
            page.pass_on_production(claim_id)
            return True
        return False

    def _reserve(self, mib: int, *, for_page: ProfilePage) -> None:
        """Reserves memory for the page's head claim, and evicts idle VMs if that frees enough.

        The VMs are taken from pages without an earlier claim, first from the page with most VMs above its minimum.
        """
        admission = self.moves.admission
        admission.reserved_mib += mib
        if admission.memory_low or admission.missing_mib(admission.reserved_mib) <= 0:
            return
        head = for_page.waiting.first_place()
        donors = [
            page
            for page in self._pages()
            if page.ready
            and page.policy.memory_mib
            and (page is for_page or page.waiting.first_place() > head)
            and self._spare(page, for_page)
        ]
        could_mib = sum(self._spare(page, for_page) * page.policy.memory_mib for page in donors)
        if admission.missing_mib(admission.reserved_mib) > could_mib:
            return
        while admission.missing_mib(admission.reserved_mib) > 0:
            donor = max(
                (page for page in donors if self._spare(page, for_page)), key=lambda p: len(p.ready) - p.min_ready()
            )
            vm_id = next(iter(donor.ready.stale or donor.ready))
            self.moves.evict(
                vm_id, StopReason.MEMORY, detail=f"its memory is needed for a claim of profile {for_page.name}"
            )

    @staticmethod
    def _spare(page: ProfilePage, for_page: ProfilePage) -> int:
        """How many idle VMs of `page` may be evicted; `for_page` itself keeps one for its head claim."""
        return max(0, len(page.ready) - (page is for_page))

    # -- the pools -----------------------------------------------------------------------------------------------

    def keep_within_budget(self) -> None:
        """Stops idle VMs that an earlier run with a larger budget left."""
        while self.moves.admission.missing_mib(0) > 0:
            idle = (page for page in self._pages() if page.ready or page.producing_for_pool)
            donors = [page for page in idle if page.policy.memory_mib]
            if not donors:
                return
            donor = max(donors, key=lambda page: page.present() - page.min_ready())
            self.moves.evict(donor.cheapest(), StopReason.MEMORY, detail="the memory budget is smaller than before")

    def replace_stale(self, page: ProfilePage) -> None:
        admission = self.moves.admission
        while page.may_roll(may_surge=admission.fits(page.policy.memory_mib)) and not admission.memory_low:
            page.counters.rolled += 1
            vm_id, why = next(iter(page.ready.stale.items()))
            self.moves.stop_vm(self.moves.fleet[vm_id], why, detail=REPLACEMENTS[why])

    def _neediest(self, *, now: float) -> ProfilePage | None:
        """The page that gets the next production: the one with the smallest part of its wanted VMs."""
        # Call `may_refill` of all pages, since it ends a back-off that is over.
        able = [page for page in self._pages() if page.may_refill(now=now)]
        return min((page for page in able if self._admits(page)), key=_part, default=None)

    def start_shells(self, page: ProfilePage, *, now: float) -> None:
        while page.wants_shell(now=now) and not self.moves.admission.memory_low:
            self.moves.start_shell(page)

    def shrink(self, page: ProfilePage) -> bool:
        """Stops surplus VMs. Returns whether there were any."""
        too_many = page.has_too_many()
        while page.has_too_many():
            reason = StopReason.DRAIN if page.drained else page.shrinks_for
            self.moves.stop_vm(self.moves.fleet[page.cheapest()], reason, detail=_too_many(page))
        page.shrinks_for = StopReason.SURPLUS
        while page.drained and page.shells.idle:
            shell = self.moves.fleet[next(iter(page.shells.idle))]
            self.moves.stop_vm(shell, StopReason.DRAIN, detail="the pool wants no shells")
        return too_many

    def _admits(self, page: ProfilePage) -> bool:
        return not self.moves.admission.holds_back(page.policy)

    def _pages(self) -> Iterator[ProfilePage]:
        return iter(tuple(self.moves.fleet.pages.values()))


def _growth_mib(claim: Claim, page: ProfilePage) -> int:
    return max(0, (claim.request.wishes.memory_mib or 0) - page.policy.memory_mib)


def _too_many(page: ProfilePage) -> str:
    return f"the pool wants {page.wanted()} and has {page.present()}"


def _part(page: ProfilePage) -> float:
    return page.present() / page.wanted()
