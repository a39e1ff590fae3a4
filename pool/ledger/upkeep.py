"""Upkeep of idle VMs: checks of their agents, maximum age, generations and low memory of the host."""

from __future__ import annotations

import math

import attrs

from pool.ledger.events import GenerationChanged, HostMemoryLow, HostMemoryOk
from pool.ledger.facts import Facts
from pool.ledger.moves import Moves
from pool.ledger.news import ProfileChange, ProfileNews
from pool.ledger.profile import ProfilePage
from pool.ledger.reasons import StopReason
from vmm.words.life import VmState


@attrs.define(eq=False, kw_only=True)
class Upkeep:
    """Deals with idle VMs only."""

    moves: Moves
    facts: Facts

    def next_wakeup(self) -> float:
        """When an age or a check is due; infinity if none is. While all checks are in use, no further check is due."""
        pages = self.moves.fleet.pages.values()
        ages = min((page.ready.ages.next_at() for page in pages), default=math.inf)
        if self._checks_under_way() >= self.moves.service.checks_at_once:
            return ages
        return min(ages, min((page.ready.checks.next_at() for page in pages), default=math.inf))

    def note_ages(self, *, now: float) -> None:
        for page in self.moves.fleet.pages.values():
            for vm_id in page.ready.ages.take_due(now=now):
                page.ready.stale[vm_id] = StopReason.AGE  # and not STALE, which a change of generation may undo

    def check_agents(self, *, now: float) -> None:
        """Starts due checks, a few at a time."""
        budget = self.moves.service.checks_at_once - self._checks_under_way()
        for page in self.moves.fleet.pages.values():
            while budget > 0 and page.ready.checks.next_at() <= now:
                self.moves.check_vm(next(page.ready.checks.take_due(now=now)), page)
                budget -= 1

    def _checks_under_way(self) -> int:
        return sum(len(page.ready.being_checked) for page in self.moves.fleet.pages.values())

    def generation_changed(self, event: GenerationChanged) -> None:
        page = self.moves.fleet.pages.get(event.profile)
        if page is None:
            return  # the page was closed meanwhile
        self.moves.fleet.change_generation(page, event.generation)
        self.moves.tell_of(page, ProfileChange.GENERATION, event.generation)
        for vm_id in list(page.shells.idle):
            self.facts.stop_stale_shell(self.moves.fleet[vm_id])

    # -- host memory ---------------------------------------------------------------------------------------------

    def host_memory(self, event: HostMemoryLow | HostMemoryOk) -> None:
        """Stops one VM for each report of low memory: the next report shows the effect."""
        if isinstance(event, HostMemoryLow):
            self._memory_is_low(event)
        elif self.moves.admission.memory_low:
            self.moves.admission.memory_low = ""
            self.moves.tell(ProfileNews(profile="", change=ProfileChange.HOST_MEMORY, detail="enough again"))

    def _memory_is_low(self, event: HostMemoryLow) -> None:
        if not self.moves.admission.memory_low:
            self.moves.tell(ProfileNews(profile="", change=ProfileChange.HOST_MEMORY, detail=f"low: {event.detail}"))
        self.moves.admission.memory_low = event.detail or "no details"
        detail = f"the host's memory is low: {event.detail}"
        pages = [page for page in self.moves.fleet.pages.values() if page.ready or page.producing_for_pool]
        if not pages:
            return
        page = max(pages, key=_spare)
        vm_id = page.cheapest()
        if self.moves.fleet[vm_id].state is VmState.READY:
            self.moves.evict(vm_id, StopReason.MEMORY, detail=detail)
        else:
            self.moves.stop_vm(self.moves.fleet[vm_id], StopReason.MEMORY, detail=detail)


def _spare(page: ProfilePage) -> int:
    """How many VMs the page has above its minimum."""
    return len(page.ready) + len(page.producing_for_pool) - page.min_ready()
