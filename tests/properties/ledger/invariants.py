"""What is true of a ledger after every event: one named check for each invariant, on its state alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable

from pool.ledger.book import Ledger
from pool.ledger.policy import OnEmpty
from pool.ledger.profile import ProfilePage
from pool.ledger.reasons import StopReason
from pool.ledger.records import Lease, VmEntry
from pool.ledger.views import CircuitState
from vmm.words.kinds import ProductionCost
from vmm.words.life import VmState

FAULT_OF_A_LEASE = "fault of a leased VM"
"""Why the VMs of these worlds are lost while somebody has them."""

COMING = (VmState.PRODUCING, VmState.ADOPTING)


class ViolationError(AssertionError):
    """An invariant does not hold; `check` names it."""

    def __init__(self, *, check: str, detail: object) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check


def check_state(ledger: Ledger, *, now: float, only: Collection[str] | None = None) -> None:
    """Runs every check, or those named in `only`. Raises ViolationError."""
    for check in STATE_CHECKS:
        if only is None or check.__name__ in only:
            try:
                check(ledger, now)
            except AssertionError as error:
                raise ViolationError(check=check.__name__, detail=error) from error


def each_vm_is_in_exactly_one_place(ledger: Ledger, _now: float) -> None:
    """Ready and producing VMs stand in one of their profile's queues, once; all others in none."""
    for page, entries in _pages(ledger):
        shells = (*page.shells.starting, *page.shells.idle)
        queued = Counter((*page.ready, *page.producing_for_pool, *page.producing_for_claim, *shells))
        expected = Counter(e.vm_id for e in entries if e.state in (VmState.READY, VmState.SHELL, *COMING))
        assert queued == expected, f"queued {queued}, expected {expected}"
        assert set(page.ready) == {e.vm_id for e in entries if e.state is VmState.READY}
        assert set(page.shells.idle) == {e.vm_id for e in entries if e.state is VmState.SHELL}
        assert page.shells.filling <= {*page.producing_for_pool, *page.producing_for_claim}


def counts_match_the_vms(ledger: Ledger, now: float) -> None:
    """What `status` shows of a profile is what its VMs are."""
    views = {view.name: view for view in ledger.views(now=now)}
    for page, entries in _pages(ledger):
        if page.passing:
            continue  # nobody looks at those
        view, states = views[page.name], Counter(entry.state for entry in entries)
        shown = {
            VmState.PRODUCING: view.producing + len(page.shells.starting) - states[VmState.ADOPTING],
            VmState.SHELL: view.shells,
            VmState.READY: view.ready,
            VmState.HANDING_OUT: view.handing_out,
            VmState.LEASED: view.leased,
            VmState.STOPPING: view.stopping,
        }
        assert shown == {state: states[state] for state in shown}, f"{shown} shown of {states}"


def counters_cover_the_vms(ledger: Ledger, now: float) -> None:
    """What was produced is still there, or was granted, lost, or stopped. Leases of an earlier run count by themselves,
    and not before their VMs are found: some of those that are lost never were.
    """
    views = {view.name: view for view in ledger.views(now=now)}
    for page, entries in _pages(ledger):
        if page.passing:
            continue  # nobody looks at those
        view, counters = views[page.name], views[page.name].counters
        found = sum(entry.adopted and entry.state is VmState.LEASED for entry in entries)
        granted = view.leased - found
        assert counters.produced >= view.ready + view.handing_out + granted + counters.hand_out_failures, counters
        assert counters.granted >= granted, counters
        assert counters.produced >= counters.granted, counters
        assert counters.produced >= counters.adopted >= 0, counters
        assert counters.stopped.total() >= view.stopping, counters


def never_more_than_wanted(ledger: Ledger, _now: float) -> None:
    """Ready and producing VMs are at most the pool's size, one for each waiting BOOT claim, one for each other waiting
    claim that a shell is filled for, and one more while a stale VM could not be replaced otherwise."""
    for page, entries in _pages(ledger):
        present = sum(entry.state in (VmState.READY, *COMING) for entry in entries) - len(page.shells.starting)
        boot_claims = sum(claim.on_empty is OnEmpty.BOOT for claim in page.waiting)
        filled = min(len(page.shells.filling), len(page.waiting) - boot_claims)
        surge = bool(page.ready.stale) and (len(page.ready) <= page.policy.min_ready or bool(page.failures.in_a_row))
        allowed = page.size + boot_claims + filled + surge
        # What is being produced for a claim is that claim's.
        present -= max(0, len(page.producing_for_claim) - allowed)
        assert present <= allowed, f"{present}, {allowed} allowed: {boot_claims} BOOT claims, {filled} filled, {surge}"


def no_more_vms_than_the_profile_may_have(ledger: Ledger, _now: float) -> None:
    """With those of configurations that are based on it. But for leases of an earlier run, which are kept whatever the
    policy has become.
    """
    there, restored = Counter[str](), Counter[str]()
    for page, entries in _pages(ledger):
        counted = page.policy.within or page.name
        there[counted] += sum(e.state not in (VmState.STOPPING, VmState.SHELL) for e in entries)
        there[counted] -= len(page.shells.starting)
        restored[counted] += sum(e.adopted and e.state is VmState.LEASED for e in entries)
    for page, _ in _pages(ledger):
        if not page.policy.within:
            assert page.room.vms == there[page.name]
            maximum = page.policy.max_vms
            assert maximum is None or there[page.name] <= max(maximum, restored[page.name]), there


def memory_stays_within_the_budget(ledger: Ledger, _now: float) -> None:
    """What is committed is what the VMs take, and no more than allowed, but for what was adopted."""
    admission = ledger._moves.admission
    assert admission.committed_mib == sum(vm.memory_mib for vm in ledger._moves.fleet.all())
    assert admission.stopping_mib == sum(
        vm.memory_mib for vm in ledger._moves.fleet.all() if vm.state is VmState.STOPPING
    )
    adopted = sum(vm.memory_mib for vm in ledger._moves.fleet.all() if vm.adopted)
    assert admission.committed_mib <= max(ledger.service.memory_budget_mib, adopted)


def productions_stay_within_the_hosts_means(ledger: Ledger, _now: float) -> None:
    """So many boots and clones at a time, for all profiles together."""
    admission = ledger._moves.admission
    producing: Counter[ProductionCost] = Counter()
    for page, entries in _pages(ledger):
        producing[page.policy.cost] += sum(
            e.state is VmState.PRODUCING and e.vm_id not in page.shells.starting for e in entries
        )
    for cost, limit in (
        (ProductionCost.BOOT, ledger.service.boots_at_once),
        (ProductionCost.CLONE, ledger.service.clones_at_once),
    ):
        assert admission.under_way[cost] == producing[cost] <= limit


def quotas_hold(ledger: Ledger, _now: float) -> None:
    moves = ledger._moves
    claims, leases = Counter(c.owner.uid for c in moves.claims.all()), Counter(a.owner.uid for a in ledger.leases())
    waiting = Counter(c.owner.uid for c in moves.claims.all() if c.vm_id is None for _ in c.requests)
    assert moves.claims._claims_of == claims
    assert moves.claims._waiting_of == waiting
    assert moves.leases._leases_of == leases
    # Whose hand-out has failed waits again, whoever came meanwhile.
    first = Counter(c.owner.uid for c in moves.claims.all() if c.vm_id is None and not c.attempts for _ in c.requests)
    assert all(count <= ledger.service.requests_per_uid for count in first.values())
    assert first.total() <= ledger.service.requests
    restored = Counter(lease.owner.uid for lease in ledger.leases() if _restored(ledger, lease))
    for uid, count in (claims + leases).items():
        assert count <= max(ledger.service.leases_per_uid, restored[uid])


def a_drained_profile_is_still(ledger: Ledger, _now: float) -> None:
    """Nobody waits, nothing is ready or comes; leases go on."""
    for page, entries in _pages(ledger):
        if page.drained and not ledger.draining:
            assert not page.waiting
            there = [e for e in entries if e.vm_id not in page.shells.starting]  # they are stopped when they are there
            assert all(e.state in (VmState.LEASED, VmState.HANDING_OUT, VmState.STOPPING) for e in there)


def checks_stay_within_their_budget(ledger: Ledger, _now: float) -> None:
    """Few agents are asked at a time, and only those of ready VMs."""
    pages = ledger._moves.fleet.pages.values()
    assert sum(len(page.ready.being_checked) for page in pages) <= ledger.service.checks_at_once
    for page in pages:
        assert set(page.ready.being_checked) <= set(page.ready)
        if page.policy.check_interval_s != math.inf and not ledger.draining:
            assert set(page.ready) == set(page.ready.being_checked) | {v for v in page.ready if v in page.ready.checks}


def vms_of_an_earlier_run_are_reached_few_at_a_time(ledger: Ledger, _now: float) -> None:
    """And no fewer than may be, as long as there are any."""
    pages = ledger._moves.fleet.pages.values()
    under_way = sum(len(page.adopting) - len(page.unreached) for page in pages)
    assert under_way <= ledger.service.adoptions_at_once
    for page in pages:
        assert set(page.unreached) <= page.adopting
        if page.unreached and not ledger.draining:
            assert under_way == ledger.service.adoptions_at_once


def passing_pages_are_closed(ledger: Ledger, _now: float) -> None:
    """When nothing is left on them, and not before: whatever there is has its profile's page."""
    pages = ledger._moves.fleet.pages
    used = {vm.profile for vm in ledger._moves.fleet.all()} | {claim.profile for claim in ledger._moves.claims.all()}
    assert used <= set(pages)
    assert ledger.draining or {page.name for page in pages.values() if page.passing} <= used


def no_more_shells_than_configured(ledger: Ledger, _now: float) -> None:
    for page, _ in _pages(ledger):
        assert len(page.shells) <= page.policy.shells


def stale_is_what_is_of_another_generation(ledger: Ledger, _now: float) -> None:
    """Ready VMs are known to be stale, and stale shells are none: they could not be filled."""
    for page, entries in _pages(ledger):
        other = {e.vm_id for e in entries if page.generation and e.generation != page.generation}
        known = {vm_id for vm_id, why in page.ready.stale.items() if why is StopReason.STALE}
        assert known <= other & set(page.ready) <= set(page.ready.stale) <= set(page.ready)
        assert not other & set(page.shells.idle)


def no_shell_idles_while_a_claim_waits(ledger: Ledger, now: float) -> None:
    """Each waiting claim has one filled for it, if there is one; while the pool backs off, only for BOOT claims."""
    for page, _ in _pages(ledger):
        admitted = not ledger._moves.admission.holds_back(page.policy) and page.has_room() and not page.ready
        if now >= page.failures.retry_at and not ledger.draining and admitted and not page.failures.in_a_row:
            assert not page.shells.idle or len(page.waiting) <= len(page.shells.filling)


def no_vm_idles_while_a_claim_waits(ledger: Ledger, _now: float) -> None:
    """But for a claim that wants more memory than there is."""
    for page, _ in _pages(ledger):
        if page.ready and page.waiting:
            wished = next(iter(page.waiting)).request.wishes.memory_mib or 0
            growth_mib, admission = wished - page.policy.memory_mib, ledger._moves.admission
            assert growth_mib > 0
            assert admission.memory_low or not admission.fits(max(growth_mib, admission.reserved_mib))


def each_waiting_boot_claim_has_a_production(ledger: Ledger, now: float) -> None:
    """Its own: when it fails, the claim is told. Or else there is no room for one, or production does not work."""
    for page, _ in _pages(ledger):
        boot_claims = sorted(c.claim_id for c in page.waiting if c.on_empty is OnEmpty.BOOT)
        assert (
            sorted((*page.producing_for_claim.values(), *(c.claim_id for c in page.unserved_boot_claims)))
            == boot_claims
        )
        assert page.boot_claims == len(boot_claims)
        held_back = bool(ledger._moves.admission.holds_back(page.policy)) or not page.has_room() or bool(page.ready)
        if page.policy.max_vms is not None and page.room.guests and not page.passing:
            # The last room is for claims of callers' own configurations whose turn comes first, as soon as they can.
            claimed = page.room.claimed(page.waiting.first_place())
            held_back = held_back or page.room.vms + claimed >= page.policy.max_vms
        if not held_back and page.circuit(now=now) is CircuitState.CLOSED and not ledger.draining:
            assert not page.unserved_boot_claims


def claims_are_queued_or_on_a_vm(ledger: Ledger, _now: float) -> None:
    """A claim waits in its profile's queue, in its place, or exactly one VM is being handed out to it."""
    claims = ledger._moves.claims.all()
    for page, _ in _pages(ledger):
        waiting = sorted((c for c in claims if c.profile == page.name and c.vm_id is None), key=lambda c: c.place)
        assert list(page.waiting) == waiting
        boot = [c for c in waiting if c in page.unserved_boot_claims]
        assert list(page.unserved_boot_claims) == boot
    on_their_way = {c.claim_id: c.vm_id for c in claims if c.vm_id is not None}
    vms = [vm for vm in ledger._moves.fleet.all() if vm.state is VmState.HANDING_OUT]
    assert sorted((vm.claim_id, vm.vm_id) for vm in vms) == sorted(on_their_way.items())


def each_claim_has_someone_who_waits(ledger: Ledger, _now: float) -> None:
    """Requests and idempotency keys lead to their claim, and to no claim that is gone."""
    register = ledger._moves.claims
    claims = register.all()
    assert all(claim.requests for claim in claims)
    assert register._of_request == {r: c.claim_id for c in claims for r in c.requests}
    assert register._of_key == {(c.owner.uid, c.request.key): c.claim_id for c in claims if c.request.key}


def leases_and_leased_vms_pair_up(ledger: Ledger, _now: float) -> None:
    """No lease without a VM, no VM with two leases, no leased VM without a lease."""
    leases = sorted((lease.vm_id, lease.lease_id) for lease in ledger.leases())
    leased = sorted((vm.vm_id, vm.lease_id) for vm in ledger._moves.fleet.all() if vm.state is VmState.LEASED)
    assert leases == leased


def no_lease_outlives_its_time(ledger: Ledger, now: float) -> None:
    assert all(lease.expires_at > now for lease in ledger.leases())


def each_lease_has_a_holder(ledger: Ledger, _now: float) -> None:
    register = ledger._moves.leases
    assert set(register._holders) == {lease.lease_id for lease in ledger.leases()}
    for lease in ledger.leases():
        lost_its_holder = lease.request.bound and _restored(ledger, lease)  # by the end of the run that granted it
        assert register._holders[lease.lease_id] > 0 or lost_its_holder, lease
    keyed = [lease for lease in ledger.leases() if lease.request.key]
    assert register._of_key == {(lease.owner.uid, lease.request.key): lease.lease_id for lease in keyed}


def _restored(ledger: Ledger, lease: Lease) -> bool:
    """An earlier run granted it: this one never handed its VM out."""
    return ledger._moves.fleet[lease.vm_id].terms is None


def a_key_leads_to_one_thing(ledger: Ledger, _now: float) -> None:
    """An idempotency key is that of a claim or of a lease, or one caller would get two VMs for it."""
    assert not set(ledger._moves.claims._of_key) & set(ledger._moves.leases._of_key)


def a_name_leads_to_one_thing(ledger: Ledger, _now: float) -> None:
    """Of a user's claims and leases, one has a name; it leads to its lease, and to none that has ended."""
    claims, leases = ledger._moves.claims, ledger._moves.leases
    of_claims = [(claim.owner.uid, claim.request.name) for claim in claims.all() if claim.request.name]
    of_leases = {(lease.owner.uid, lease.request.name): lease.lease_id for lease in leases.all() if lease.request.name}
    named = sum(bool(lease.request.name) for lease in leases.all())
    assert len({*of_claims, *of_leases}) == len(of_claims) + named, (of_claims, of_leases)
    assert claims._names == set(of_claims)
    assert leases._of_name == of_leases


def what_befalls_a_lease_is_not_the_pools_failure(ledger: Ledger, now: float) -> None:
    """Its owner has done it, or knows of it; the pool's last error would show it for ever."""
    for view in ledger.views(now=now):
        assert FAULT_OF_A_LEASE not in (view.last_error, view.last_evidence), view.name


def wakeup_lies_ahead(ledger: Ledger, now: float) -> None:
    """An event takes care of all that is due, or the coordinator would tick without end."""
    assert ledger.next_wakeup() > now


def nobody_waits_past_the_deadline(ledger: Ledger, now: float) -> None:
    for claim in ledger._moves.claims.all():
        assert all(deadline > now for deadline in claim.requests.values()), claim


def a_draining_ledger_only_stops(ledger: Ledger, _now: float) -> None:
    if ledger.draining:
        assert not ledger._moves.claims.all()
        assert not ledger.leases()
        assert all(vm.state is VmState.STOPPING for vm in ledger._moves.fleet.all())


def _pages(ledger: Ledger) -> Iterable[tuple[ProfilePage, list[VmEntry]]]:
    entries = ledger._moves.fleet.all()
    for name, page in ledger._moves.fleet.pages.items():
        yield page, [entry for entry in entries if entry.profile == name]


STATE_CHECKS: tuple[Callable[[Ledger, float], None], ...] = (
    each_vm_is_in_exactly_one_place,
    counts_match_the_vms,
    counters_cover_the_vms,
    never_more_than_wanted,
    no_more_vms_than_the_profile_may_have,
    memory_stays_within_the_budget,
    productions_stay_within_the_hosts_means,
    quotas_hold,
    a_drained_profile_is_still,
    checks_stay_within_their_budget,
    vms_of_an_earlier_run_are_reached_few_at_a_time,
    passing_pages_are_closed,
    no_more_shells_than_configured,
    stale_is_what_is_of_another_generation,
    no_shell_idles_while_a_claim_waits,
    no_vm_idles_while_a_claim_waits,
    each_waiting_boot_claim_has_a_production,
    claims_are_queued_or_on_a_vm,
    each_claim_has_someone_who_waits,
    leases_and_leased_vms_pair_up,
    no_lease_outlives_its_time,
    each_lease_has_a_holder,
    a_key_leads_to_one_thing,
    a_name_leads_to_one_thing,
    what_befalls_a_lease_is_not_the_pools_failure,
    wakeup_lies_ahead,
    nobody_waits_past_the_deadline,
    a_draining_ledger_only_stops,
)

BETWEEN_EVENTS = frozenset(c.__name__ for c in STATE_CHECKS) - {"wakeup_lies_ahead", "nobody_waits_past_the_deadline"}
"""What holds at any time, not only right after an event: time passes without the ledger."""
