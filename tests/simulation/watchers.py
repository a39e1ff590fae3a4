"""Those who watch: between two snapshots they see every change, and what they see adds up to what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from pool.core.watch import Snapshot, Watcher
from pool.ledger.news import LeaseChange, LeaseNews, News, VmNews
from tests.simulation.incarnation import Incarnation
from vmm.words.life import TRANSITIONS, VmState

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

_FIRST = (VmState.PRODUCING, VmState.ADOPTING, VmState.LEASED)


async def run_watcher(simulation: Simulation, number: int) -> None:
    """Watches one run of the service after the other; every second watcher is slow."""
    slow = bool(number % 2)
    random = simulation.randomness.of(f"watcher {number}")
    while True:
        service = await simulation.serving()
        with trio.CancelScope() as scope, service.coordinator.watchers.watch(uid=number) as watcher:
            history = _History(simulation=simulation, service=service, watcher=watcher)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, service, scope)
                while True:
                    history.see(await watcher.next())
                    if slow:
                        await trio.sleep(random.expovariate(1.0))


async def _until_gone(service: Incarnation, scope: trio.CancelScope) -> None:
    await service.gone.wait()
    scope.cancel(reason="the service is gone")


@attrs.define(eq=False, kw_only=True)
class _History:
    """What one who watches knows."""

    simulation: Simulation
    service: Incarnation
    watcher: Watcher
    vms: dict[str, VmState] = attrs.field(factory=dict)
    leases: set[str] = attrs.field(factory=set)

    def see(self, what: Snapshot | News) -> None:
        if self.service.is_dead:
            return
        match what:
            case Snapshot():
                self._begin_with(what)
            case VmNews():
                self._see_vm(what)
            case LeaseNews():
                self._see_lease(what)
            case _:
                pass
        if not self.watcher._news and not self.watcher._behind:
            vms = {vm.vm_id: vm.state for vm in self.service.coordinator._ledger._moves.fleet.all()}
            leases = {lease.lease_id for lease in self.service.coordinator.leases()}
            # Leases that are handed over do not end: nothing is told of them, and this service has none of them.
            same = vms == self.vms and (leases == self.leases or self.service.coordinator.draining)
            self._check(same, lambda: f"sees {self.vms}, {sorted(self.leases)}, there are {vms}, {leases}")

    def _begin_with(self, snapshot: Snapshot) -> None:
        self.vms = {vm.vm_id: vm.state for vm in snapshot.vms}
        self.leases = {lease.lease_id for lease in snapshot.leases}

    def _see_vm(self, news: VmNews) -> None:
        before = self.vms.get(news.vm_id)
        follows = news.state in _FIRST if before is None else news.state in TRANSITIONS[before]
        self._check(follows, f"{news} after {before}")
        if news.state is VmState.GONE:
            self.vms.pop(news.vm_id, None)
        else:
            self.vms[news.vm_id] = news.state

    def _see_lease(self, news: LeaseNews) -> None:
        self._check((news.lease.lease_id in self.leases) != (news.change is LeaseChange.GRANTED), news)
        if news.change is LeaseChange.ENDED:
            self.leases.discard(news.lease.lease_id)
        else:
            self.leases.add(news.lease.lease_id)

    def _check(self, holds: bool, detail: object) -> None:
        self.simulation.findings.check("watchers_see_all_there_is", holds, detail)
