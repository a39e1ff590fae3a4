"""Ledgers that do callers wrong: those who wait, and those who have a lease."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import attrs

from pool.ledger import refusals
from pool.ledger.book import Ledger
from pool.ledger.callers import Callers
from pool.ledger.effects import Confirm, Effect, HandOutVm, Refusal, RefusalCode
from pool.ledger.events import (
    AcquireRequested,
    Event,
    GrantUndelivered,
    HandoverRequested,
    LeaseRelinquished,
    ReleaseRequested,
    RenewRequested,
    RequestAbandoned,
    ShutdownRequested,
    Tick,
)
from pool.ledger.facts import Facts
from pool.ledger.profile import ProfilePage
from pool.ledger.reasons import StopReason
from pool.ledger.records import Claim, EndReason, Lease, Owner, VmEntry
from pool.ledger.refill import Refill
from pool.ledger.schedule import Schedule
from pool.ledger.succession import Succession
from vmm.words.facts import VmHandedOut
from vmm.words.life import VmState

NOBODY = Owner(uid=4711)

# -- those who wait ------------------------------------------------------------------------------------------------


class LetsClaimsWait(Refill):
    def hand_out(self, page: ProfilePage, *, now: float) -> bool:
        return False


class LastComeFirstServed(Refill):
    def hand_out(self, page: ProfilePage, *, now: float) -> bool:
        self.moves.hand_out_oldest(page, list(page.waiting)[-1], now=now)
        return True


class ServesUsersAsTheyCame(Callers):
    """However many of one came before the first of another."""

    def _open_claim(self, event: AcquireRequested, page: ProfilePage, *, now: float) -> None:
        super()._open_claim(event, page, now=now)
        for claim in list(page.waiting):
            page.waiting.remove(claim)
            claim.round = 0
            page.waiting.add(claim)


class ServesOneProfileAfterTheOther(Refill):
    """Whoever came first in the last of them waits for all who ask in those before."""

    def _in_turn(self, pages: Iterable[ProfilePage], serve: Callable[[ProfilePage], bool]) -> None:
        for page in pages:
            while page.next_to_serve() is not None and serve(page):
                pass


class NeverBootsForAClaim(Refill):
    def produce_for_claim(self, page: ProfilePage, *, now: float) -> bool:
        return False


class PutsRetriesAtTheEnd(Facts):
    def retry(self, claim: Claim, page: ProfilePage, *, reason: str) -> None:
        super().retry(claim, page, reason=reason)
        if claim in page.waiting:
            page.waiting.remove(claim)
            claim.round = page.waiting.next_round(claim.owner, served=claim.round)
            page.waiting.add(claim)


class KeepsAbandonedClaims(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        if isinstance(event, RequestAbandoned):
            self._moves.claims.leave(event.request_id)
            event = Tick()
        return super().apply(event, now=now)


class IgnoresDeadlines(Callers):
    def expire(self, *, now: float) -> None:
        pass


class ExpiresEarly(Callers):
    def expire(self, *, now: float) -> None:
        super().expire(now=now + 0.5)


class ExpiresWithoutAWord(Callers):
    def expire(self, *, now: float) -> None:
        for request_id, _ in self.moves.claims.overdue(now=now):
            self.moves.leave_claim(request_id, StopReason.DEADLINE, detail="")
        super().expire(now=now)  # leases end as they should, or the service would tick without end


class ServesTheEventBeforeTheDeadline(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        callers, self._callers = self._callers, IgnoresDeadlines(moves=self._moves)
        effects = super().apply(event, now=now)
        self._callers = callers
        return effects + super().apply(Tick(), now=now)


class CountsNoRequests(Callers):
    def _too_many_wait(self, owner: Owner) -> Refusal | None:
        return super()._too_many_wait(NOBODY)


class CountsOnlyHisOwnRequests(Callers):
    def _too_many_wait(self, owner: Owner) -> Refusal | None:
        refusal = super()._too_many_wait(owner)
        return None if refusal is None or refusal.code is RefusalCode.CROWDED else refusal


class CountsNoLeases(Callers):
    def _not_for_this_caller(self, event: AcquireRequested, page: ProfilePage) -> Refusal | None:
        return super()._not_for_this_caller(attrs.evolve(event, owner=NOBODY), page)


class ForgetsTheNamesOfLeases(Callers):
    def _not_for_this_caller(self, event: AcquireRequested, page: ProfilePage) -> Refusal | None:
        if self.moves.claims.has_name(event.owner, event.request.name):
            return super()._not_for_this_caller(event, page)
        return super()._not_for_this_caller(_nameless(event), page)


class ForgetsTheNamesOfClaims(Callers):
    def _not_for_this_caller(self, event: AcquireRequested, page: ProfilePage) -> Refusal | None:
        if self.moves.leases.of_name(event.owner, event.request.name) is not None:
            return super()._not_for_this_caller(event, page)
        return super()._not_for_this_caller(_nameless(event), page)


def _nameless(event: AcquireRequested) -> AcquireRequested:
    return attrs.evolve(event, request=attrs.evolve(event.request, name=""))


class SharesNamesAmongUsers(Callers):
    def _not_for_this_caller(self, event: AcquireRequested, page: ProfilePage) -> Refusal | None:
        name = event.request.name
        if name and any(lease.request.name == name for lease in self.moves.leases.all()):
            return refusals.name_taken(name)
        return super()._not_for_this_caller(event, page)


# -- those who have a lease ----------------------------------------------------------------------------------------


class ForgetsToCountDown(Callers):
    def release(self, event: ReleaseRequested) -> None:
        lease = self.moves.leases.find(event.lease_id, owner=event.owner)
        super().release(event)
        if isinstance(lease, Lease):
            self.moves.fleet.pages[lease.profile].leased += 1


class KeepsReleasedVms(Callers):
    def release(self, event: ReleaseRequested) -> None:
        found = self.moves.leases.find(event.lease_id, owner=event.owner)
        if isinstance(found, Refusal):
            self.moves.refuse(event.request_id, found)
        else:
            self.moves.leases.end(found, EndReason.RELEASED, detail="")
            self.moves.effects.append(Confirm(request_id=event.request_id))


class KeepsUndeliveredLeases(Callers):
    def undelivered(self, event: GrantUndelivered) -> None:
        self.moves.leases.undelivered(event.lease_id)


class LetsStrangersRelease(Callers):
    def release(self, event: ReleaseRequested) -> None:
        super().release(attrs.evolve(event, owner=Owner(uid=0)))


class LetsStrangersRenew(Callers):
    def renew(self, event: RenewRequested, *, now: float) -> None:
        super().renew(attrs.evolve(event, owner=Owner(uid=0)), now=now)


class ForgetsTheKeysOfLeases(Callers):
    def join(self, event: AcquireRequested, *, now: float) -> bool:
        return self.moves.claims.of_key(event.owner, event.request.key) is not None and super().join(event, now=now)


class NeverEndsALeaseByItself(Facts):
    def handed_out(self, entry: VmEntry, fact: VmHandedOut, *, now: float) -> None:
        super().handed_out(entry, fact, now=now)
        self.moves.leases._expiries = Schedule()


class CountsFencingTokensDown(Ledger):
    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._moves._fencing_tokens = itertools.count(0, -1)


class StopsWhatWasGivenAway(Callers):
    def relinquished(self, event: LeaseRelinquished) -> None:
        lease = self.moves.leases.get(event.lease_id)
        if lease is not None:
            self.moves.take_back(lease, EndReason.RELEASED, detail="")


class StopsLeasedVms(Ledger):
    """To make room, as if nobody had them."""

    def apply(self, event: Event, *, now: float) -> list[Effect]:
        effects = super().apply(event, now=now)
        leased = [lease for lease in self.leases() if any(isinstance(effect, HandOutVm) for effect in effects)]
        for lease in leased:
            self._moves.end_lease(lease, EndReason.RELEASED, detail="")
            self._moves.stop_vm(self._moves.fleet[lease.vm_id], StopReason.MEMORY)
        return effects + self._moves.take_effects()


# -- the end -------------------------------------------------------------------------------------------------------


class KeepsLeasesInADrain(Succession):
    def end(self, event: ShutdownRequested | HandoverRequested) -> None:
        self.moves.draining = True
        for claim in self.moves.claims.all():
            self.moves.refuse_claim(claim, refusals.shutting_down(), stops_for=StopReason.SHUTDOWN)


class KeepsReadyVmsInADrain(Succession):
    def _drain(self) -> None:
        for entry in self.moves.fleet.all():
            if entry.state not in (VmState.STOPPING, VmState.READY):
                self.moves.fleet.leave(entry, StopReason.SHUTDOWN)


class HandsOverWhatNobodyCanAdopt(Succession):
    """What is in production too, and what is on its way to a caller."""

    def _hand_over(self) -> None:
        for entry in self.moves.fleet.all():
            if entry.state not in (VmState.STOPPING, VmState.READY, VmState.LEASED):
                self.moves.detach_vm(entry, StopReason.HANDED_OVER, detail="")
        super()._hand_over()
