"""The callers' requests: acquire, release, renew; and callers that go away."""

from __future__ import annotations

from typing import Final

import attrs

from pool.ledger import refusals
from pool.ledger.effects import Confirm, ConfirmRenewal, RecordExpiry, Refusal
from pool.ledger.events import (
    AcquireRequested,
    GrantUndelivered,
    HeldAnew,
    LeaseRelinquished,
    ReleaseRequested,
    RenewalRecorded,
    RenewRequested,
    RequestAbandoned,
)
from pool.ledger.moves import Moves
from pool.ledger.policy import OnEmpty
from pool.ledger.profile import ProfilePage
from pool.ledger.reasons import StopReason
from pool.ledger.records import EndReason, Lease, Owner
from pool.ledger.views import CircuitState
from vmm.words.machines import grown_memory_mib

_GONE_BEFORE: Final = "its caller went away before it had the lease"


@attrs.define(eq=False, kw_only=True)
class Callers:
    """Answers requests, or queues them as claims."""

    moves: Moves
    _returning: dict[int, str] = attrs.field(factory=dict, init=False)
    """Requests to the leases that they hold again once the new expiry is recorded."""

    def expire(self, *, now: float) -> None:
        """Refuses waiting requests whose deadline has passed, and ends expired leases."""
        moves = self.moves
        for request_id, claim in moves.claims.overdue(now=now):
            moves.refuse_late(request_id, moves.fleet.pages[claim.profile], claim=claim)
            moves.leave_claim(request_id, StopReason.DEADLINE, detail="its caller's deadline passed")
        for lease in moves.leases.expired(now=now):
            moves.take_back(lease, EndReason.EXPIRED, detail="it was not renewed in time")

    # -- acquire -------------------------------------------------------------------------------------------------

    def acquire(self, event: AcquireRequested, *, now: float) -> None:
        page = None if self.moves.draining else self._page_for(event)
        if self.moves.draining:
            self.moves.refuse(event.request_id, refusals.shutting_down())
        elif page is None:
            names = (known.name for known in self.moves.fleet.pages.values() if not known.passing)
            self.moves.refuse(event.request_id, refusals.unknown_profile(event.profile, known=names))
        elif (refusal := self._over_maximum(event, page)) is not None:
            self.moves.refuse(event.request_id, refusal)
        elif event.deadline <= now:
            self.moves.refuse_late(event.request_id, page)
        elif not (event.request.key and self.join(event, now=now)):
            self._open_claim(event, page, now=now)

    def _page_for(self, event: AcquireRequested) -> ProfilePage | None:
        """The profile's page. A passing page is found only by its configuration, or by the key of a request on it."""
        page = self.moves.fleet.pages.get(event.profile)
        if page is None:
            return None if event.opens is None else self.moves.fleet.open_page(event.profile, event.opens)
        if page.passing and event.opens is not None:
            self.moves.fleet.set_policy(page, event.opens)  # a restored page was opened without its policy
        elif page.passing and not (event.request.key and self._knows(event)):
            return None
        return page

    def _knows(self, event: AcquireRequested) -> bool:
        claims, leases = self.moves.claims, self.moves.leases
        return bool(claims.of_key(event.owner, event.request.key) or leases.of_key(event.owner, event.request.key))

    def _over_maximum(self, event: AcquireRequested, page: ProfilePage) -> Refusal | None:
        wishes, policy = event.request.wishes, page.policy
        for field, wished, maximum in (
            ("vcpus", wishes.vcpus, policy.max_vcpus),
            ("memory_mib", wishes.memory_mib, policy.max_memory_mib),
        ):
            if wished is not None and maximum is not None and wished > maximum:
                return refusals.over_maximum(field, wished=wished, maximum=maximum, profile=page.name)
        if wishes.memory_mib is not None and policy.max_memory_mib is not None:
            grown_mib = grown_memory_mib(policy.memory_mib, wished_mib=wishes.memory_mib)
            if grown_mib > max(policy.memory_mib, policy.max_memory_mib):
                return refusals.between_blocks(wished=wishes.memory_mib, page=page)
        needed = max(policy.memory_mib, wishes.memory_mib or 0)
        budget = self.moves.service.memory_budget_mib
        return refusals.over_budget(needed=needed, budget=budget) if needed > budget else None

    def join(self, event: AcquireRequested, *, now: float) -> bool:
        """Joins the claim or lease of a known idempotency key. Returns whether the key is known."""
        claim = self.moves.claims.of_key(event.owner, event.request.key)
        lease = self.moves.leases.of_key(event.owner, event.request.key)
        known = claim or lease
        if known is None:
            return False
        # A joining request gets the lease of the first one; a bound lease might never end without a call that holds it.
        if known.profile != event.profile or known.request.bound != event.request.bound:
            self.moves.refuse(event.request_id, refusals.key_reused(known))
        elif claim is not None:
            if claim.vm_id is None and (refusal := self._too_many_wait(event.owner)) is not None:
                self.moves.refuse(event.request_id, refusal)
            else:
                self.moves.claims.join(claim, event)
        elif lease is not None:
            self.moves.leases.join(lease)
            if lease.request.bound:  # its holder's connection was lost, and the holder is back
                again = HeldAnew(lease_id=lease.lease_id, request=event)
                self._returning[event.request_id] = lease.lease_id
                self._record_expiry(lease, expires_at=now + event.request.ttl_s, renewal=again)
            else:
                self.moves.grant_again(event.request_id, lease)
        return True

    def _open_claim(self, event: AcquireRequested, page: ProfilePage, *, now: float) -> None:
        on_empty = event.on_empty or page.policy.on_empty
        hit = self._is_hit(event, page)
        refusal = self._not_for_this_caller(event, page)
        if refusal is None and not hit and on_empty is not OnEmpty.FAIL:  # the request would wait
            refusal = self._too_many_wait(event.owner)
        if refusal is not None:  # counts as neither a hit nor a miss, nor as demand
            page.counters.refused += 1
            self.moves.refuse(event.request_id, refusal)
            return
        if page.demand is not None:
            page.demand.arrived(now)
            self.moves.follow_demand(page, now=now)
        page.counters.hits += hit
        page.counters.misses += not hit
        refusal = None if hit else _nothing_for(on_empty, page, now=now)
        if refusal is not None:
            page.counters.refused += 1
            self.moves.refuse(event.request_id, refusal)
        else:
            claims = self.moves.claims
            round_ = page.waiting.next_round(event.owner, served=claims.round_served)
            page.enqueue(claims.open(event, round_=round_, on_empty=on_empty, found_ready=hit, now=now))

    def _not_for_this_caller(self, event: AcquireRequested, page: ProfilePage) -> Refusal | None:
        owner, name = event.owner, event.request.name
        if name and (self.moves.claims.has_name(owner, name) or self.moves.leases.of_name(owner, name) is not None):
            return refusals.name_taken(name)
        has = self.moves.claims.claims_of(owner) + self.moves.leases.leases_of(owner)
        if has >= self.moves.service.leases_per_uid:
            return refusals.too_many_leases(owner, has=has)
        return refusals.drained(page) if page.drained else None

    def _too_many_wait(self, owner: Owner) -> Refusal | None:
        """The refusal if too many requests wait, of this user or of all. One user may have as many as remain."""
        claims, service = self.moves.claims, self.moves.service
        waiting, of_all = claims.waiting_of(owner), claims.waiting()
        if waiting >= service.requests_per_uid:
            return refusals.too_many_requests(owner, waiting=waiting)
        if waiting >= service.requests - of_all:
            return refusals.crowded(owner, waiting=waiting, of_all=of_all)
        return None

    def _is_hit(self, event: AcquireRequested, page: ProfilePage) -> bool:
        """Whether a VM is ready, no claim waits, and memory is available for the requested growth."""
        growth_mib = max(0, (event.request.wishes.memory_mib or 0) - page.policy.memory_mib)
        admission = self.moves.admission
        fits = not growth_mib or (admission.fits(admission.reserved_mib + growth_mib) and not admission.memory_low)
        return bool(page.ready) and not page.waiting and fits

    # -- what follows --------------------------------------------------------------------------------------------

    def release(self, event: ReleaseRequested) -> None:
        found = self.moves.leases.find(event.lease_id, owner=event.owner)
        if isinstance(found, Lease):
            self.moves.take_back(found, EndReason.RELEASED, detail="by its owner")
            self.moves.effects.append(Confirm(request_id=event.request_id))
        else:
            self.moves.refuse(event.request_id, found)

    def renew(self, event: RenewRequested, *, now: float) -> None:
        found = self.moves.leases.find(event.lease_id, owner=event.owner)
        if isinstance(found, Lease):
            self._record_expiry(found, expires_at=now + event.ttl_s, renewal=event)
        else:
            self.moves.refuse(event.request_id, found)

    def _record_expiry(self, lease: Lease, *, expires_at: float, renewal: RenewRequested | HeldAnew) -> None:
        self.moves.effects.append(RecordExpiry(vm_id=lease.vm_id, expires_at=expires_at, renewal=renewal))

    def renewal_recorded(self, event: RenewalRecorded, *, now: float) -> None:
        lease = self.moves.leases.get(event.renewal.lease_id)
        if lease is not None and event.recorded:
            self.moves.renew(lease, expires_at=event.expires_at)
            self.expire(now=now)  # the new time may be over already
        if isinstance(event.renewal, HeldAnew):
            self._held_anew(event.renewal, now=now)
        else:
            self._renewed(event.renewal, recorded=event.recorded)

    def _renewed(self, renewal: RenewRequested, *, recorded: bool) -> None:
        found = self.moves.leases.find(renewal.lease_id, owner=renewal.owner)
        if isinstance(found, Lease) and not recorded:
            found = refusals.not_recorded(found)
        if isinstance(found, Lease):
            self.moves.effects.append(ConfirmRenewal(request_id=renewal.request_id, lease=found))
        else:
            self.moves.refuse(renewal.request_id, found)

    def _held_anew(self, renewal: HeldAnew, *, now: float) -> None:
        """Grants the lease again, with its previous expiry if the new one was not recorded."""
        lease, request = self.moves.leases.get(renewal.lease_id), renewal.request
        if self._returning.pop(request.request_id, None) is None:
            return  # the request was abandoned
        if lease is None:  # it ended meanwhile
            self.acquire(request, now=now)
        elif request.deadline <= now:
            self.moves.refuse_late(request.request_id, self.moves.fleet.pages[lease.profile])
            self.undelivered(GrantUndelivered(lease_id=lease.lease_id))
        else:
            self.moves.grant_again(request.request_id, lease)

    def abandoned(self, event: RequestAbandoned) -> None:
        """Does nothing if the request was answered."""
        lease_id = self._returning.pop(event.request_id, None)
        if lease_id is None:
            self.moves.leave_claim(event.request_id, StopReason.ABANDONED, detail=_GONE_BEFORE)
        else:
            self.undelivered(GrantUndelivered(lease_id=lease_id))

    def has_it_no_more(self, event: GrantUndelivered | LeaseRelinquished) -> None:
        if isinstance(event, LeaseRelinquished):
            self.relinquished(event)
        else:
            self.undelivered(event)

    def undelivered(self, event: GrantUndelivered) -> None:
        lease = self.moves.leases.undelivered(event.lease_id)
        if lease is not None:
            self.moves.take_back(lease, EndReason.ABANDONED, detail=event.detail)

    def relinquished(self, event: LeaseRelinquished) -> None:
        """Does nothing for a lease that ended meanwhile: its VM's actor knows that the VM was given away."""
        lease = self.moves.leases.get(event.lease_id)
        if lease is not None:
            self.moves.end_lease(lease, EndReason.GIVEN_AWAY, detail="the VM was given away")
            self.moves.detach_vm(self.moves.fleet[lease.vm_id], StopReason.GIVEN_AWAY, detail="it left the service")


def _nothing_for(on_empty: OnEmpty, page: ProfilePage, *, now: float) -> Refusal | None:
    """The refusal of a caller who found no VM ready and cannot wait for one."""
    if on_empty is OnEmpty.FAIL or (on_empty is OnEmpty.WAIT and page.size == 0):
        return refusals.nothing_ready(page)
    if on_empty is OnEmpty.BOOT and page.circuit(now=now) is CircuitState.OPEN:
        return refusals.circuit_open(page, now=now)
    return None
