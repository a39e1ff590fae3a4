"""All VMs of the pool. A VM's entry and its profile's page change together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import assert_never

import attrs

from pool.ledger.admission import Admission
from pool.ledger.news import News, VmNews
from pool.ledger.policy import PoolPolicy
from pool.ledger.profile import ProfilePage
from pool.ledger.reasons import StopReason
from pool.ledger.records import Claim, Lease, VmEntry
from vmm.words.facts import ShellReady, VmReady
from vmm.words.life import VmState


@attrs.define(eq=False, kw_only=True)
class Fleet:
    """Carries out the transitions of VMs; other modules decide them."""

    policies: Mapping[str, PoolPolicy]
    admission: Admission
    tell: Callable[[News], None]
    make_page: Callable[..., ProfilePage] = ProfilePage
    pages: dict[str, ProfilePage] = attrs.field(init=False)
    _vms: dict[str, VmEntry] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.pages = {name: self.make_page(name=name, policy=policy) for name, policy in self.policies.items()}

    def __getitem__(self, vm_id: str) -> VmEntry:
        return self._vms[vm_id]

    def __len__(self) -> int:
        return len(self._vms)

    def get(self, vm_id: str) -> VmEntry | None:
        return self._vms.get(vm_id)

    def all(self) -> tuple[VmEntry, ...]:
        return tuple(self._vms.values())

    def page_of(self, entry: VmEntry) -> ProfilePage:
        return self.pages[entry.profile]

    def open_page(self, name: str, policy: PoolPolicy) -> ProfilePage:
        """Opens a passing page, which is closed when it is empty."""
        self.pages[name] = page = self.make_page(name=name, policy=policy, passing=True)
        self._share_room(page)
        return page

    def close_page(self, page: ProfilePage) -> None:
        page.room.guests.pop(page.name, None)
        del self.pages[page.name]

    def set_policy(self, page: ProfilePage, policy: PoolPolicy) -> None:
        """Sets the policy of a passing page that was opened for leases of an earlier run, without its configuration."""
        page.policy = policy
        self._share_room(page)

    def _share_room(self, page: ProfilePage) -> None:
        host = self.pages.get(page.policy.within)
        if host is not None and page.room is not host.room:
            host.room.vms += page.room.vms
            host.room.guests[page.name] = page
            page.room = host.room
            page.drained = host.drained

    # -- a VM's life ---------------------------------------------------------------------------------------------

    def start(self, vm_id: str, page: ProfilePage, *, claim_id: int | None) -> None:
        """Puts a VM into production, for a waiting BOOT claim or, without one, for the pool."""
        self._enter(vm_id, page, memory_mib=page.policy.memory_mib)
        self._begin_production(page, vm_id, claim_id=claim_id)

    def start_shell(self, vm_id: str, page: ProfilePage) -> None:
        self._enter(vm_id, page, memory_mib=0)
        page.shells.starting[vm_id] = None

    def adopt(self, vm_id: str, page: ProfilePage) -> None:
        """Enters an idle VM of an earlier run. It counts as in production, but costs the host nothing."""
        self._enter(vm_id, page, memory_mib=page.policy.memory_mib, state=VmState.ADOPTING).adopted = True
        page.production_started(vm_id, claim_id=None)
        page.room.vms += 1
        page.adopting.add(vm_id)
        page.unreached[vm_id] = None

    def adopt_leased(self, page: ProfilePage, lease: Lease, *, memory_mib: int) -> None:
        entry = self._enter(lease.vm_id, page, memory_mib=memory_mib, state=VmState.LEASED)
        entry.adopted = True
        entry.lease_id = lease.lease_id
        entry.pid = lease.pid
        page.leased += 1
        page.room.vms += 1

    def _enter(self, vm_id: str, page: ProfilePage, *, memory_mib: int, state: VmState = VmState.PRODUCING) -> VmEntry:
        assert vm_id not in self._vms, f"{vm_id} exists already: new_id repeated itself"
        entry = VmEntry(vm_id=vm_id, profile=page.name, state=state, memory_mib=memory_mib)
        self._vms[vm_id] = entry
        self.admission.committed_mib += memory_mib
        self.tell(VmNews(vm_id=vm_id, profile=page.name, state=state))
        return entry

    def _begin_production(self, page: ProfilePage, vm_id: str, *, claim_id: int | None) -> None:
        page.production_started(vm_id, claim_id=claim_id)
        page.room.vms += 1
        self.admission.production_began(page.policy.cost)

    def _end_production(self, entry: VmEntry, page: ProfilePage) -> None:
        if not entry.adopted and entry.vm_id not in page.shells.starting:
            self.admission.production_ended(page.policy.cost)

    def became_shell(self, entry: VmEntry, fact: ShellReady, *, now: float) -> None:
        page = self.page_of(entry)
        self._to(entry, VmState.SHELL)
        entry.pid = fact.pid
        entry.ready_at = now
        entry.generation = fact.generation
        entry.failures_before = page.shells.failures.in_a_row
        page.shells.failures.none()
        del page.shells.starting[entry.vm_id]
        page.shells.idle[entry.vm_id] = None

    def fill_shell(self, entry: VmEntry) -> None:
        """Puts a shell into production, for the first BOOT claim without a shell, else for the pool."""
        page = self.page_of(entry)
        self._to(entry, VmState.PRODUCING)
        del page.shells.idle[entry.vm_id]
        page.shells.filling.add(entry.vm_id)
        self.grow(entry, memory_mib=page.policy.memory_mib)
        self._begin_production(page, entry.vm_id, claim_id=page.boot_claim_for_shell())

    def grow(self, entry: VmEntry, *, memory_mib: int) -> None:
        """Sets the memory that the VM takes."""
        self.admission.committed_mib += memory_mib - entry.memory_mib
        entry.memory_mib = memory_mib

    def became_ready(self, entry: VmEntry, fact: VmReady, *, spread: float, now: float) -> None:
        """`spread`, in [0, 1), keeps VMs that become ready together from being checked together."""
        page = self.page_of(entry)
        production_s = None if entry.adopted else fact.production_s
        self._end_production(entry, page)
        entry.made_by = fact.made_by
        self._to(entry, VmState.READY, production_s=production_s)
        entry.pid = fact.pid
        entry.ready_at = now
        entry.failures_before = page.failures.in_a_row
        entry.generation = fact.generation
        current = not page.generation or fact.generation == page.generation
        page.production_succeeded(entry.vm_id, production_s=production_s, current=current, now=now)
        page.counters.adopted += entry.adopted
        page.ready.ages.set(entry.vm_id, now + page.policy.max_age_s)
        # The agent of an adopted VM has not been checked yet.
        wait_s = 0.0 if entry.adopted else page.policy.check_interval_s * (1.0 - spread / 2.0)
        page.ready.checks.set(entry.vm_id, now + wait_s)

    def change_generation(self, page: ProfilePage, generation: str) -> None:
        page.generation = generation
        for vm_id in page.ready:
            if self._vms[vm_id].generation != generation:
                page.ready.stale.setdefault(vm_id, StopReason.STALE)
            elif page.ready.stale.get(vm_id) is StopReason.STALE:
                del page.ready.stale[vm_id]

    def hand_out_oldest(self, page: ProfilePage, claim: Claim) -> VmEntry:
        """Starts the hand-out of the next VM to a waiting claim."""
        vm_id = page.ready.take()
        page.dequeue(claim)
        entry = self._vms[vm_id]
        self._to(entry, VmState.HANDING_OUT)
        self.grow(entry, memory_mib=max(entry.memory_mib, claim.request.wishes.memory_mib or 0))
        entry.claim_id = claim.claim_id
        page.handing_out += 1
        return entry

    def lease(self, entry: VmEntry, lease: Lease) -> None:
        page = self.page_of(entry)
        self._to(entry, VmState.LEASED)
        entry.claim_id = entry.terms = None
        entry.lease_id = lease.lease_id
        page.handing_out -= 1
        page.leased += 1

    def leave(self, entry: VmEntry, reason: StopReason, *, detail: str = "") -> int | None:
        """Moves a VM from any state to STOPPING.

        Returns the claim that was to get it, if any: the BOOT claim for which it was produced, or that of the hand-out.
        """
        page = self.page_of(entry)
        page.room.vms -= entry.state is not VmState.SHELL and entry.vm_id not in page.shells.starting
        claim_id, entry.claim_id, entry.terms = entry.claim_id, None, None
        match entry.state:
            case VmState.PRODUCING | VmState.ADOPTING:
                self._end_production(entry, page)
                claim_id = page.production_ended(entry.vm_id)
            case VmState.SHELL:
                page.shells.forget(entry.vm_id)
            case VmState.READY:
                page.ready.drop(entry.vm_id)
            case VmState.HANDING_OUT:
                page.handing_out -= 1
            case VmState.LEASED:
                page.leased -= 1
            case VmState.STOPPING | VmState.GONE:
                pass  # `_to` raises
            case _:
                assert_never(entry.state)
        self._to(entry, VmState.STOPPING, reason=reason, detail=detail)
        page.stopping += 1
        page.counters.stopped[reason] += 1
        self.admission.stopping_mib += entry.memory_mib
        return claim_id

    def gone(self, entry: VmEntry) -> None:
        self._to(entry, VmState.GONE)
        self.page_of(entry).stopping -= 1
        self.admission.stopping_mib -= entry.memory_mib
        self.admission.committed_mib -= entry.memory_mib
        del self._vms[entry.vm_id]

    def _to(
        self,
        entry: VmEntry,
        target: VmState,
        *,
        production_s: float | None = None,
        reason: StopReason | None = None,
        detail: str = "",
    ) -> None:
        was = entry.state
        entry.to(target)
        self.tell(
            VmNews(
                vm_id=entry.vm_id,
                profile=entry.profile,
                state=target,
                was=was,
                made_by=entry.made_by,
                production_s=production_s,
                reason=reason,
                detail=detail,
            )
        )
