"""What callers ask for: acquire, release, renew, and going away."""

from __future__ import annotations

import attrs

from pool.ledger import refusals
from pool.ledger.effects import Confirm, ConfirmRenewal, Refusal
from pool.ledger.events import (
    AcquireRequested,
    GrantUndelivered,
    LeaseRelinquished,
    ReleaseRequested,
    RenewRequested,
)
from pool.ledger.moves import Moves
from pool.ledger.policy import OnEmpty
from pool.ledger.profile import ProfilePage
from pool.ledger.records import EndReason, Lease
from pool.ledger.views import CircuitState


@attrs.define(eq=False, kw_only=True)
class Callers:
    """Answers requests, or queues them as claims."""

    moves: Moves

    def expire(self, *, now: float) -> None:
        """Ends what has reached its time: requests that wait, and leases."""
        moves = self.moves
        for request_id, claim in moves.claims.overdue(now=now):
            moves.refuse_late(request_id, moves.fleet.pages[claim.profile])
            moves.leave_claim(request_id)
        for lease in moves.leases.expired(now=now):
            detail = f"it was not renewed for {lease.expires_at - lease.granted_at:.0f} s after it was granted"
            moves.take_back(lease, EndReason.EXPIRED, detail=detail)

    # -- acquire -------------------------------------------------------------------------------------------------

    def acquire(self, event: AcquireRequested, *, now: float) -> None:
        page = self.moves.fleet.pages.get(event.profile)
        if page is None and event.opens is not None and not self.moves.draining:
            page = self.moves.fleet.open_page(event.profile, event.opens)
        if page is None:
            names = (known.name for known in self.moves.fleet.pages.values() if not known.passing)
            refusal: Refusal | None = refusals.unknown_profile(event.profile, known=names)
        else:
            refusal = self._refusal(event, page)
        if refusal is not None:
            self.moves.refuse(event.request_id, refusal)
        elif page is not None and event.deadline <= now:
            self.moves.refuse_late(event.request_id, page)
        elif page is not None and not (event.key and self.join(event, now=now)):
            self._open_claim(event, page, now=now)

    def _refusal(self, event: AcquireRequested, page: ProfilePage) -> Refusal | None:
        """Why it cannot even wait."""
        waiting, limit = self.moves.claims.requests_of(event.owner), self.moves.service.requests_per_uid
        if self.moves.draining:
            return refusals.draining()
        if waiting >= limit:
            return refusals.too_many_requests(event.owner, waiting=waiting)
        return self._over_maximum(event, page)

    def _over_maximum(self, event: AcquireRequested, page: ProfilePage) -> Refusal | None:
        wishes, policy = event.wishes, page.policy
        for field, wished, maximum in (
            ("vcpus", wishes.vcpus, policy.max_vcpus),
            ("memory_mib", wishes.memory_mib, policy.max_memory_mib),
        ):
            if wished is not None and maximum is not None and wished > maximum:
                return refusals.over_maximum(field, wished=wished, maximum=maximum, profile=page.name)
        needed = max(policy.memory_mib, wishes.memory_mib or 0)
        budget = self.moves.service.memory_budget_mib
        return refusals.over_budget(needed=needed, budget=budget) if needed > budget else None

    def join(self, event: AcquireRequested, *, now: float) -> bool:
        """A known idempotency key leads to the claim or lease that it already has. Returns whether it is known."""
        claim = self.moves.claims.of_key(event.owner, event.key)
        lease = self.moves.leases.of_key(event.owner, event.key)
        known = claim or lease
        if known is None:
            return False
        if known.profile != event.profile:
            self.moves.refuse(event.request_id, refusals.key_reused(known))
        elif claim is not None:
            self.moves.claims.join(claim, event)
        elif lease is not None:
            if lease.bound and event.bound:  # its holder's connection was lost, and here it is again
                lease = self.moves.renew(lease, expires_at=now + event.ttl_s)
            self.moves.grant_again(event.request_id, lease)
        return True

    def _open_claim(self, event: AcquireRequested, page: ProfilePage, *, now: float) -> None:
        if page.demand is not None:
            page.demand.arrived(now)
            self.moves.follow_demand(page, now=now)
        on_empty = event.on_empty or page.policy.on_empty
        hit = bool(page.ready)
        refusal = self._no_claim(event, page, hit=hit, on_empty=on_empty, now=now)
        page.counters.hits += hit
        page.counters.misses += not hit
        if refusal is not None:
            page.counters.refused += 1
            self.moves.refuse(event.request_id, refusal)
        else:
            page.enqueue(self.moves.claims.open(event, on_empty=on_empty, found_ready=hit, now=now))

    def _no_claim(
        self, event: AcquireRequested, page: ProfilePage, *, hit: bool, on_empty: OnEmpty, now: float
    ) -> Refusal | None:
        """Why a caller who is not known yet gets no VM."""
        has = self.moves.claims.claims_of(event.owner) + self.moves.leases.leases_of(event.owner)
        if has >= self.moves.service.leases_per_uid:
            return refusals.too_many_leases(event.owner, has=has)
        if page.suspended:
            return refusals.suspended(page)
        nothing_comes = on_empty is OnEmpty.WAIT and page.size == 0
        if not hit and (on_empty is OnEmpty.FAIL or nothing_comes):
            return refusals.nothing_ready(page)
        if not hit and on_empty is OnEmpty.BOOT and page.circuit(now=now) is CircuitState.OPEN:
            return refusals.circuit_open(page, now=now)
        return None

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
            renewed = self.moves.renew(found, expires_at=now + event.ttl_s)
            self.moves.effects.append(ConfirmRenewal(request_id=event.request_id, lease=renewed))
        else:
            self.moves.refuse(event.request_id, found)

    def undelivered(self, event: GrantUndelivered) -> None:
        lease = self.moves.leases.undelivered(event.lease_id)
        if lease is not None:
            self.moves.take_back(lease, EndReason.ABANDONED, detail=event.detail)

    def relinquished(self, event: LeaseRelinquished) -> None:
        """Nothing is left to do for a lease that ended meanwhile: its VM knows whose it is."""
        lease = self.moves.leases.get(event.lease_id)
        if lease is not None:
            self.moves.end_lease(lease, EndReason.GIVEN_AWAY, detail="the VM is its taker's")
            self.moves.detach_vm(self.moves.fleet[lease.vm_id], reason="it was given away")
