"""The moves: what changes more than one register at once, with the effects that go with it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pool.ledger import refusals
from pool.ledger.claims import ClaimRegister
from pool.ledger.effects import Effect, FillShell, Grant, HandOutVm, LeaseEnded, Refusal, Refuse, StartVm, StopVm
from pool.ledger.fleet import Fleet
from pool.ledger.leases import LeaseRegister
from pool.ledger.profile import ProfilePage
from pool.ledger.records import Claim, EndReason, Lease, PoolPolicy, VmEntry


@attrs.define(eq=False, kw_only=True)
class Moves:
    """The registers of VMs, claims and leases, kept in step. When to move and why is decided by the ledger."""

    policies: Mapping[str, PoolPolicy]
    fleet: Fleet = attrs.field(init=False)
    claims: ClaimRegister = attrs.field(factory=ClaimRegister, init=False)
    leases: LeaseRegister = attrs.field(factory=LeaseRegister, init=False)
    effects: list[Effect] = attrs.field(factory=list, init=False)
    """What is to be done about the moves so far."""

    def __attrs_post_init__(self) -> None:
        self.fleet = Fleet(policies=self.policies)

    def take_effects(self) -> list[Effect]:
        taken, self.effects = self.effects, []
        return taken

    # -- VMs -----------------------------------------------------------------------------------------------------

    def start_vm(self, vm_id: str, page: ProfilePage, *, claim_id: int | None, now: float) -> None:
        self.fleet.start(vm_id, page, claim_id=claim_id, now=now)
        self.effects.append(StartVm(vm_id=vm_id, profile=page.name))

    def start_shell(self, vm_id: str, page: ProfilePage, *, now: float) -> None:
        self.fleet.start_shell(vm_id, page, now=now)
        self.effects.append(StartVm(vm_id=vm_id, profile=page.name, as_shell=True))

    def fill_shell(self, vm_id: str, *, now: float) -> None:
        self.fleet.fill_shell(self.fleet[vm_id], now=now)
        self.effects.append(FillShell(vm_id=vm_id))

    def hand_out_oldest(self, page: ProfilePage, claim: Claim, *, now: float) -> None:
        entry = self.fleet.hand_out_oldest(page, claim, now=now)
        self.effects.append(HandOutVm(vm_id=entry.vm_id, wishes=claim.wishes))

    def stop_vm(self, entry: VmEntry, *, reason: str, now: float) -> None:
        self.fleet.leave(entry, now=now)
        self.effects.append(StopVm(vm_id=entry.vm_id, reason=reason))

    # -- claims --------------------------------------------------------------------------------------------------

    def refuse(self, request_id: int, refusal: Refusal) -> None:
        self.effects.append(Refuse(request_id=request_id, refusal=refusal))

    def refuse_late(self, request_id: int, page: ProfilePage) -> None:
        page.counters.refused += 1
        self.refuse(request_id, refusals.too_late(page))

    def refuse_claim(self, claim: Claim, refusal: Refusal, *, now: float) -> None:
        for request_id in claim.requests:
            self.refuse(request_id, refusal)
        self.fleet.pages[claim.profile].counters.refused += 1
        self.drop_claim(claim, reason=refusal.message, now=now)

    def leave_claim(self, request_id: int, *, now: float) -> None:
        """A request waits no longer; a claim without requests is dropped. Nothing happens if it was answered."""
        claim = self.claims.leave(request_id)
        if claim is not None and not claim.requests:
            self.drop_claim(claim, reason="its caller went away before it had the lease", now=now)

    def drop_claim(self, claim: Claim, *, reason: str, now: float) -> None:
        """Forgets a claim that nobody waits for any more; a VM on its way to it is dirty and is stopped."""
        if claim.vm_id is None:
            self.fleet.pages[claim.profile].dequeue(claim)
        else:
            self.stop_vm(self.fleet[claim.vm_id], reason=reason, now=now)
        self.claims.close(claim)

    # -- leases --------------------------------------------------------------------------------------------------

    def grant(self, claim: Claim, entry: VmEntry, lease: Lease, *, now: float) -> None:
        """The VM's hand-out is done: the claim becomes a lease, and each of its requests is answered."""
        self.fleet.lease(entry, lease, now=now)
        self.leases.open(lease, holders=len(claim.requests))
        self.effects.extend(Grant(request_id=request_id, lease=lease) for request_id in claim.requests)
        self.claims.close(claim)
        self.fleet.page_of(entry).counters.granted += 1

    def grant_again(self, request_id: int, lease: Lease) -> None:
        self.leases.grant_again(lease)
        self.effects.append(Grant(request_id=request_id, lease=lease))

    def end_lease(self, lease: Lease, reason: EndReason, *, detail: str) -> None:
        self.leases.end(lease, reason, detail=detail)
        self.effects.append(LeaseEnded(lease_id=lease.lease_id))

    def take_back(self, lease: Lease, reason: EndReason, *, detail: str, now: float) -> None:
        self.end_lease(lease, reason, detail=detail)
        self.stop_vm(self.fleet[lease.vm_id], reason=f"lease {lease.lease_id} {reason.value}", now=now)
