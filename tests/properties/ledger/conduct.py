"""What a ledger may order and answer, given what it was told: one named check for each rule, on every effect."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

import attrs

from pool.ledger.book import Ledger
from pool.ledger.effects import (
    CheckVm,
    Confirm,
    ConfirmRenewal,
    DetachVm,
    Effect,
    FillShell,
    Grant,
    HandOutVm,
    LeaseEnded,
    ReachVm,
    Refusal,
    RefusalCode,
    Refuse,
    StartVm,
    StopVm,
    Tell,
)
from pool.ledger.news import News, VmNews
from pool.ledger.profile import ProfilePage
from pool.ledger.reasons import OF_LEASE, REPLACEMENTS, StopReason
from pool.ledger.records import Claim, Lease, Owner
from tests.properties.ledger.invariants import ViolationError
from vmm.words.life import TRANSITIONS, VmState


@attrs.define(kw_only=True)
class SeenVm:
    """A VM as the ledger can know it: what it ordered, and what it was told."""

    profile: str
    adopted: bool = False
    checks_ordered: int = 0
    reaches_ordered: int = 0
    fill_ordered: bool = False
    hand_out_ordered: bool = False
    bare: bool = False
    """Handed out as it is, to be given away."""
    stop_ordered: bool = False
    told_shell: bool = False
    told_ready: bool = False
    told_handed_out: bool = False
    told_wish_refused: bool = False
    told_lost: bool = False


@attrs.define(kw_only=True)
class SeenRequest:
    """A request as the ledger can know it."""

    request_id: int
    profile: str
    owner: Owner
    key: str = ""
    name: str = ""
    deadline: float = math.inf
    releases: str | None = None
    """The lease that it releases."""
    renews: str | None = None
    """The lease that it renews."""
    administers: bool = False
    bare: bool = False
    labels: Mapping[str, str] = attrs.field(factory=dict)
    told: bool = False
    """The ledger has read it."""
    told_abandoned: bool = False
    answer: Lease | Refusal | None = None
    answers: int = 0

    @property
    def acquires(self) -> bool:
        return self.releases is None and self.renews is None and not self.administers


@attrs.define(kw_only=True)
class Record:
    """All that went in and out of a ledger so far."""

    profiles: set[str]
    now: float = 0.0
    draining: bool = False
    memory_low: bool = False
    vms: dict[str, SeenVm] = attrs.field(factory=dict)
    requests: dict[int, SeenRequest] = attrs.field(factory=dict)
    restored: dict[str, Lease] = attrs.field(factory=dict)
    """Leases of an earlier run."""
    losses: int = 0
    """VMs that ended by themselves."""
    ended_leases: list[str] = attrs.field(factory=list)
    relinquished: set[str] = attrs.field(factory=set)
    """Leases whose VM is its taker's."""
    closed: list[str] = attrs.field(factory=list)
    """Profiles that were opened for one configuration."""
    news: list[News] = attrs.field(factory=list)
    overtakers: Counter[tuple[int, int]] = attrs.field(factory=Counter)
    """By the first claim of a user that waits, and another user: how many of that one's were served meanwhile."""


def check_effect(effect: Effect, record: Record, *, only: Collection[str] | None = None) -> None:
    """Judges an effect by what happened before it. Raises ViolationError."""
    for check in CONDUCT_CHECKS:
        if only is None or check.__name__ in only:
            try:
                check(effect, record)
            except AssertionError as error:
                raise ViolationError(check=check.__name__, detail=f"{effect}: {error}") from error


def check_step(
    effects: Sequence[Effect], ledger: Ledger, record: Record, *, only: Collection[str] | None = None
) -> None:
    """Judges all effects of an event by what the ledger is after it. Raises ViolationError."""
    for check in STEP_CHECKS:
        if only is None or check.__name__ in only:
            try:
                check(effects, ledger, record)
            except AssertionError as error:
                raise ViolationError(check=check.__name__, detail=f"{effects}: {error}") from error


def first_come_first_served(effects: Sequence[Effect], ledger: Ledger, _record: Record) -> None:
    """Whoever got a VM came before all claims of the same user that still wait. Claim ids ascend with arrival."""
    for claim, page in _served(effects, ledger):
        own = [other.claim_id for other in page.waiting if other.owner == claim.owner]
        assert all(claim.claim_id < other for other in own), f"{claim.claim_id} before {own}"


MOST_BEFORE_ONE: Final = 2
"""One in the round in which a user was served last, or came, and one in the round in which he is served next."""


def users_take_turns(effects: Sequence[Effect], ledger: Ledger, record: Record) -> None:
    """While a user's first claim waits, no other's are served but one in this round and one in the next.

    Nor are they all counted as came to it by a hand-out that failed: those have had their turn.
    """
    for claim, page in _served(effects, ledger):
        first = {other.owner.uid: other for other in reversed(list(page.waiting))}
        for uid, other in first.items():
            if uid != claim.owner.uid and not (claim.attempts or other.attempts):
                record.overtakers[other.claim_id, claim.owner.uid] += 1
                times = record.overtakers[other.claim_id, claim.owner.uid]
                assert times <= MOST_BEFORE_ONE, f"{other.claim_id} of {uid} waits behind {times} of {claim.owner.uid}"


def _served(effects: Sequence[Effect], ledger: Ledger) -> Iterator[tuple[Claim, ProfilePage]]:
    for effect in effects:
        if isinstance(effect, HandOutVm):
            vm = ledger._moves.fleet[effect.vm_id]
            assert vm.claim_id is not None
            yield ledger._moves.claims[vm.claim_id], ledger._moves.fleet.pages[vm.profile]


def nobody_overtakes_in_another_profile(effects: Sequence[Effect], ledger: Ledger, record: Record) -> None:
    """Nothing is started where all come after one of another profile, who could have what it takes instead."""
    for effect in effects:
        if isinstance(effect, StartVm) and not effect.as_shell and effect.profile in ledger._moves.fleet.pages:
            started = ledger._moves.fleet.pages[effect.profile]
            for page in ledger._moves.fleet.pages.values():
                claim = page.next_to_serve()
                if page is started or page.ready or claim is None or started.waiting.first_place() < claim.place:
                    continue
                able = page.may_refill(now=record.now)
                if page.unserved_boot_claims:
                    able = page.shortage() > 0 and page.may_boot_for_claim(now=record.now)
                fits = page.policy.memory_mib <= started.policy.memory_mib
                alike = page.policy.cost is started.policy.cost
                assert not (able and fits and alike), f"{claim.claim_id} of {page.name} came before"


def the_pool_produces_within_its_limits(effects: Sequence[Effect], ledger: Ledger, record: Record) -> None:
    """Not while it backs off, not more than its limit at a time, and one at a time after a failure."""
    for effect in effects:
        if isinstance(effect, StartVm):
            page = ledger._moves.fleet.pages[effect.profile]
            if effect.vm_id in page.producing_for_pool:
                limit = 1 if page.failures.in_a_row else page.policy.production_limit
                assert len(page.producing_for_pool) - len(page.adopting) <= limit
                assert record.now >= page.failures.retry_at


def rolling_leaves_the_minimum(effects: Sequence[Effect], ledger: Ledger, _record: Record) -> None:
    """Stale VMs are stopped only while enough others are ready, and not while production fails."""
    vms = {vm.vm_id: vm for vm in ledger.vms()}
    for number, effect in enumerate(effects):
        news = effect.news if isinstance(effect, Tell) else None
        if isinstance(news, VmNews) and news.was is VmState.READY and news.reason in REPLACEMENTS:
            page = ledger._moves.fleet.pages[news.profile]
            # Who waited for memory takes his VM after that, and it was ready until then.
            later = [other.vm_id for other in effects[number:] if isinstance(other, HandOutVm)]
            taken = sum(vms[vm_id].profile == page.name for vm_id in later)
            crowded = not page.has_room() or not ledger._moves.admission.fits(page.policy.memory_mib)
            # They were, before these were stopped.
            there = page.present() + page.out() + page.stopping
            crowded = crowded or (page.policy.max_vms is not None and there >= page.policy.max_vms)
            # One in excess of the size that was on its way by then would have kept the minimum.
            begun = sum(isinstance(other, StartVm) and other.profile == page.name for other in effects[number:])
            crowded = crowded and len(page.ready) + len(page.producing_for_pool) - begun < page.size
            assert crowded or len(page.ready) + taken >= min(page.policy.min_ready, page.size)
            assert not page.failures.in_a_row


def nothing_is_produced_without_need(effects: Sequence[Effect], ledger: Ledger, record: Record) -> None:
    """Not while the circuit is open or the host's memory is low; one at a time while the circuit is half open."""
    for effect in effects:
        if isinstance(effect, StartVm) and effect.profile in ledger._moves.fleet.pages:
            page = ledger._moves.fleet.pages[effect.profile]
            assert not ledger._moves.admission.memory_low
            if not effect.as_shell and page.failures.in_a_row >= page.policy.breaker_threshold:
                assert record.now >= page.failures.retry_at, "the circuit is open"
                assert page.producing() - len(page.adopting) <= 1 + len(page.shells.filling), "the circuit is half open"


def only_idle_vms_are_evicted(effect: Effect, record: Record) -> None:
    """A VM that is somebody's is stopped for no other reason than that its lease has ended, or its service."""
    if isinstance(effect, StopVm):
        leased = any(
            isinstance(news, VmNews) and (news.vm_id, news.state) == (effect.vm_id, VmState.LEASED)
            for news in record.news
        )
        assert not leased or record.draining or effect.reason in OF_LEASE.values()


def checks_are_of_ready_vms(effect: Effect, record: Record) -> None:
    if isinstance(effect, CheckVm):
        vm = record.vms[effect.vm_id]
        assert vm.told_ready, "not ready"
        assert not vm.hand_out_ordered, "it is somebody's"
        assert not vm.stop_ordered
        assert not vm.told_lost


def vms_are_reached_once(effect: Effect, record: Record) -> None:
    """Those of an earlier run, which are idle and have not ended."""
    if isinstance(effect, ReachVm):
        vm = record.vms[effect.vm_id]
        assert vm.adopted
        assert not vm.reaches_ordered
        assert not vm.told_ready
        assert not vm.stop_ordered
        assert not vm.told_lost


def detached_vms_can_be_adopted(effect: Effect, record: Record) -> None:
    """Idle or leased, and only when the service ends; but for those that are given away, which are somebody's."""
    if isinstance(effect, DetachVm) and not record.vms[effect.vm_id].bare:
        vm = record.vms[effect.vm_id]
        assert record.draining
        assert vm.told_ready or vm.adopted
        assert vm.told_handed_out or not vm.hand_out_ordered
        assert not vm.stop_ordered
        assert not vm.told_lost


def only_bare_leases_are_given_away(effect: Effect, record: Record) -> None:
    """When their taker has the VM, and not before. Such a VM is not stopped, but for a lease whose time has come when
    that is read. It ends first, and the VM's actor, which knows whose the VM is, does nothing about it.
    """
    if isinstance(effect, StopVm) and effect.reason is StopReason.EXPIRED:
        return
    vm = record.vms.get(effect.vm_id) if isinstance(effect, DetachVm | StopVm) else None
    if vm is not None and vm.bare:
        of_it = {
            r.answer.lease_id
            for r in record.requests.values()
            if r.acquires and isinstance(r.answer, Lease) and r.answer.vm_id == effect.vm_id  # type: ignore[union-attr]
        }
        given = bool(of_it & record.relinquished)
        assert given == isinstance(effect, DetachVm), f"relinquished: {given}"


def news_follow_the_vms(effect: Effect, record: Record) -> None:
    """Whoever watches sees each VM's life without a gap."""
    if isinstance(effect, Tell) and isinstance(effect.news, VmNews):
        of_it = [n for n in record.news if isinstance(n, VmNews) and n.vm_id == effect.news.vm_id]
        if of_it:
            assert effect.news.state in TRANSITIONS[of_it[-1].state], of_it
        else:
            assert effect.news.state in (VmState.PRODUCING, VmState.ADOPTING, VmState.LEASED)


def starts_are_new_vms_of_known_profiles(effect: Effect, record: Record) -> None:
    if isinstance(effect, StartVm):
        assert effect.vm_id not in record.vms, "a second time"
        assert effect.profile in record.profiles, effect.profile
        assert not record.draining, "while draining"


def fills_are_of_shells(effect: Effect, record: Record) -> None:
    """Once, and only what said that it is a shell and was not ended."""
    if isinstance(effect, FillShell):
        vm = record.vms[effect.vm_id]
        assert vm.told_shell, "no shell"
        assert not vm.fill_ordered, "a second time"
        assert not vm.stop_ordered, "it was told to stop"
        assert not vm.told_lost, "it ended by itself"


def hand_outs_are_of_ready_vms(effect: Effect, record: Record) -> None:
    """Once in a VM's life: it is dirty from then on."""
    if isinstance(effect, HandOutVm):
        vm = record.vms[effect.vm_id]
        assert vm.told_ready, "not ready"
        assert not vm.hand_out_ordered, "a second time"
        assert not vm.stop_ordered, "it was told to stop"
        assert not vm.told_lost, "it ended by itself"


def stops_are_ordered_once(effect: Effect, record: Record) -> None:
    """And never for a VM that ended by itself."""
    if isinstance(effect, StopVm):
        vm = record.vms.get(effect.vm_id)
        assert vm is not None, "not there"
        assert not vm.stop_ordered, "a second time"
        assert not vm.told_lost, "it ended by itself"


def requests_are_answered_once(effect: Effect, record: Record) -> None:
    if isinstance(effect, Grant | Refuse | Confirm | ConfirmRenewal):
        assert record.requests[effect.request_id].answers == 0, "a second time"


def requests_are_not_answered_after_they_were_abandoned(effect: Effect, record: Record) -> None:
    """The crossing: an answer that was on its way before the ledger was told goes to nobody, and comes back."""
    if isinstance(effect, Grant | Refuse):
        assert not record.requests[effect.request_id].told_abandoned


def answers_fit_their_requests(effect: Effect, record: Record) -> None:
    if isinstance(effect, Grant):
        request = record.requests[effect.request_id]
        assert request.acquires
        assert effect.lease.profile == request.profile
        assert effect.lease.owner == request.owner
        assert effect.lease.request.key == request.key
        assert effect.lease.request.bare == request.bare
        if not request.key:  # what has a key has the labels and the name of who came first with it
            assert effect.lease.request.labels == request.labels
            assert effect.lease.request.name == request.name
        assert record.vms[effect.lease.vm_id].bare == request.bare
    elif isinstance(effect, Confirm):
        request = record.requests[effect.request_id]
        assert request.administers or request.releases is not None
    elif isinstance(effect, ConfirmRenewal):
        assert record.requests[effect.request_id].renews == effect.lease.lease_id
        assert effect.lease.expires_at > record.now


def names_are_each_users_own(effect: Effect, record: Record) -> None:
    """What others name their leases is no reason to refuse a name."""
    if isinstance(effect, Refuse) and effect.refusal.code is RefusalCode.NAME_TAKEN:
        request = record.requests[effect.request_id]
        others = [r for r in record.requests.values() if r.told and r is not request]
        taken = [(r.owner, r.name) for r in others] + [(a.owner, a.request.name) for a in record.restored.values()]
        assert (request.owner, request.name) in taken


def failures_are_of_lost_vms(effect: Effect, record: Record) -> None:
    """A caller's wish that a guest refuses is nobody else's failure: it does not count as one, and opens no circuit."""
    failed = (RefusalCode.HAND_OUT_FAILED, RefusalCode.PRODUCTION_FAILED, RefusalCode.CIRCUIT_OPEN)
    if isinstance(effect, Refuse) and effect.refusal.code in failed:
        # With the same event the loss is being told.
        assert record.losses, f"no VM was lost: {effect.refusal.message}"


def refused_wishes_are_told_as_such(effect: Effect, record: Record) -> None:
    wishes = (RefusalCode.WISH_REFUSED, RefusalCode.WISH_TOO_MUCH, RefusalCode.WISH_UNSUPPORTED)
    if isinstance(effect, Refuse) and effect.refusal.code in wishes:
        assert any(vm.told_wish_refused for vm in record.vms.values())


def grants_are_not_late(effect: Effect, record: Record) -> None:
    if isinstance(effect, Grant):
        assert record.now < record.requests[effect.request_id].deadline


def deadline_refusals_are_not_early(effect: Effect, record: Record) -> None:
    if isinstance(effect, Refuse) and effect.refusal.code is RefusalCode.DEADLINE:
        assert record.now >= record.requests[effect.request_id].deadline


def grants_are_of_handed_out_vms(effect: Effect, record: Record) -> None:
    if isinstance(effect, Grant):
        vm = record.vms[effect.lease.vm_id]
        assert vm.hand_out_ordered
        assert vm.told_handed_out
        assert not vm.stop_ordered
        assert not vm.told_lost


def no_vm_is_leased_twice(effect: Effect, record: Record) -> None:
    """Two requests have one VM only with the same lease, which is for the same owner and idempotency key."""
    if isinstance(effect, Grant):
        for other in record.requests.values():
            if other.acquires and isinstance(other.answer, Lease) and other.answer.vm_id == effect.lease.vm_id:
                request = record.requests[effect.request_id]
                assert other.answer.lease_id == effect.lease.lease_id
                assert request.key
                assert (other.owner, other.key) == (request.owner, request.key)
        for restored in record.restored.values():
            assert restored.vm_id != effect.lease.vm_id or restored.lease_id == effect.lease.lease_id


def leases_end_once(effect: Effect, record: Record) -> None:
    """And are not granted or renewed after that."""
    if isinstance(effect, LeaseEnded):
        assert effect.lease_id not in record.ended_leases, "a second time"
    if isinstance(effect, Grant | ConfirmRenewal):
        assert effect.lease.lease_id not in record.ended_leases, "it has ended"


def fencing_tokens_grow(effect: Effect, record: Record) -> None:
    """Beyond those of all leases that were granted before a VM was chosen."""
    if isinstance(effect, HandOutVm):
        earlier = [r.answer for r in record.requests.values() if isinstance(r.answer, Lease)]
        tokens = [lease.terms.fencing_token for lease in (*earlier, *record.restored.values())]
        assert all(token < effect.order.terms.fencing_token for token in tokens), tokens


def only_owners_and_root_touch_a_lease(effect: Effect, record: Record) -> None:
    request = record.requests[effect.request_id] if isinstance(effect, Confirm | ConfirmRenewal) else None
    if request is not None and not request.administers:
        lease_id = request.releases or request.renews
        granted = [r.answer for r in record.requests.values() if r.acquires and isinstance(r.answer, Lease)]
        known = [*granted, *record.restored.values()]
        owners = {lease.owner.uid for lease in known if lease.lease_id == lease_id}
        assert owners <= {request.owner.uid} or request.owner.uid == 0
        assert owners, "a lease that nobody was told of"


CONDUCT_CHECKS: tuple[Callable[[Effect, Record], None], ...] = (
    starts_are_new_vms_of_known_profiles,
    fills_are_of_shells,
    hand_outs_are_of_ready_vms,
    stops_are_ordered_once,
    requests_are_answered_once,
    requests_are_not_answered_after_they_were_abandoned,
    answers_fit_their_requests,
    names_are_each_users_own,
    failures_are_of_lost_vms,
    refused_wishes_are_told_as_such,
    grants_are_not_late,
    deadline_refusals_are_not_early,
    grants_are_of_handed_out_vms,
    no_vm_is_leased_twice,
    only_owners_and_root_touch_a_lease,
    leases_end_once,
    fencing_tokens_grow,
    only_idle_vms_are_evicted,
    checks_are_of_ready_vms,
    vms_are_reached_once,
    detached_vms_can_be_adopted,
    only_bare_leases_are_given_away,
    news_follow_the_vms,
)

STEP_CHECKS: tuple[Callable[[Sequence[Effect], Ledger, Record], None], ...] = (
    first_come_first_served,
    users_take_turns,
    nobody_overtakes_in_another_profile,
    the_pool_produces_within_its_limits,
    rolling_leaves_the_minimum,
    nothing_is_produced_without_need,
)
