"""A whole pool under a virtual clock: coordinator, supervised producer and VM actors over simulated VMs."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from actors.direct import DirectBootProducer
from actors.journal import Recorded
from actors.supervisor import Supervised
from pool.core.coordinator import Coordinator
from pool.ledger.policy import OnEmpty, PoolPolicy
from pool.ledger.records import Lease, Owner
from tests.properties.ledger.invariants import BETWEEN_EVENTS, check_state
from tests.unit.actors.stage import direct, simulated_journal
from vmm.simulated import FaultPlan, SimulatedHost, SimulatedVm, no_faults
from vmm.words.leases import LeaseRequest
from vmm.words.life import VmState

PROFILE = "default"
OWNER = Owner(uid=1000)

BOOT_TIMEOUT_S = 30.0
QUIET_S = 1_000.0
"""Longer than any fault, time limit and back-off here take to be over."""


@attrs.define(eq=False, kw_only=True)
class Service:
    """The parts of a running pool of one profile, and who holds which of its VMs."""

    host: SimulatedHost
    producer: DirectBootProducer
    coordinator: Coordinator
    size: int
    held: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    """VM id to lease id and idempotency key, for leases that a client has in hand."""

    def vm(self, vm_id: str) -> SimulatedVm:
        vm = self.coordinator._actors[vm_id].vm
        assert isinstance(vm, SimulatedVm)
        return vm

    async def quiet(self) -> None:
        """Lets everything come to rest: faults strike, time limits pass, the pool fills up."""
        await trio.sleep(QUIET_S)

    def check(self) -> None:
        """The ledger's invariants, and that nobody runs who is not in its books."""
        ledger = self.coordinator._ledger
        check_state(ledger, now=trio.current_time(), only=BETWEEN_EVENTS)
        assert self.host.alive <= {vm.vm_id for vm in ledger.vms()}, "a VM that the ledger does not know"
        self.check_records()

    def check_records(self) -> None:
        """Who is recorded may be adopted; and who may be adopted is recorded, unless it was just ordered to end."""
        recorded = {one.vm_id for one in self.coordinator.journal.read_all() if isinstance(one, Recorded)}
        actors = self.coordinator._actors
        adoptable = {vm_id for vm_id, actor in actors.items() if actor.state in (VmState.READY, VmState.LEASED)}
        ending = {vm_id for vm_id, actor in actors.items() if actor._life.cancel_called}
        assert adoptable - ending <= recorded <= adoptable

    def check_at_rest(self) -> None:
        """No request is open, nobody holds anything, the pool is full, and no other VM is left."""
        self.check()
        (view,) = self.coordinator.views()
        assert (view.ready, view.leased, view.waiting) == (self.size, 0, 0), view
        assert (view.producing, view.handing_out, view.stopping) == (0, 0, 0), view
        assert self.coordinator.leases() == ()
        assert len(self.host.alive) == self.size, f"{self.host.alive} in a pool of {self.size}"
        assert self.coordinator.statistics().open_requests == 0
        assert self.coordinator.statistics().actors == self.size

    async def hold(
        self,
        *,
        on_empty: OnEmpty = OnEmpty.WAIT,
        key: str = "",
        patience_s: float = math.inf,
        hold_s: float = 0.0,
        release: bool = True,
    ) -> None:
        """What a client does: acquire, use, release; give back what could not be delivered. Raises RefusedError."""
        deadline = trio.current_time() + patience_s
        lease = await self.coordinator.acquire(
            profile=PROFILE, owner=OWNER, request=LeaseRequest(key=key), on_empty=on_empty, deadline=deadline
        )
        try:
            assert trio.current_time() <= deadline
            self._take(lease)
            await trio.sleep(hold_s)
        except trio.Cancelled:
            self._put_back(lease)
            self.coordinator.give_back(lease)
            raise
        self._put_back(lease)
        if release:
            await self.coordinator.release(lease.lease_id, owner=OWNER)
        else:
            self.coordinator.give_back(lease)

    def _take(self, lease: Lease) -> None:
        mine = (lease.lease_id, lease.request.key)
        assert self.held.get(lease.vm_id, mine) == mine, "two callers have one VM"
        assert lease.vm_id not in self.held or lease.request.key, "two callers have one lease without a common key"
        self.held[lease.vm_id] = mine

    def _put_back(self, lease: Lease) -> None:
        self.held.pop(lease.vm_id, None)


@asynccontextmanager
async def running_service(
    *, size: int = 1, boot_s: float = 1.0, faults: FaultPlan = no_faults, production_limit: int = 2
) -> AsyncIterator[Service]:
    """Starts a pool; in the end drains it, and checks that nothing is left."""
    serial = itertools.count(1)
    host = SimulatedHost(boot_s=boot_s, faults=faults)
    producer = direct(host, boot_timeout_s=BOOT_TIMEOUT_S)
    coordinator = Coordinator(
        policies={PROFILE: PoolPolicy(size=size, production_limit=production_limit)},
        producers={PROFILE: producer},
        journal=simulated_journal(),
        make_id=lambda prefix: f"{prefix}-{next(serial)}",
        rng=random.Random(1),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervised(name="producer", main=producer.run).run)
        await nursery.start(coordinator.run)
        service = Service(host=host, producer=producer, coordinator=coordinator, size=size)
        yield service
        await coordinator.shut_down()
        assert not host.alive
        assert not any(isinstance(found, Recorded) for found in coordinator.journal.read_all())
        assert coordinator.statistics().actors == 0
        assert coordinator.statistics().open_requests == 0
        nursery.cancel_scope.cancel(reason="the test is over")
