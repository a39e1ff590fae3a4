"""The transition from one run of the service to the next."""

from __future__ import annotations

import attrs

from pool.ledger import refusals
from pool.ledger.effects import AdoptVm
from pool.ledger.events import AdoptionRequested, FoundVm, HandoverRequested, ShutdownRequested
from pool.ledger.moves import Moves
from pool.ledger.policy import PoolPolicy
from pool.ledger.reasons import StopReason
from pool.ledger.records import EndReason, Lease
from vmm.words.life import VmState


@attrs.define(eq=False, kw_only=True)
class Succession:
    """Adoption at the beginning of a run; shutdown and hand-over at its end."""

    moves: Moves

    def adopt(self, event: AdoptionRequested) -> None:
        for found in event.found:
            if found.lease is not None:
                self._restore(found, found.lease)
            elif found.profile in self.moves.policies:
                self.moves.adopt_vm(found.vm_id, self.moves.fleet.pages[found.profile])

    def reach_idle(self) -> None:
        """Connects to a few VMs at a time, to limit the load, beginning with the profiles that claims wait for."""
        while self._under_way() < self.moves.service.adoptions_at_once:
            pages = [page for page in self.moves.fleet.pages.values() if page.unreached]
            if not pages:
                return
            self.moves.reach_vm(min(pages, key=lambda page: (page.waiting.first_place(), len(page.ready))))

    def _under_way(self) -> int:
        return sum(len(page.adopting) - len(page.unreached) for page in self.moves.fleet.pages.values())

    def _restore(self, found: FoundVm, lease: Lease) -> None:
        """A leased VM stays leased, even if its profile has changed or is gone."""
        page = self.moves.fleet.pages.get(found.profile)
        if page is None:
            page = self.moves.fleet.open_page(found.profile, PoolPolicy(size=0, within=found.within))
        memory_mib = max(page.policy.memory_mib, found.memory_mib)
        self.moves.fleet.adopt_leased(page, lease, memory_mib=memory_mib)
        # The call that held a bound lease open ended with the earlier run.
        self.moves.leases.open(lease, holders=0 if lease.request.bound else 1)
        self.moves.effects.append(AdoptVm(vm_id=found.vm_id, profile=found.profile))

    def end(self, event: ShutdownRequested | HandoverRequested) -> None:
        if not self.moves.draining:
            self.moves.draining = True
            for claim in self.moves.claims.all():
                self.moves.refuse_claim(
                    claim,
                    refusals.shutting_down(),
                    stops_for=StopReason.SHUTDOWN,
                    detail="the service is shutting down",
                )
        if isinstance(event, ShutdownRequested):
            self._drain()
        else:
            self._hand_over()

    def _drain(self) -> None:
        """Ends every lease and every VM."""
        for lease in self.moves.leases.all():
            self.moves.take_back(lease, EndReason.SHUTDOWN, detail="the service was stopped")
        for entry in self.moves.fleet.all():
            if entry.state is not VmState.STOPPING:
                self.moves.stop_vm(entry, StopReason.SHUTDOWN, detail="the service is shutting down")

    def _hand_over(self) -> None:
        """Detaches idle and leased VMs, adopted yet or not, with their leases; the others cannot be taken over."""
        for lease in self.moves.leases.all():
            if lease.request.bare:  # has no record, and is not given away yet
                self.moves.take_back(lease, EndReason.SHUTDOWN, detail="the service hands over")
            else:
                self.moves.leases.let_go(lease)
        for entry in self.moves.fleet.all():
            if entry.state in (VmState.ADOPTING, VmState.READY, VmState.LEASED):
                self.moves.detach_vm(entry, StopReason.HANDED_OVER, detail="to the next run of the service")
            elif entry.state is not VmState.STOPPING:
                self.moves.stop_vm(entry, StopReason.SHUTDOWN, detail="the service hands over")
