"""The facts that VM actors report, and their consequences."""

from __future__ import annotations

from typing import Final

import attrs

from pool.ledger import refusals
from pool.ledger.moves import Moves
from pool.ledger.news import LeaseChange, LeaseNews, ProfileChange
from pool.ledger.policy import OnEmpty
from pool.ledger.profile import ProfilePage
from pool.ledger.reasons import OF_CAUSE, StopReason
from pool.ledger.records import Claim, EndReason, Lease, VmEntry
from pool.ledger.views import CircuitState
from vmm.words.facts import (
    LeaseAdopted,
    ShellReady,
    VmFact,
    VmGone,
    VmHandedOut,
    VmHealthy,
    VmLost,
    VmReady,
    VmSilent,
    WishRefused,
)
from vmm.words.life import VmState
from vmm.words.processes import without_output

EARLY_DEATH_S: Final = 10.0
"""A VM that dies this soon after becoming ready counts as a failed production; otherwise a guest that crashes after its
boot would be rebooted as fast as the host can."""

MAX_HAND_OUT_ATTEMPTS: Final = 3
"""A claim whose hand-out failed gets another VM; after this many failures the VM is probably not the cause."""


@attrs.define(eq=False, kw_only=True)
class Facts:
    """Processes facts about VMs."""

    moves: Moves

    def note(self, fact: VmFact, *, now: float) -> None:
        entry = self.moves.fleet[fact.vm_id]
        if isinstance(fact, VmGone):
            self.gone(entry, fact, now=now)
        elif entry.state is not VmState.STOPPING:  # else the order to stop and this fact crossed
            match fact:
                case ShellReady():
                    self.shell_ready(entry, fact, now=now)
                case VmReady():
                    self.ready(entry, fact, now=now)
                case VmHealthy():
                    self.healthy(entry, now=now)
                case VmHandedOut():
                    self.handed_out(entry, fact, now=now)
                case WishRefused():
                    self.wish_refused(entry, fact)
                case LeaseAdopted():
                    self.lease_adopted(entry, fact)
                case VmSilent():
                    self.silent(entry, fact)
                case VmLost():
                    self.lost(entry, fact, now=now)

    def shell_ready(self, entry: VmEntry, fact: ShellReady, *, now: float) -> None:
        self.moves.fleet.became_shell(entry, fact, now=now)
        self.stop_stale_shell(entry)

    def stop_stale_shell(self, entry: VmEntry) -> None:
        """A shell of another template cannot be filled; shells are cheap, so all stale ones are stopped at once."""
        page = self.moves.fleet.page_of(entry)
        if page.generation and entry.generation != page.generation:
            self.moves.stop_vm(entry, StopReason.STALE, detail="its template was replaced")

    def ready(self, entry: VmEntry, fact: VmReady, *, now: float) -> None:
        page = self.moves.fleet.page_of(entry)
        circuit = page.circuit(now=now)
        self.moves.fleet.became_ready(entry, fact, spread=self.moves.rng.random(), now=now)
        if circuit is not CircuitState.CLOSED and page.circuit(now=now) is CircuitState.CLOSED:
            self.moves.tell_of(page, ProfileChange.CIRCUIT, "closed: a VM has become ready")

    def healthy(self, entry: VmEntry, *, now: float) -> None:
        page = self.moves.fleet.page_of(entry)
        if entry.vm_id in page.ready.being_checked:  # else it is being handed out by now
            del page.ready.being_checked[entry.vm_id]
            page.ready.checks.set(entry.vm_id, now + page.policy.check_interval_s)

    def handed_out(self, entry: VmEntry, fact: VmHandedOut, *, now: float) -> None:
        assert entry.claim_id is not None
        assert entry.terms is not None
        lease = Lease(
            vm_id=fact.vm_id,
            pid=entry.pid,
            profile=entry.profile,
            terms=entry.terms.fulfilled(),
            granted_at=now,
            expires_at=now + entry.terms.request.ttl_s,
            made_by=entry.made_by,
            report=fact.report,
            timings=fact.timings,
        )
        self.moves.grant(self.moves.claims[entry.claim_id], entry, lease)

    def wish_refused(self, entry: VmEntry, fact: WishRefused) -> None:
        """The VM is dirty and is stopped; the refusal is no failure of the pool or its other VMs."""
        assert entry.claim_id is not None
        claim = self.moves.claims[entry.claim_id]
        refusal = refusals.wish_refused(self.moves.fleet.page_of(entry), fact)
        self.moves.refuse_claim(
            claim, refusal, stops_for=StopReason.WISH, detail="its guest refused what its caller wished"
        )

    def lease_adopted(self, entry: VmEntry, fact: LeaseAdopted) -> None:
        assert entry.lease_id is not None
        entry.pid = fact.pid
        self.moves.tell(LeaseNews(lease=self.moves.leases[entry.lease_id], change=LeaseChange.RESTORED))
        self.moves.fleet.page_of(entry).counters.restored += 1

    def silent(self, entry: VmEntry, fact: VmSilent) -> None:
        assert entry.lease_id is not None
        self.moves.tell_of_silence(self.moves.leases[entry.lease_id], detail=fact.detail)

    def lost(self, entry: VmEntry, fact: VmLost, *, now: float) -> None:
        page = self.moves.fleet.page_of(entry)
        if page.passing:
            fact = _without_output(fact)
        was = entry.state
        was_shell = was is VmState.SHELL or fact.vm_id in page.shells.starting
        was_filling = fact.vm_id in page.shells.filling
        claim_id = self.moves.fleet.leave(entry, _reason(entry, fact), detail=_for_everybody(was, page, fact))
        claim = None if claim_id is None else self.moves.claims[claim_id]
        if was is not VmState.LEASED:  # a leased VM's loss is no failure of the pool
            page.last_error = fact.reason
            page.last_evidence = fact.evidence
        if was_shell:
            self._shell_lost(entry, page, came_up=was is VmState.SHELL, now=now)
        elif was_filling:
            # The failure is the shell's, which may have been too old; the waiting claim gets a production of its own.
            self._shell_lost(entry, page, came_up=False, now=now)
            if claim is not None:
                page.unserved_boot_claims.add(claim)
        elif was in (VmState.PRODUCING, VmState.ADOPTING):
            self._production_lost(entry, page, claim, reason=fact.reason, now=now)
        elif was is VmState.LEASED:
            page.counters.lost_leased += 1
            assert entry.lease_id is not None
            self.moves.end_lease(self.moves.leases[entry.lease_id], EndReason.VM_LOST, detail=fact.reason)
        else:
            self._idle_lost(entry, page, claim, reason=fact.reason, now=now)

    def _shell_lost(self, entry: VmEntry, page: ProfilePage, *, came_up: bool, now: float) -> None:
        page.counters.lost_shells += 1
        if not came_up or now - entry.ready_at < EARLY_DEATH_S:
            randomness = self.moves.rng.random()
            page.shells.failures.one_more(
                page.policy.backoff, after=entry.failures_before, now=now, randomness=randomness
            )

    def _production_lost(
        self, entry: VmEntry, page: ProfilePage, claim: Claim | None, *, reason: str, now: float
    ) -> None:
        if entry.adopted:  # the loss of an adopted VM says nothing about production
            page.counters.lost_idle += 1
            if claim is not None:
                page.unserved_boot_claims.add(claim)
            return
        if claim is not None:
            self.moves.refuse_claim(claim, refusals.production_failed(page, reason=reason))
        page.counters.production_failures += 1
        self.moves.back_off(page, now=now)

    def _idle_lost(self, entry: VmEntry, page: ProfilePage, claim: Claim | None, *, reason: str, now: float) -> None:
        early = not entry.adopted and now - entry.ready_at < EARLY_DEATH_S  # else it says nothing about production
        if claim is None:
            page.counters.lost_idle += 1
        else:
            page.counters.hand_out_failures += 1
        if claim is not None:
            self.retry(claim, page, reason=reason)
        if early or claim is not None:
            self.moves.back_off(page, after=entry.failures_before if early else 0, now=now)

    def retry(self, claim: Claim, page: ProfilePage, *, reason: str) -> None:
        """A hand-out failed: the claim returns to its place in the queue, if it may have another VM."""
        self.moves.claims.lost_vm(claim)
        claim.attempts += 1
        claim.last_failure = reason
        page.enqueue(claim)
        nothing_comes = claim.on_empty is OnEmpty.WAIT and page.size == 0 and not page.ready
        last = claim.attempts >= MAX_HAND_OUT_ATTEMPTS or page.drained or nothing_comes
        if last or (claim.on_empty is OnEmpty.FAIL and not page.ready):
            self.moves.refuse_claim(claim, refusals.hand_out_failed(page, claim, reason=reason))

    def gone(self, entry: VmEntry, fact: VmGone, *, now: float) -> None:
        if entry.state is not VmState.STOPPING:
            self.lost(entry, VmLost(vm_id=fact.vm_id, reason="its actor ended without a report"), now=now)
        if fact.error is not None:
            self.moves.fleet.page_of(entry).last_error = fact.error
        self.moves.fleet.gone(entry)


def _reason(entry: VmEntry, fact: VmLost) -> StopReason:
    match entry.state:
        case VmState.PRODUCING:
            return StopReason.PRODUCTION
        case VmState.HANDING_OUT:
            return StopReason.HAND_OUT
        case _:
            return OF_CAUSE[fact.cause]


def _for_everybody(was: VmState, page: ProfilePage, fact: VmLost) -> str:
    """The reason as every user may read it by watching VMs: a leased VM's can quote its guest."""
    if was is VmState.LEASED:
        return "the VM of a lease was lost"
    return "a VM of a caller's own configuration was lost" if page.passing else fact.reason


def _without_output(fact: VmLost) -> VmLost:
    """The fact without QEMU's output: a caller who describes a machine can make QEMU quote files."""
    told = without_output(fact.reason)
    return fact if told == fact.reason else attrs.evolve(fact, reason=f"{told}; the service's log has QEMU's output")
