"""All VMs of the pool, each in exactly one place: its entry's state and its profile's page change together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import assert_never

import attrs

from actors.life import VmState
from actors.messages import ShellReady, VmReady
from pool.ledger.profile import ProfilePage
from pool.ledger.records import Claim, Lease, PoolPolicy, VmEntry


@attrs.define(eq=False, kw_only=True)
class Fleet:
    """Moves VMs through their lives. When and why is decided elsewhere."""

    policies: Mapping[str, PoolPolicy]
    pages: dict[str, ProfilePage] = attrs.field(init=False)
    _vms: dict[str, VmEntry] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.pages = {name: ProfilePage(name=name, policy=policy) for name, policy in self.policies.items()}

    def __getitem__(self, vm_id: str) -> VmEntry:
        return self._vms[vm_id]

    def __len__(self) -> int:
        return len(self._vms)

    def all(self) -> tuple[VmEntry, ...]:
        return tuple(self._vms.values())

    def page_of(self, entry: VmEntry) -> ProfilePage:
        return self.pages[entry.profile]

    def start(self, vm_id: str, page: ProfilePage, *, claim_id: int | None, now: float) -> None:
        """A VM goes into production, for a waiting BOOT claim or, without one, for the pool."""
        assert vm_id not in self._vms, f"{vm_id} exists already: new_id repeated itself"
        self._vms[vm_id] = VmEntry(vm_id=vm_id, profile=page.name, state=VmState.PRODUCING, since=now)
        page.production_started(vm_id, claim_id=claim_id)

    def start_shell(self, vm_id: str, page: ProfilePage, *, now: float) -> None:
        assert vm_id not in self._vms, f"{vm_id} exists already: new_id repeated itself"
        self._vms[vm_id] = VmEntry(vm_id=vm_id, profile=page.name, state=VmState.PRODUCING, since=now)
        page.shells.starting[vm_id] = None

    def became_shell(self, entry: VmEntry, fact: ShellReady, *, now: float) -> None:
        page = self.page_of(entry)
        entry.to(VmState.SHELL, now=now)
        entry.pid = fact.pid
        entry.ready_at = now
        entry.generation = fact.generation
        entry.failures_before = page.shells.failures_in_a_row
        page.shells.failures_in_a_row = 0
        del page.shells.starting[entry.vm_id]
        page.shells.idle[entry.vm_id] = None

    def fill_shell(self, entry: VmEntry, *, now: float) -> None:
        """The shell goes into production, for the first BOOT claim that has none, else for the pool."""
        page = self.page_of(entry)
        entry.to(VmState.PRODUCING, now=now)
        del page.shells.idle[entry.vm_id]
        page.shells.filling.add(entry.vm_id)
        page.production_started(entry.vm_id, claim_id=next(iter(page.unserved_boot_claims), None))

    def became_ready(self, entry: VmEntry, fact: VmReady, *, now: float) -> None:
        page = self.page_of(entry)
        entry.to(VmState.READY, now=now)
        entry.pid = fact.pid
        entry.ready_at = now
        entry.failures_before = page.failures_in_a_row
        entry.generation = fact.generation
        entry.made_by = fact.made_by
        current = not page.generation or fact.generation == page.generation
        page.production_succeeded(entry.vm_id, production_s=fact.production_s, current=current)

    def change_generation(self, page: ProfilePage, generation: str) -> None:
        page.generation = generation
        page.stale = OrderedDict((vm_id, None) for vm_id in page.ready if self._vms[vm_id].generation != generation)

    def hand_out_oldest(self, page: ProfilePage, claim: Claim, *, now: float) -> VmEntry:
        """The VM whose turn it is goes on its way to a waiting claim."""
        vm_id = page.take_ready()
        page.dequeue(claim)
        entry = self._vms[vm_id]
        entry.to(VmState.HANDING_OUT, now=now)
        entry.claim_id = claim.claim_id
        claim.vm_id = vm_id
        claim.chosen_at = now
        page.handing_out += 1
        return entry

    def lease(self, entry: VmEntry, lease: Lease, *, now: float) -> None:
        page = self.page_of(entry)
        entry.to(VmState.LEASED, now=now)
        entry.claim_id = None
        entry.lease_id = lease.lease_id
        page.handing_out -= 1
        page.leased += 1

    def leave(self, entry: VmEntry, *, now: float) -> int | None:
        """Takes a VM from wherever it is; from now on it is nobody's and only its end is waited for.

        Returns the claim that was to get it, if any: the BOOT claim it was produced for, or that of the hand-out.
        """
        page = self.page_of(entry)
        claim_id, entry.claim_id = entry.claim_id, None
        match entry.state:
            case VmState.PRODUCING:
                claim_id = page.production_ended(entry.vm_id)
            case VmState.SHELL:
                page.shells.forget(entry.vm_id)
            case VmState.READY:
                page.not_ready(entry.vm_id)
            case VmState.HANDING_OUT:
                page.handing_out -= 1
            case VmState.LEASED:
                page.leased -= 1
            case VmState.ADOPTING | VmState.STOPPING | VmState.GONE:
                pass  # `to` refuses
            case _:
                assert_never(entry.state)
        entry.to(VmState.STOPPING, now=now)
        page.stopping += 1
        return claim_id

    def gone(self, entry: VmEntry, *, now: float) -> None:
        entry.to(VmState.GONE, now=now)
        self.page_of(entry).stopping -= 1
        del self._vms[entry.vm_id]
