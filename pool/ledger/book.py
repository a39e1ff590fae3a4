"""The ledger: who has which VM, who waits for one, and what to do about it."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, assert_never

import attrs

from actors.life import VmState
from actors.messages import VmGone, VmHandedOut, VmLost, VmReady
from pool.ledger.effects import (
    ConfirmRelease,
    Effect,
    Grant,
    HandOutVm,
    Refusal,
    RefusalCode,
    Refuse,
    StartVm,
    StopVm,
)
from pool.ledger.events import (
    AcquireRequested,
    DrainRequested,
    Event,
    GrantUndelivered,
    ReleaseRequested,
    RequestAbandoned,
    Tick,
)
from pool.ledger.profile import ProfilePage, ProfileView
from pool.ledger.records import Claim, EndedLease, EndReason, Lease, OnEmpty, Owner, PoolPolicy, VmEntry

EARLY_DEATH_S: Final = 10.0
"""A VM that dies within this after becoming ready counts as a failed production, or a guest that comes up and falls
over would be rebooted as fast as the host can."""

MAX_HAND_OUT_ATTEMPTS: Final = 3
"""A claim whose hand-out failed gets another VM; after so many failures the fault is not the VM's."""

REMEMBERED_LEASES: Final = 4096
"""Ended leases that are remembered, to tell their owners what became of them."""


@attrs.define(eq=False, kw_only=True)
class Ledger:
    """`apply` every event in order and perform the effects it returns, in order.

    `new_id` makes ids that never repeat on this host; lease ids must not be guessable either. `rng` jitters back-off.
    """

    policies: Mapping[str, PoolPolicy]
    new_id: Callable[[str], str]
    rng: random.Random = attrs.field(factory=random.Random)
    _pages: dict[str, ProfilePage] = attrs.field(init=False)
    _vms: dict[str, VmEntry] = attrs.field(factory=dict, init=False)
    _claims: dict[int, Claim] = attrs.field(factory=dict, init=False)
    _claim_of_request: dict[int, int] = attrs.field(factory=dict, init=False)
    _leases: dict[str, Lease] = attrs.field(factory=dict, init=False)
    _grants: dict[str, int] = attrs.field(factory=dict, init=False)
    """Per lease: requests that it was granted to and that have not come back as undelivered."""
    _ended: OrderedDict[str, EndedLease] = attrs.field(factory=OrderedDict, init=False)
    _keys: dict[tuple[int, str], int | str] = attrs.field(factory=dict, init=False)
    """(uid, idempotency key) to claim id, then to lease id."""
    _deadlines: list[tuple[float, int]] = attrs.field(factory=list, init=False)
    """Heap of (deadline, request id); answered requests stay until they come up."""
    _draining: bool = attrs.field(default=False, init=False)
    _claim_ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1), init=False)
    _effects: list[Effect] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._pages = {name: ProfilePage(name=name, policy=policy) for name, policy in self.policies.items()}

    # -- questions -----------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def empty(self) -> bool:
        """No VM is left, whatever its state."""
        return not self._vms

    def next_wakeup(self, *, now: float) -> float:
        """When a Tick is due, on the clock of `now`; infinity when nothing is waited for."""
        if self._draining:
            return math.inf
        due = [page.next_wakeup(now=now) for page in self._pages.values()]
        while self._deadlines and self._deadlines[0][1] not in self._claim_of_request:
            heapq.heappop(self._deadlines)
        if self._deadlines:
            due.append(self._deadlines[0][0])
        return min(due, default=math.inf)

    def views(self, *, now: float) -> tuple[ProfileView, ...]:
        return tuple(page.view(now=now) for page in self._pages.values())

    def leases(self) -> tuple[Lease, ...]:
        return tuple(self._leases.values())

    def vms(self) -> tuple[VmEntry, ...]:
        """Copies; changing them changes nothing."""
        return tuple(attrs.evolve(entry) for entry in self._vms.values())

    def find_lease(self, lease_id: str, *, owner: Owner) -> Lease | Refusal:
        """The lease if it lives and `owner` may touch it, else why not."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            return lease if owner.may_touch(lease.owner) else _foreign(lease_id)
        ended = self._ended.get(lease_id)
        if ended is None:
            return Refusal(
                code=RefusalCode.UNKNOWN_LEASE,
                message=f"lease_id: there is no lease {lease_id!r}; use the lease_id that Acquire returned",
            )
        if not owner.may_touch(ended.owner):
            return _foreign(lease_id)
        return Refusal(
            code=RefusalCode.LEASE_ENDED,
            message=f"lease_id: lease {lease_id} has already ended ({ended.reason.value}: {ended.detail}); "
            "acquire another VM",
        )

    # -- the one way to change anything --------------------------------------------------------------------------

    def apply(self, event: Event, *, now: float) -> list[Effect]:
        """Takes note of an event and returns what is to be done about it. `now` never goes back."""
        self._effects = []
        match event:
            case AcquireRequested():
                self._acquire_requested(event, now=now)
            case RequestAbandoned():
                self._abandon(event.request_id, now=now)
            case ReleaseRequested():
                self._release_requested(event, now=now)
            case GrantUndelivered():
                self._grant_undelivered(event, now=now)
            case DrainRequested():
                self._drain(now=now)
            case VmReady():
                self._vm_ready(event, now=now)
            case VmHandedOut():
                self._vm_handed_out(event, now=now)
            case VmLost():
                self._vm_lost(event, now=now)
            case VmGone():
                self._vm_gone(event, now=now)
            case Tick():
                pass
            case _:
                assert_never(event)
        self._expire(now=now)
        for page in self._pages.values():
            self._settle(page, now=now)
        return self._effects

    # -- callers -------------------------------------------------------------------------------------------------

    def _acquire_requested(self, event: AcquireRequested, *, now: float) -> None:
        page = self._pages.get(event.profile)
        if page is None:
            known = ", ".join(sorted(self._pages)) or "none"
            self._refuse(
                event.request_id,
                RefusalCode.UNKNOWN_PROFILE,
                f"profile: there is no profile {event.profile!r}; configured: {known}",
            )
            return
        if self._draining:
            self._refuse(event.request_id, RefusalCode.DRAINING, "the service is shutting down; try again later")
            return
        if event.key and self._join(event):
            return
        hit = bool(page.ready) and not page.waiting
        page.counters.hits += hit
        page.counters.misses += not hit
        if not hit and (event.on_empty is OnEmpty.FAIL or (event.on_empty is OnEmpty.WAIT and page.policy.size == 0)):
            page.counters.refused += 1
            self._refuse(
                event.request_id,
                RefusalCode.NOTHING_READY,
                f"profile {page.name}: no VM is ready ({_state_of(page)}); "
                "ask with on_empty WAIT or BOOT, or raise the pool's size",
            )
            return
        claim = Claim(
            claim_id=next(self._claim_ids),
            profile=event.profile,
            owner=event.owner,
            key=event.key,
            on_empty=event.on_empty,
            arrived_at=now,
            requests={event.request_id: event.deadline},
        )
        self._claims[claim.claim_id] = claim
        if claim.key:
            self._keys[claim.owner.uid, claim.key] = claim.claim_id
        self._await_answer(event, claim)
        page.enqueue(claim)

    def _join(self, event: AcquireRequested) -> bool:
        """A known idempotency key leads to the claim or lease that it already has. Returns whether it is known."""
        target = self._keys.get((event.owner.uid, event.key))
        if target is None:
            return False
        known = self._claims[target] if isinstance(target, int) else self._leases[target]
        if known.profile != event.profile:
            self._refuse(
                event.request_id,
                RefusalCode.KEY_REUSED,
                f"idempotency_key: {event.key!r} is in use for profile {known.profile!r}; use a new key",
            )
        elif isinstance(known, Lease):
            self._grants[known.lease_id] += 1
            self._effects.append(Grant(request_id=event.request_id, lease=known))
        else:
            known.requests[event.request_id] = event.deadline
            self._await_answer(event, known)
        return True

    def _await_answer(self, event: AcquireRequested, claim: Claim) -> None:
        self._claim_of_request[event.request_id] = claim.claim_id
        if event.deadline != math.inf:
            heapq.heappush(self._deadlines, (event.deadline, event.request_id))

    def _abandon(self, request_id: int, *, now: float) -> None:
        claim_id = self._claim_of_request.pop(request_id, None)
        if claim_id is None:
            return  # answered in the meantime; a grant comes back as ReleaseRequested
        claim = self._claims[claim_id]
        del claim.requests[request_id]
        if not claim.requests:
            self._drop_claim(claim, reason="its caller went away before it had the lease", now=now)

    def _expire(self, *, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request_id = heapq.heappop(self._deadlines)
            claim_id = self._claim_of_request.get(request_id)
            if claim_id is None:
                continue
            page = self._pages[self._claims[claim_id].profile]
            page.counters.refused += 1
            self._refuse(
                request_id,
                RefusalCode.DEADLINE,
                f"profile {page.name}: no VM in time ({_state_of(page)}); allow more time or raise the pool's size",
            )
            self._abandon(request_id, now=now)

    def _drop_claim(self, claim: Claim, *, reason: str, now: float) -> None:
        """Forgets a claim that nobody waits for any more; a VM on its way to it is dirty and is stopped."""
        page = self._pages[claim.profile]
        if claim.vm_id is None:
            page.dequeue(claim)
        else:
            entry = self._vms[claim.vm_id]
            page.handing_out -= 1
            self._stop(entry, page, reason=reason, now=now)
        self._forget_claim(claim)

    def _forget_claim(self, claim: Claim) -> None:
        del self._claims[claim.claim_id]
        if claim.key:
            del self._keys[claim.owner.uid, claim.key]
        for request_id in claim.requests:
            del self._claim_of_request[request_id]

    def _refuse_claim(self, claim: Claim, code: RefusalCode, message: str, *, now: float) -> None:
        for request_id in claim.requests:
            self._refuse(request_id, code, message)
        self._pages[claim.profile].counters.refused += 1
        self._drop_claim(claim, reason=message, now=now)

    def _release_requested(self, event: ReleaseRequested, *, now: float) -> None:
        found = self.find_lease(event.lease_id, owner=event.owner)
        if isinstance(found, Refusal):
            self._effects.append(Refuse(request_id=event.request_id, refusal=found))
            return
        self._take_back(found, EndReason.RELEASED, detail="by its owner", now=now)
        self._effects.append(ConfirmRelease(request_id=event.request_id))

    def _grant_undelivered(self, event: GrantUndelivered, *, now: float) -> None:
        lease = self._leases.get(event.lease_id)
        if lease is None:
            return  # ended in the meantime
        self._grants[lease.lease_id] -= 1
        if not self._grants[lease.lease_id]:
            self._take_back(lease, EndReason.ABANDONED, detail="its caller went away before it had it", now=now)

    def _take_back(self, lease: Lease, reason: EndReason, *, detail: str, now: float) -> None:
        page = self._pages[lease.profile]
        self._end_lease(lease, reason, detail=detail)
        page.leased -= 1
        self._stop(self._vms[lease.vm_id], page, reason=f"lease {lease.lease_id} {reason.value}", now=now)

    def _end_lease(self, lease: Lease, reason: EndReason, *, detail: str) -> None:
        del self._leases[lease.lease_id]
        del self._grants[lease.lease_id]
        if lease.key:
            del self._keys[lease.owner.uid, lease.key]
        self._ended[lease.lease_id] = EndedLease(
            lease_id=lease.lease_id, owner=lease.owner, reason=reason, detail=detail
        )
        while len(self._ended) > REMEMBERED_LEASES:
            self._ended.popitem(last=False)

    def _drain(self, *, now: float) -> None:
        self._draining = True
        for claim in list(self._claims.values()):
            self._refuse_claim(claim, RefusalCode.DRAINING, "the service is shutting down; try again later", now=now)
        for lease in list(self._leases.values()):
            self._end_lease(lease, EndReason.SHUTDOWN, detail="the service was stopped")
            self._pages[lease.profile].leased -= 1
        for entry in list(self._vms.values()):
            page = self._pages[entry.profile]
            if entry.state is not VmState.STOPPING:
                page.production_ended(entry.vm_id)
                page.ready.pop(entry.vm_id, None)
                self._stop(entry, page, reason="the service is shutting down", now=now)

    # -- actors' facts -------------------------------------------------------------------------------------------

    def _vm_ready(self, event: VmReady, *, now: float) -> None:
        entry = self._vms[event.vm_id]
        if entry.state is VmState.STOPPING:
            return  # the order to stop and this fact crossed on their way
        page = self._pages[entry.profile]
        page.production_ended(event.vm_id)
        page.counters.produced += 1
        entry.to(VmState.READY, now=now)
        entry.pid = event.pid
        entry.claim_id = None
        entry.failures_before = page.failures_in_a_row
        page.ready[event.vm_id] = None
        page.record_success(production_s=event.production_s)

    def _vm_handed_out(self, event: VmHandedOut, *, now: float) -> None:
        entry = self._vms[event.vm_id]
        if entry.state is VmState.STOPPING:
            return
        assert entry.claim_id is not None
        claim = self._claims[entry.claim_id]
        page = self._pages[entry.profile]
        entry.to(VmState.LEASED, now=now)
        entry.claim_id = None
        lease = Lease(
            lease_id=self.new_id("lease"),
            vm_id=event.vm_id,
            pid=entry.pid,
            profile=claim.profile,
            owner=claim.owner,
            key=claim.key,
            granted_at=now,
            queued_s=claim.granted_at - claim.arrived_at,
            was_ready=claim.granted_at == claim.arrived_at and not claim.attempts,
            report=event.report,
            timings=event.timings,
        )
        entry.lease_id = lease.lease_id
        self._leases[lease.lease_id] = lease
        self._grants[lease.lease_id] = len(claim.requests)
        self._effects.extend(Grant(request_id=request_id, lease=lease) for request_id in claim.requests)
        self._forget_claim(claim)
        if lease.key:
            self._keys[lease.owner.uid, lease.key] = lease.lease_id
        page.handing_out -= 1
        page.leased += 1
        page.counters.granted += 1

    def _vm_lost(self, event: VmLost, *, now: float) -> None:
        entry = self._vms[event.vm_id]
        if entry.state is VmState.STOPPING:
            return
        page = self._pages[entry.profile]
        match entry.state:
            case VmState.PRODUCING:
                page.counters.production_failures += 1
                self._record_failure(page, event, now=now)
                claim_id = page.production_ended(event.vm_id)
                if claim_id is not None:
                    self._refuse_claim(
                        self._claims[claim_id],
                        RefusalCode.PRODUCTION_FAILED,
                        f"profile {page.name}: the VM booted for this request failed: {event.reason}",
                        now=now,
                    )
            case VmState.READY:
                del page.ready[event.vm_id]
                page.counters.lost_idle += 1
                if now - entry.since < EARLY_DEATH_S:
                    page.failures_in_a_row = max(page.failures_in_a_row, entry.failures_before)
                    self._record_failure(page, event, now=now)
                else:
                    page.last_error = event.reason
                    page.last_evidence = event.evidence
            case VmState.HANDING_OUT:
                page.handing_out -= 1
                page.counters.hand_out_failures += 1
                self._record_failure(page, event, now=now)
                self._retry_claim(entry, page, event, now=now)
            case VmState.LEASED:
                assert entry.lease_id is not None
                page.leased -= 1
                page.counters.lost_leased += 1
                page.last_error = event.reason
                page.last_evidence = event.evidence
                self._end_lease(self._leases[entry.lease_id], EndReason.VM_LOST, detail=event.reason)
            case VmState.STOPPING | VmState.GONE:
                raise AssertionError(f"{event.vm_id} was lost while {entry.state.value}")
            case _:
                assert_never(entry.state)
        entry.to(VmState.STOPPING, now=now)
        page.stopping += 1

    def _record_failure(self, page: ProfilePage, event: VmLost, *, now: float) -> None:
        page.record_failure(error=event.reason, evidence=event.evidence, now=now, randomness=self.rng.random())

    def _retry_claim(self, entry: VmEntry, page: ProfilePage, event: VmLost, *, now: float) -> None:
        """A hand-out failed: the claim goes back to the head of the queue, if it may have another VM."""
        assert entry.claim_id is not None
        claim = self._claims[entry.claim_id]
        entry.claim_id = None
        claim.vm_id = None
        claim.attempts += 1
        page.enqueue(claim, first=True)
        if claim.attempts >= MAX_HAND_OUT_ATTEMPTS or (claim.on_empty is OnEmpty.FAIL and not page.ready):
            self._refuse_claim(
                claim,
                RefusalCode.HAND_OUT_FAILED,
                f"profile {page.name}: {claim.attempts} hand-outs failed, the last one with: {event.reason}",
                now=now,
            )

    def _vm_gone(self, event: VmGone, *, now: float) -> None:
        entry = self._vms[event.vm_id]
        page = self._pages[entry.profile]
        if entry.state is not VmState.STOPPING:
            self._vm_lost(VmLost(vm_id=event.vm_id, reason="its actor ended without a word"), now=now)
        entry.to(VmState.GONE, now=now)
        page.stopping -= 1
        if event.error is not None:
            page.last_error = event.error
        del self._vms[event.vm_id]

    # -- decisions -----------------------------------------------------------------------------------------------

    def _settle(self, page: ProfilePage, *, now: float) -> None:
        """Grants what can be granted, then produces what is missing or stops what is too much."""
        while page.waiting and page.ready:
            self._hand_out(page, now=now)
        if self._draining:
            return
        while page.unserved_boot_claims and page.shortage() > 0:
            claim_id, _ = page.unserved_boot_claims.popitem(last=False)
            page.producing_for_claim[self._start(page, claim_id=claim_id, now=now)] = claim_id
        if now >= page.retry_at:
            # After a failure one VM at a time is tried, until one succeeds.
            limit = page.policy.production_limit if not page.failures_in_a_row else 1
            while page.shortage() > 0 and len(page.producing_for_pool) < limit:
                page.producing_for_pool[self._start(page, claim_id=None, now=now)] = None
        while page.shortage() < 0:
            self._shrink(page, now=now)

    def _hand_out(self, page: ProfilePage, *, now: float) -> None:
        vm_id, _ = page.ready.popitem(last=False)
        claim = next(iter(page.waiting.values()))
        page.dequeue(claim)
        entry = self._vms[vm_id]
        entry.to(VmState.HANDING_OUT, now=now)
        entry.claim_id = claim.claim_id
        claim.vm_id = vm_id
        claim.granted_at = now
        page.handing_out += 1
        self._effects.append(HandOutVm(vm_id=vm_id))

    def _start(self, page: ProfilePage, *, claim_id: int | None, now: float) -> str:
        vm_id = self.new_id("vm")
        self._vms[vm_id] = VmEntry(
            vm_id=vm_id, profile=page.name, state=VmState.PRODUCING, since=now, claim_id=claim_id
        )
        self._effects.append(StartVm(vm_id=vm_id, profile=page.name))
        return vm_id

    def _shrink(self, page: ProfilePage, *, now: float) -> None:
        """Stops the VM that cost least so far: the youngest in production, else the oldest that is ready."""
        if page.producing_for_pool:
            vm_id, _ = page.producing_for_pool.popitem()
        else:
            vm_id, _ = page.ready.popitem(last=False)
        self._stop(self._vms[vm_id], page, reason="the pool wants fewer VMs", now=now)

    def _stop(self, entry: VmEntry, page: ProfilePage, *, reason: str, now: float) -> None:
        entry.to(VmState.STOPPING, now=now)
        entry.claim_id = None
        page.stopping += 1
        self._effects.append(StopVm(vm_id=entry.vm_id, reason=reason))

    def _refuse(self, request_id: int, code: RefusalCode, message: str) -> None:
        self._effects.append(Refuse(request_id=request_id, refusal=Refusal(code=code, message=message)))


def _foreign(lease_id: str) -> Refusal:
    return Refusal(
        code=RefusalCode.FOREIGN_LEASE,
        message=f"lease_id: lease {lease_id} belongs to another user; only its owner and root may use it",
    )


def _state_of(page: ProfilePage) -> str:
    producing = len(page.producing_for_pool) + len(page.producing_for_claim)
    words = f"{producing} in production, {len(page.waiting)} waiting"
    return f"{words}, last error: {page.last_error}" if page.failures_in_a_row else words
