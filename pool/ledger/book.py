"""The ledger: who has which VM, who waits for one, and what to do about it."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final, assert_never

import attrs

from actors.life import VmState
from actors.messages import LeaseAdopted, ShellReady, VmGone, VmHandedOut, VmLost, VmReady
from pool.ledger import refusals
from pool.ledger.effects import ConfirmRelease, ConfirmRenewal, Effect, Refusal
from pool.ledger.events import (
    AcquireRequested,
    DrainRequested,
    Event,
    GenerationChanged,
    GrantUndelivered,
    ReleaseRequested,
    RenewRequested,
    RequestAbandoned,
    Tick,
)
from pool.ledger.moves import Moves
from pool.ledger.profile import ProfilePage, ProfileView
from pool.ledger.records import Claim, EndReason, Lease, OnEmpty, Owner, PoolPolicy, VmEntry

EARLY_DEATH_S: Final = 10.0
"""A VM that dies within this after becoming ready counts as a failed production, or a guest that comes up and falls
over would be rebooted as fast as the host can."""

MAX_HAND_OUT_ATTEMPTS: Final = 3
"""A claim whose hand-out failed gets another VM; after so many failures the fault is not the VM's."""


@attrs.define(eq=False, kw_only=True)
class Ledger:
    """`apply` every event in order and perform the effects it returns, in order.

    `new_id` makes ids that never repeat on this host; lease ids must not be guessable either. `rng` jitters back-off.
    """

    policies: Mapping[str, PoolPolicy]
    new_id: Callable[[str], str]
    rng: random.Random = attrs.field(factory=random.Random)
    first_fencing_token: int = 1
    """Above all of earlier runs of the service."""
    _fencing_tokens: Iterator[int] = attrs.field(init=False)
    _moves: Moves = attrs.field(init=False)
    _draining: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._fencing_tokens = itertools.count(self.first_fencing_token)
        self._moves = Moves(policies=self.policies)

    # -- questions -----------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def empty(self) -> bool:
        """No VM is left, whatever its state."""
        return not self._moves.fleet

    def next_wakeup(self) -> float:
        """When a Tick is due, on the clock of `now`; infinity when nothing is waited for. It may have come already."""
        if self._draining:
            return math.inf
        retries = (page.next_wakeup() for page in self._moves.fleet.pages.values())
        return min(self._moves.claims.next_deadline(), self._moves.leases.next_expiry(), *retries, math.inf)

    def views(self, *, now: float) -> tuple[ProfileView, ...]:
        return tuple(page.view(now=now) for page in self._moves.fleet.pages.values())

    def leases(self) -> tuple[Lease, ...]:
        return self._moves.leases.all()

    def vms(self) -> tuple[VmEntry, ...]:
        """Copies; changing them changes nothing."""
        return tuple(attrs.evolve(entry) for entry in self._moves.fleet.all())

    def find_lease(self, lease_id: str, *, owner: Owner) -> Lease | Refusal:
        """The lease if it lives and `owner` may touch it, else why not."""
        return self._moves.leases.find(lease_id, owner=owner)

    # -- the one way to change anything --------------------------------------------------------------------------

    def apply(self, event: Event, *, now: float) -> list[Effect]:
        """Takes note of an event and returns what is to be done about it. `now` never goes back."""
        self._expire(now=now)  # before the event: a deadline that has come wins over a VM that comes now
        match event:
            case AcquireRequested():
                self._acquire_requested(event, now=now)
            case RequestAbandoned():
                self._moves.leave_claim(event.request_id, now=now)
            case ReleaseRequested():
                self._release_requested(event, now=now)
            case RenewRequested():
                self._renew_requested(event, now=now)
            case GrantUndelivered():
                self._grant_undelivered(event, now=now)
            case GenerationChanged():
                self._generation_changed(event, now=now)
            case DrainRequested():
                self._drain(now=now)
            case ShellReady():
                self._shell_ready(event, now=now)
            case VmReady():
                self._vm_ready(event, now=now)
            case VmHandedOut():
                self._vm_handed_out(event, now=now)
            case VmLost():
                self._vm_lost(event, now=now)
            case VmGone():
                self._vm_gone(event, now=now)
            case LeaseAdopted() | Tick():
                pass
            case _:
                assert_never(event)
        for page in self._moves.fleet.pages.values():
            self._settle(page, now=now)
        return self._moves.take_effects()

    # -- callers -------------------------------------------------------------------------------------------------

    def _expire(self, *, now: float) -> None:
        for request_id, claim in self._moves.claims.overdue(now=now):
            self._moves.refuse_late(request_id, self._moves.fleet.pages[claim.profile])
            self._moves.leave_claim(request_id, now=now)
        for lease in self._moves.leases.expired(now=now):
            detail = f"it was not renewed for {lease.expires_at - lease.granted_at:.0f} s after it was granted"
            self._moves.take_back(lease, EndReason.EXPIRED, detail=detail, now=now)

    def _acquire_requested(self, event: AcquireRequested, *, now: float) -> None:
        moves = self._moves
        page = moves.fleet.pages.get(event.profile)
        if page is None:
            moves.refuse(event.request_id, refusals.unknown_profile(event.profile, known=moves.fleet.pages))
        elif self._draining:
            moves.refuse(event.request_id, refusals.draining())
        elif (too_much := _over_maximum(event, page)) is not None:
            moves.refuse(event.request_id, too_much)
        elif event.deadline <= now:
            moves.refuse_late(event.request_id, page)
        elif not (event.key and self._join(event)):
            self._open_claim(event, page, now=now)

    def _join(self, event: AcquireRequested) -> bool:
        """A known idempotency key leads to the claim or lease that it already has. Returns whether it is known."""
        claim = self._moves.claims.of_key(event.owner, event.key)
        lease = self._moves.leases.of_key(event.owner, event.key)
        known = claim or lease
        if known is None:
            return False
        if known.profile != event.profile:
            self._moves.refuse(event.request_id, refusals.key_reused(known))
        elif claim is not None:
            self._moves.claims.join(claim, event)
        elif lease is not None:
            self._moves.grant_again(event.request_id, lease)
        return True

    def _open_claim(self, event: AcquireRequested, page: ProfilePage, *, now: float) -> None:
        hit = bool(page.ready)
        page.counters.hits += hit
        page.counters.misses += not hit
        nothing_comes = event.on_empty is OnEmpty.WAIT and page.policy.size == 0
        if not hit and (event.on_empty is OnEmpty.FAIL or nothing_comes):
            page.counters.refused += 1
            self._moves.refuse(event.request_id, refusals.nothing_ready(page))
        else:
            page.enqueue(self._moves.claims.open(event, found_ready=hit, now=now))

    def _release_requested(self, event: ReleaseRequested, *, now: float) -> None:
        found = self.find_lease(event.lease_id, owner=event.owner)
        if isinstance(found, Refusal):
            self._moves.refuse(event.request_id, found)
        else:
            self._moves.take_back(found, EndReason.RELEASED, detail="by its owner", now=now)
            self._moves.effects.append(ConfirmRelease(request_id=event.request_id))

    def _renew_requested(self, event: RenewRequested, *, now: float) -> None:
        found = self.find_lease(event.lease_id, owner=event.owner)
        if isinstance(found, Refusal):
            self._moves.refuse(event.request_id, found)
        else:
            renewed = self._moves.leases.renew(found, expires_at=now + event.ttl_s)
            self._moves.effects.append(ConfirmRenewal(request_id=event.request_id, lease=renewed))

    def _grant_undelivered(self, event: GrantUndelivered, *, now: float) -> None:
        lease = self._moves.leases.undelivered(event.lease_id)
        if lease is not None:
            self._moves.take_back(lease, EndReason.ABANDONED, detail=event.detail, now=now)

    def _drain(self, *, now: float) -> None:
        self._draining = True
        for claim in self._moves.claims.all():
            self._moves.refuse_claim(claim, refusals.draining(), now=now)
        for lease in self._moves.leases.all():
            self._moves.take_back(lease, EndReason.SHUTDOWN, detail="the service was stopped", now=now)
        for entry in self._moves.fleet.all():
            if entry.state is not VmState.STOPPING:
                self._moves.stop_vm(entry, reason="the service is shutting down", now=now)

    def _generation_changed(self, event: GenerationChanged, *, now: float) -> None:
        page = self._moves.fleet.pages[event.profile]
        self._moves.fleet.change_generation(page, event.generation)
        for vm_id in list(page.shells.idle):
            self._stop_stale_shell(self._moves.fleet[vm_id], page, now=now)

    def _stop_stale_shell(self, entry: VmEntry, page: ProfilePage, *, now: float) -> None:
        """A shell of another template cannot be filled; it costs little, so all such go at once."""
        if page.generation and entry.generation != page.generation:
            self._moves.stop_vm(entry, reason="its template is no more", now=now)

    # -- actors' facts -------------------------------------------------------------------------------------------

    def _shell_ready(self, fact: ShellReady, *, now: float) -> None:
        entry = self._moves.fleet[fact.vm_id]
        if entry.state is not VmState.STOPPING:
            self._moves.fleet.became_shell(entry, fact, now=now)
            self._stop_stale_shell(entry, self._moves.fleet.page_of(entry), now=now)

    def _vm_ready(self, fact: VmReady, *, now: float) -> None:
        entry = self._moves.fleet[fact.vm_id]
        if entry.state is not VmState.STOPPING:  # else the order to stop and this fact crossed on their way
            self._moves.fleet.became_ready(entry, fact, now=now)

    def _vm_handed_out(self, fact: VmHandedOut, *, now: float) -> None:
        entry = self._moves.fleet[fact.vm_id]
        if entry.state is VmState.STOPPING:
            return
        assert entry.claim_id is not None
        claim = self._moves.claims[entry.claim_id]
        lease = Lease(
            lease_id=self.new_id("lease"),
            vm_id=fact.vm_id,
            pid=entry.pid,
            profile=claim.profile,
            owner=claim.owner,
            key=claim.key,
            granted_at=now,
            expires_at=now + claim.ttl_s,
            fencing_token=next(self._fencing_tokens),
            queued_s=claim.chosen_at - claim.arrived_at,
            was_ready=claim.found_ready,
            made_by=entry.made_by,
            report=fact.report,
            timings=fact.timings,
        )
        self._moves.grant(claim, entry, lease, now=now)

    def _vm_lost(self, fact: VmLost, *, now: float) -> None:
        entry = self._moves.fleet[fact.vm_id]
        if entry.state is VmState.STOPPING:
            return
        page = self._moves.fleet.page_of(entry)
        was = entry.state
        was_shell = was is VmState.SHELL or fact.vm_id in page.shells.starting
        was_filling = fact.vm_id in page.shells.filling
        claim_id = self._moves.fleet.leave(entry, now=now)
        claim = None if claim_id is None else self._moves.claims[claim_id]
        page.last_error = fact.reason
        page.last_evidence = fact.evidence
        if was_shell:
            self._shell_lost(entry, page, came_up=was is VmState.SHELL, now=now)
        elif was_filling:
            # That of the shell, which may have been too old; whoever waits gets a production of his own.
            self._shell_lost(entry, page, came_up=False, now=now)
            if claim is not None:
                page.unserved_boot_claims[claim.claim_id] = None
        elif was is VmState.PRODUCING:
            page.counters.production_failures += 1
            self._back_off(page, now=now)
            if claim is not None:
                self._moves.refuse_claim(claim, refusals.production_failed(page, reason=fact.reason), now=now)
        elif was is VmState.LEASED:
            page.counters.lost_leased += 1
            assert entry.lease_id is not None
            self._moves.end_lease(self._moves.leases[entry.lease_id], EndReason.VM_LOST, detail=fact.reason)
        else:
            early = now - entry.ready_at < EARLY_DEATH_S
            if early:  # it follows the failures from before it came up
                page.failures_in_a_row = max(page.failures_in_a_row, entry.failures_before)
            if early or was is VmState.HANDING_OUT:
                self._back_off(page, now=now)
            if claim is None:
                page.counters.lost_idle += 1
            else:
                page.counters.hand_out_failures += 1
                self._retry(claim, page, reason=fact.reason, now=now)

    def _shell_lost(self, entry: VmEntry, page: ProfilePage, *, came_up: bool, now: float) -> None:
        page.counters.lost_shells += 1
        if not came_up or now - entry.ready_at < EARLY_DEATH_S:
            page.shells.failures_in_a_row = max(page.shells.failures_in_a_row, entry.failures_before)
            page.shells.back_off(page.policy.backoff, now=now, randomness=self.rng.random())

    def _back_off(self, page: ProfilePage, *, now: float) -> None:
        page.back_off(now=now, randomness=self.rng.random())

    def _retry(self, claim: Claim, page: ProfilePage, *, reason: str, now: float) -> None:
        """A hand-out failed: the claim goes back to where it was in the queue, if it may have another VM."""
        claim.vm_id = None
        claim.attempts += 1
        page.enqueue(claim)
        if claim.attempts >= MAX_HAND_OUT_ATTEMPTS or (claim.on_empty is OnEmpty.FAIL and not page.ready):
            self._moves.refuse_claim(claim, refusals.hand_out_failed(page, claim, reason=reason), now=now)

    def _vm_gone(self, fact: VmGone, *, now: float) -> None:
        entry = self._moves.fleet[fact.vm_id]
        if entry.state is not VmState.STOPPING:
            self._vm_lost(VmLost(vm_id=fact.vm_id, reason="its actor ended without a word"), now=now)
        if fact.error is not None:
            self._moves.fleet.page_of(entry).last_error = fact.error
        self._moves.fleet.gone(entry, now=now)

    # -- decisions -----------------------------------------------------------------------------------------------

    def _settle(self, page: ProfilePage, *, now: float) -> None:
        """Grants what can be granted, then produces what is missing or stops what is too much."""
        while page.waiting and page.ready:
            self._moves.hand_out_oldest(page, next(iter(page.waiting.values())), now=now)
        if self._draining:
            return
        while (shell := page.shell_to_fill(now=now)) is not None:
            self._moves.fill_shell(shell, now=now)
        while page.may_roll():
            page.counters.rolled += 1
            self._moves.stop_vm(self._moves.fleet[next(iter(page.stale))], reason="of an older generation", now=now)
        while page.unserved_boot_claims:
            claim_id = next(iter(page.unserved_boot_claims))
            if page.shortage() > 0:
                self._start(page, claim_id=claim_id, now=now)
            else:
                page.pass_on_production(claim_id)
        if page.may_produce(now=now):
            # After a failure one VM at a time is tried, until one succeeds.
            limit = page.policy.production_limit if not page.failures_in_a_row else 1
            # A VM on its way out is replaced when it has arrived, milliseconds later: a boot would compete with it.
            while page.shortage() > page.handing_out and len(page.producing_for_pool) < limit:
                self._start(page, claim_id=None, now=now)
        while page.wants_shell(now=now):
            self._moves.start_shell(self.new_id("vm"), page, now=now)
        while page.shortage() < 0:
            self._moves.stop_vm(self._moves.fleet[page.cheapest()], reason="the pool wants fewer VMs", now=now)

    def _start(self, page: ProfilePage, *, claim_id: int | None, now: float) -> None:
        self._moves.start_vm(self.new_id("vm"), page, claim_id=claim_id, now=now)


def _over_maximum(event: AcquireRequested, page: ProfilePage) -> Refusal | None:
    for field, wished, maximum in (
        ("vcpus", event.wishes.vcpus, page.policy.max_vcpus),
        ("memory_mib", event.wishes.memory_mib, page.policy.max_memory_mib),
    ):
        if wished is not None and maximum is not None and wished > maximum:
            return refusals.over_maximum(field, wished=wished, maximum=maximum, profile=page.name)
    return None
