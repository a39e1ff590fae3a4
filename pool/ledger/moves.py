"""The moves: changes that involve more than one register, with their effects."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping

import attrs

from pool.ledger import refusals
from pool.ledger.admission import Admission
from pool.ledger.claims import ClaimRegister
from pool.ledger.effects import (
    AdoptVm,
    CheckVm,
    DetachVm,
    Effect,
    FillShell,
    Grant,
    HandOutVm,
    LeaseEnded,
    ProfileClosed,
    ReachVm,
    Refusal,
    Refuse,
    StartVm,
    StopVm,
    Tell,
)
from pool.ledger.fleet import Fleet
from pool.ledger.leases import LeaseRegister
from pool.ledger.news import LeaseChange, LeaseNews, News, ProfileChange, ProfileNews
from pool.ledger.policy import PoolPolicy, ServicePolicy
from pool.ledger.profile import ProfilePage
from pool.ledger.reasons import OF_LEASE, StopReason
from pool.ledger.records import Claim, EndReason, Lease, VmEntry
from pool.ledger.views import CircuitState
from vmm.words.leases import HandOutOrder, LeaseTerms


@attrs.define(eq=False, kw_only=True)
class Moves:
    """The registers of VMs, claims and leases, kept in step. Other modules decide the moves."""

    policies: Mapping[str, PoolPolicy]
    service: ServicePolicy
    new_id: Callable[[str], str]
    rng: random.Random
    first_fencing_token: int
    fleet: Fleet = attrs.field(init=False)
    admission: Admission = attrs.field(init=False)
    claims: ClaimRegister = attrs.field(factory=ClaimRegister, init=False)
    leases: LeaseRegister = attrs.field(factory=LeaseRegister, init=False)
    effects: list[Effect] = attrs.field(factory=list, init=False)
    """The effects of the moves so far."""
    draining: bool = attrs.field(default=False, init=False)
    _fencing_tokens: Iterator[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._fencing_tokens = itertools.count(self.first_fencing_token)
        self.admission = Admission(policy=self.service)
        self.fleet = Fleet(policies=self.policies, admission=self.admission, tell=self.tell)

    def take_effects(self) -> list[Effect]:
        taken, self.effects = self.effects, []
        return taken

    def tell(self, news: News) -> None:
        self.effects.append(Tell(news=news))

    # -- VMs -----------------------------------------------------------------------------------------------------

    def start_vm(self, page: ProfilePage, *, claim_id: int | None) -> None:
        vm_id = self.new_id("vm")
        self.fleet.start(vm_id, page, claim_id=claim_id)
        self.effects.append(StartVm(vm_id=vm_id, profile=page.name))

    def start_shell(self, page: ProfilePage) -> None:
        vm_id = self.new_id("vm")
        self.fleet.start_shell(vm_id, page)
        self.effects.append(StartVm(vm_id=vm_id, profile=page.name, as_shell=True))

    def adopt_vm(self, vm_id: str, page: ProfilePage) -> None:
        self.fleet.adopt(vm_id, page)
        self.effects.append(AdoptVm(vm_id=vm_id, profile=page.name))

    def reach_vm(self, page: ProfilePage) -> None:
        """Connects to the next VM that is to be adopted."""
        vm_id, _ = page.unreached.popitem(last=False)
        self.effects.append(ReachVm(vm_id=vm_id))

    def fill_shell(self, vm_id: str) -> None:
        self.fleet.fill_shell(self.fleet[vm_id])
        self.effects.append(FillShell(vm_id=vm_id))

    def check_vm(self, vm_id: str, page: ProfilePage) -> None:
        page.ready.being_checked[vm_id] = None
        self.effects.append(CheckVm(vm_id=vm_id))

    def hand_out_oldest(self, page: ProfilePage, claim: Claim, *, now: float) -> None:
        entry = self.fleet.hand_out_oldest(page, claim)
        self.claims.found_vm(claim, entry.vm_id, now=now)
        entry.terms = terms = LeaseTerms(
            lease_id=self.new_id("lease"),
            owner_uid=claim.owner.uid,
            request=claim.request,
            fencing_token=next(self._fencing_tokens),
            queued_s=claim.chosen_at - claim.arrived_at,
            was_ready=claim.found_ready,
        )
        self.effects.append(HandOutVm(vm_id=entry.vm_id, order=HandOutOrder(terms=terms)))

    def stop_vm(self, entry: VmEntry, reason: StopReason, *, detail: str = "") -> None:
        self.fleet.leave(entry, reason, detail=detail)
        self.effects.append(StopVm(vm_id=entry.vm_id, reason=reason, detail=detail))

    def evict(self, vm_id: str, reason: StopReason, *, detail: str) -> None:
        """Stops an idle VM and counts the eviction."""
        entry = self.fleet[vm_id]
        self.fleet.page_of(entry).counters.evicted += 1
        self.stop_vm(entry, reason, detail=detail)

    def detach_vm(self, entry: VmEntry, reason: StopReason, *, detail: str) -> None:
        self.fleet.leave(entry, reason, detail=detail)
        self.effects.append(DetachVm(vm_id=entry.vm_id))

    # -- profiles ------------------------------------------------------------------------------------------------

    def tell_of(self, page: ProfilePage, change: ProfileChange, detail: str) -> None:
        self.tell(ProfileNews(profile=page.name, change=change, detail=detail))

    def follow_demand(self, page: ProfilePage, *, now: float) -> None:
        before = page.size
        if page.follow_demand(now=now):
            page.shrinks_for = StopReason.DEMAND if page.size < before else page.shrinks_for
            self.tell_of(page, ProfileChange.RESIZED, f"{page.size}, by demand")

    def back_off(self, page: ProfilePage, *, after: int = 0, now: float) -> None:
        """Counts a failed production; the circuit may open."""
        page.failures.one_more(page.policy.backoff, after=after, now=now, randomness=self.rng.random())
        if page.circuit(now=now) is CircuitState.OPEN:
            seconds = page.failures.retry_at - now
            failed = "failures of a caller's own configuration" if page.passing else page.last_error
            self.tell_of(page, ProfileChange.CIRCUIT, f"open for {seconds:.1f} s after: {failed}")
            for claim in list(page.unserved_boot_claims):
                self.refuse_claim(claim, refusals.circuit_open(page, now=now))

    def close_page(self, page: ProfilePage) -> None:
        self.fleet.close_page(page)
        self.effects.append(ProfileClosed(profile=page.name))

    # -- claims --------------------------------------------------------------------------------------------------

    def refuse(self, request_id: int, refusal: Refusal) -> None:
        self.effects.append(Refuse(request_id=request_id, refusal=refusal))

    def refuse_late(self, request_id: int, page: ProfilePage, *, claim: Claim | None = None) -> None:
        page.counters.refused += 1
        held_back = self.admission.holds_back(page.policy)
        self.refuse(request_id, refusals.too_late(page, claim, held_back=held_back))

    def refuse_claim(
        self, claim: Claim, refusal: Refusal, *, stops_for: StopReason | None = None, detail: str = ""
    ) -> None:
        """`stops_for`: the reason to stop the VM that is being handed out to the claim; None if the claim waits.

        `detail` is about that VM. Every user may watch VMs; the refusal is for the caller alone.
        """
        for request_id in claim.requests:
            self.refuse(request_id, refusal)
        self.fleet.pages[claim.profile].counters.refused += 1
        self.drop_claim(claim, stops_for, detail=detail)

    def leave_claim(self, request_id: int, reason: StopReason, *, detail: str) -> None:
        """Removes a request, and its claim if it was the last one. Does nothing if the request was answered."""
        claim = self.claims.leave(request_id)
        if claim is not None and not claim.requests:
            self.drop_claim(claim, reason, detail=detail)

    def drop_claim(self, claim: Claim, reason: StopReason | None, *, detail: str) -> None:
        """Forgets a claim. A VM that is being handed out to it is dirty, and is stopped for `reason`."""
        if claim.vm_id is None:
            self.fleet.pages[claim.profile].withdraw(claim)
        else:
            assert reason is not None
            self.stop_vm(self.fleet[claim.vm_id], reason, detail=detail)
        self.claims.close(claim)

    # -- leases --------------------------------------------------------------------------------------------------

    def grant(self, claim: Claim, entry: VmEntry, lease: Lease) -> None:
        """The hand-out is done: the claim becomes a lease, and each of its requests is answered."""
        self.fleet.lease(entry, lease)
        self.leases.open(lease, holders=len(claim.requests))
        self.effects.extend(Grant(request_id=request_id, lease=lease) for request_id in claim.requests)
        self.claims.close(claim)
        self.fleet.page_of(entry).counters.granted += 1
        self.tell(LeaseNews(lease=lease, change=LeaseChange.GRANTED))

    def grant_again(self, request_id: int, lease: Lease) -> None:
        self.effects.append(Grant(request_id=request_id, lease=lease))

    def renew(self, lease: Lease, *, expires_at: float) -> Lease:
        renewed = self.leases.renew(lease, expires_at=expires_at)
        self.tell(LeaseNews(lease=renewed, change=LeaseChange.RENEWED))
        return renewed

    def tell_of_silence(self, lease: Lease, *, detail: str) -> None:
        """`detail` is empty if the guest answers again."""
        change = LeaseChange.SILENT if detail else LeaseChange.ANSWERING
        self.tell(LeaseNews(lease=lease, change=change, detail=detail))

    def end_lease(self, lease: Lease, reason: EndReason, *, detail: str) -> None:
        self.leases.end(lease, reason, detail=detail)
        self.effects.append(LeaseEnded(lease_id=lease.lease_id))
        self.tell(LeaseNews(lease=lease, change=LeaseChange.ENDED, reason=reason, detail=detail))

    def take_back(self, lease: Lease, reason: EndReason, *, detail: str) -> None:
        self.end_lease(lease, reason, detail=detail)
        self.stop_vm(self.fleet[lease.vm_id], OF_LEASE[reason], detail="its lease has ended")
