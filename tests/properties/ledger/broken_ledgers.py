"""Ledgers with one fault each, to prove that the checks can fail. By the name of the check that must notice."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Final

import attrs

from actors.life import VmState
from actors.messages import VmHandedOut, VmReady
from pool.ledger import Effect, Event, Ledger, refusals
from pool.ledger.effects import (
    ConfirmRelease,
    FillShell,
    Grant,
    HandOutVm,
    LeaseEnded,
    Refusal,
    Refuse,
    StartVm,
    StopVm,
)
from pool.ledger.events import (
    AcquireRequested,
    GenerationChanged,
    GrantUndelivered,
    ReleaseRequested,
    RenewRequested,
    RequestAbandoned,
    Tick,
)
from pool.ledger.profile import ProfilePage
from pool.ledger.records import Claim, EndReason, Lease, Owner, VmEntry
from tests.properties.ledger.world import REPORT, TIMINGS


class KeepsReadyVmsInProduction(Ledger):
    def _vm_ready(self, fact: VmReady, *, now: float) -> None:
        super()._vm_ready(fact, now=now)
        entry = self._moves.fleet[fact.vm_id]
        self._moves.fleet.page_of(entry).producing_for_pool[fact.vm_id] = None


class ForgetsToCountDown(Ledger):
    def _release_requested(self, event: ReleaseRequested, *, now: float) -> None:
        lease = self.find_lease(event.lease_id, owner=event.owner)
        super()._release_requested(event, now=now)
        if isinstance(lease, Lease):
            self._moves.fleet.pages[lease.profile].leased += 1


class ForgetsToCountProductions(Ledger):
    def _vm_ready(self, fact: VmReady, *, now: float) -> None:
        super()._vm_ready(fact, now=now)
        self._moves.fleet.page_of(self._moves.fleet[fact.vm_id]).counters.produced = 0


class ProducesOneTooMany(Ledger):
    def _settle(self, page: ProfilePage, *, now: float) -> None:
        super()._settle(page, now=now)
        if not self._draining:
            self._start(page, claim_id=None, now=now)


class StartsOneShellTooMany(Ledger):
    def _settle(self, page: ProfilePage, *, now: float) -> None:
        super()._settle(page, now=now)
        if page.policy.shells and not self._draining:
            self._moves.start_shell(self.new_id("vm"), page, now=now)


class KeepsStaleShells(Ledger):
    def _stop_stale_shell(self, entry: VmEntry, page: ProfilePage, *, now: float) -> None:
        pass


class ForgetsWhatIsStale(Ledger):
    def _generation_changed(self, event: GenerationChanged, *, now: float) -> None:
        super()._generation_changed(event, now=now)
        self._moves.fleet.pages[event.profile].stale.clear()


class NeverFillsShells(Ledger):
    def _settle(self, page: ProfilePage, *, now: float) -> None:
        """As if one were being filled for each claim already."""
        pretended = {f"shell for {claim_id}" for claim_id in page.waiting}
        page.shells.filling |= pretended
        super()._settle(page, now=now)
        page.shells.filling -= pretended


class FillsTwice(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        effects = super().apply(event, now=now)
        return [*effects, *(effect for effect in effects if isinstance(effect, FillShell))]


class RollsAllAtOnce(Ledger):
    def _settle(self, page: ProfilePage, *, now: float) -> None:
        for vm_id in list(page.stale):
            self._moves.stop_vm(self._moves.fleet[vm_id], reason="of an older generation", now=now)
        super()._settle(page, now=now)


class NeverEndsALeaseByItself(Ledger):
    def _vm_handed_out(self, fact: VmHandedOut, *, now: float) -> None:
        super()._vm_handed_out(fact, now=now)
        self._moves.leases._expiries.clear()


class SaysTwiceThatALeaseEnded(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        effects = super().apply(event, now=now)
        return [*effects, *(effect for effect in effects if isinstance(effect, LeaseEnded))]


class CountsFencingTokensDown(Ledger):
    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._fencing_tokens = itertools.count(0, -1)


class LetsStrangersRenew(Ledger):
    def _renew_requested(self, event: RenewRequested, *, now: float) -> None:
        super()._renew_requested(attrs.evolve(event, owner=Owner(uid=0)), now=now)


class LetsClaimsWait(Ledger):
    def _settle(self, page: ProfilePage, *, now: float) -> None:
        if not (page.ready and page.waiting):
            super()._settle(page, now=now)


class NeverBootsForAClaim(Ledger):
    def _settle(self, page: ProfilePage, *, now: float) -> None:
        page.unserved_boot_claims.clear()
        super()._settle(page, now=now)


class PutsRetriesAtTheEnd(Ledger):
    def _retry(self, claim: Claim, page: ProfilePage, *, reason: str, now: float) -> None:
        super()._retry(claim, page, reason=reason, now=now)
        if claim.claim_id in page.waiting:
            page.waiting.move_to_end(claim.claim_id)


class KeepsAbandonedClaims(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        if isinstance(event, RequestAbandoned):
            self._moves.claims.leave(event.request_id)
            event = Tick()
        return super().apply(event, now=now)


class KeepsReleasedVms(Ledger):
    def _release_requested(self, event: ReleaseRequested, *, now: float) -> None:
        found = self.find_lease(event.lease_id, owner=event.owner)
        if isinstance(found, Refusal):
            self._moves.refuse(event.request_id, found)
        else:
            self._moves.leases.end(found, EndReason.RELEASED, detail="")
            self._moves.effects.append(ConfirmRelease(request_id=event.request_id))


class KeepsUndeliveredLeases(Ledger):
    def _grant_undelivered(self, event: GrantUndelivered, *, now: float) -> None:
        self._moves.leases.undelivered(event.lease_id)


class ForgetsTheKeysOfLeases(Ledger):
    def _join(self, event: AcquireRequested) -> bool:
        return self._moves.claims.of_key(event.owner, event.key) is not None and super()._join(event)


class IgnoresDeadlines(Ledger):
    def _expire(self, *, now: float) -> None:
        pass


class ServesTheEventBeforeTheDeadline(Ledger):
    _serving_event = False

    def apply(self, event: Event, *, now: float) -> list[Effect]:
        self._serving_event = True
        effects = super().apply(event, now=now)
        self._serving_event = False
        return effects + super().apply(Tick(), now=now)

    def _expire(self, *, now: float) -> None:
        if not self._serving_event:
            super()._expire(now=now)


class ExpiresEarly(Ledger):
    def _expire(self, *, now: float) -> None:
        super()._expire(now=now + 0.5)


class ExpiresWithoutAWord(Ledger):
    def _expire(self, *, now: float) -> None:
        for request_id, _ in self._moves.claims.overdue(now=now):
            self._moves.leave_claim(request_id, now=now)


class KeepsLeasesInADrain(Ledger):
    def _drain(self, *, now: float) -> None:
        self._draining = True
        for claim in self._moves.claims.all():
            self._moves.refuse_claim(claim, refusals.draining(), now=now)


class KeepsReadyVmsInADrain(KeepsLeasesInADrain):
    def _drain(self, *, now: float) -> None:
        super()._drain(now=now)
        for entry in self._moves.fleet.all():
            if entry.state not in (VmState.STOPPING, VmState.READY):
                self._moves.fleet.leave(entry, now=now)


class IgnoresAbandonment(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        return super().apply(Tick() if isinstance(event, RequestAbandoned) else event, now=now)


class _Twice(Ledger):
    """Says everything of one kind twice."""

    kind: type[Any]

    def apply(self, event: Event, *, now: float) -> list[Effect]:
        effects = super().apply(event, now=now)
        return [*effects, *(effect for effect in effects if isinstance(effect, self.kind))]


class StartsTwice(_Twice):
    kind = StartVm


class HandsOutTwice(_Twice):
    kind = HandOutVm


class StopsTwice(_Twice):
    kind = StopVm


class GrantsTwice(_Twice):
    kind = Grant


class RefusesTwice(_Twice):
    kind = Refuse


class GrantsToSomebodyElse(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        return [
            attrs.evolve(e, lease=attrs.evolve(e.lease, owner=Owner(uid=4711))) if isinstance(e, Grant) else e
            for e in super().apply(event, now=now)
        ]


class GrantsBeforeTheHandOutIsDone(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        effects = super().apply(event, now=now)
        for vm_id in [effect.vm_id for effect in effects if isinstance(effect, HandOutVm)]:
            self._vm_handed_out(VmHandedOut(vm_id=vm_id, report=REPORT, timings=TIMINGS), now=now)
        return effects + self._moves.take_effects()


class GrantsOneVmAgain(Ledger):
    def apply(self, event: Event, *, now: float) -> list[Effect]:
        leases = self.leases()
        return [
            attrs.evolve(e, lease=attrs.evolve(e.lease, vm_id=leases[0].vm_id))
            if isinstance(e, Grant) and leases
            else e
            for e in super().apply(event, now=now)
        ]


class LetsStrangersRelease(Ledger):
    def find_lease(self, lease_id: str, *, owner: Owner) -> Lease | Refusal:
        return super().find_lease(lease_id, owner=Owner(uid=0))


class LastComeFirstServed(Ledger):
    def _settle(self, page: ProfilePage, *, now: float) -> None:
        while page.waiting and page.ready:
            self._moves.hand_out_oldest(page, next(reversed(page.waiting.values())), now=now)
        super()._settle(page, now=now)


class ProducesWithoutLimit(Ledger):
    def _settle(self, page: ProfilePage, *, now: float) -> None:
        super()._settle(page, now=now)
        while not self._draining and page.shortage() > 0:
            self._start(page, claim_id=None, now=now)


class ForgetsToRetry(Ledger):
    def next_wakeup(self) -> float:
        return self._moves.claims.next_deadline()


class WantsATickAllTheTime(Ledger):
    def next_wakeup(self) -> float:
        return 0.0


BROKEN: Final[Mapping[str, tuple[type[Ledger], ...]]] = {
    "each_vm_is_in_exactly_one_place": (KeepsReadyVmsInProduction,),
    "counts_match_the_vms": (ForgetsToCountDown,),
    "counters_cover_the_vms": (ForgetsToCountProductions,),
    "never_more_than_wanted": (ProducesOneTooMany,),
    "no_more_shells_than_configured": (StartsOneShellTooMany,),
    "stale_is_what_is_of_another_generation": (KeepsStaleShells, ForgetsWhatIsStale),
    "no_shell_idles_while_a_claim_waits": (NeverFillsShells,),
    "fills_are_of_shells": (FillsTwice,),
    "rolling_leaves_the_minimum": (RollsAllAtOnce,),
    "no_vm_idles_while_a_claim_waits": (LetsClaimsWait,),
    "each_waiting_boot_claim_has_a_production": (NeverBootsForAClaim,),
    "claims_are_queued_or_on_a_vm": (PutsRetriesAtTheEnd,),
    "each_claim_has_someone_who_waits": (KeepsAbandonedClaims,),
    "leases_and_leased_vms_pair_up": (KeepsReleasedVms,),
    "each_lease_has_a_holder": (KeepsUndeliveredLeases,),
    "a_key_leads_to_one_thing": (ForgetsTheKeysOfLeases,),
    "wakeup_lies_ahead": (IgnoresDeadlines, WantsATickAllTheTime),
    "nobody_waits_past_the_deadline": (IgnoresDeadlines,),
    "a_draining_ledger_only_stops": (KeepsLeasesInADrain,),
    "starts_are_new_vms_of_known_profiles": (StartsTwice,),
    "hand_outs_are_of_ready_vms": (HandsOutTwice,),
    "stops_are_ordered_once": (StopsTwice,),
    "requests_are_answered_once": (GrantsTwice, RefusesTwice),
    "requests_are_not_answered_after_they_were_abandoned": (IgnoresAbandonment,),
    "answers_fit_their_requests": (GrantsToSomebodyElse,),
    "grants_are_not_late": (ServesTheEventBeforeTheDeadline,),
    "deadline_refusals_are_not_early": (ExpiresEarly,),
    "grants_are_of_handed_out_vms": (GrantsBeforeTheHandOutIsDone,),
    "no_vm_is_leased_twice": (GrantsOneVmAgain,),
    "no_lease_outlives_its_time": (NeverEndsALeaseByItself,),
    "leases_end_once": (SaysTwiceThatALeaseEnded,),
    "fencing_tokens_grow": (CountsFencingTokensDown,),
    "only_owners_and_root_touch_a_lease": (
        LetsStrangersRenew,
        LetsStrangersRelease,
    ),
    "first_come_first_served": (LastComeFirstServed,),
    "the_pool_produces_within_its_limits": (ProducesWithoutLimit,),
    "the_pool_fills_up_in_quiet_times": (ForgetsToRetry,),
    "ticks_come_to_an_end": (WantsATickAllTheTime,),
    "the_world_comes_to_rest": (WantsATickAllTheTime,),
    "a_drained_ledger_is_empty": (KeepsReadyVmsInADrain,),
    "every_request_gets_its_answer": (ExpiresWithoutAWord,),
}
