"""A thousand VMs on a host that feels each of them: all are found again, and whoever calls waits no longer for that."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from actors.adoption import Adoption
from pool.core.coordinator import ENDED_AT_ONCE, REACHED_AT_ONCE, Coordinator
from pool.core.recovery import restored
from pool.ledger.events import FoundVm
from pool.ledger.policy import PoolPolicy
from pool.ledger.records import Owner
from pool.ledger.views import ProfileView
from tests.unit.actors.stage import SPEC, VMS, Wrapped, direct, simulated_journal
from tests.unit.actors.test_record import LEASE, RECORD
from tests.virtual_time import in_virtual_time
from vmm.simulated import SimulatedHost, SimulatedVm, StopIsSlow
from vmm.words.leases import LeaseTerms
from vmm.words.processes import ExitReport, ProcessIdentity

MANY = 1000
ME = Owner(uid=1000)

WAKE_S = 0.05
"""Of a CPU, for a guest to answer. All that run share the one that there is."""

END_S = 0.05


@attrs.define(eq=False, kw_only=True)
class SlowHost:
    """Its guests share one CPU: the more are asked at a time, the longer each takes."""

    simulated: SimulatedHost
    asked: int = 0
    asked_peak: int = 0
    answered: int = 0
    ending: int = 0
    ending_peak: int = 0

    async def adopt(self, identity: ProcessIdentity, *, vm_id: str, directory: Path) -> Any:
        survivor = await self.simulated.adopt(identity, vm_id=vm_id, directory=directory)

        async def hold(*, nursery: trio.Nursery) -> Any:
            return self._slow(await survivor.hold(nursery=nursery))

        async def connect(*, nursery: trio.Nursery) -> Any:
            vm = await hold(nursery=nursery)
            await vm.resume()
            await vm.agent.ping()
            return vm

        return Wrapped(survivor, hold=hold, connect=connect)

    def _slow(self, vm: SimulatedVm) -> Any:
        def in_time(ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def answer(*arguments: Any) -> Any:
                await self._answer()
                return await ask(*arguments)

            return answer

        async def stop() -> ExitReport:
            self.ending += 1
            self.ending_peak = max(self.ending, self.ending_peak)
            report = await vm.stop()
            self.ending -= 1
            return report

        agent = Wrapped(vm.agent, ping=in_time(vm.agent.ping), prepare=in_time(vm.agent.prepare))
        return Wrapped(vm, agent=agent, stop=stop)

    async def _answer(self) -> None:
        self.asked += 1
        self.asked_peak = max(self.asked_peak, self.asked)
        try:
            await trio.sleep(WAKE_S * self.asked)
            self.answered += 1
        finally:
            self.asked -= 1


@attrs.define(eq=False, kw_only=True)
class Restarted:
    """A service that has just begun, after one that was killed."""

    host: SlowHost
    coordinator: Coordinator

    @property
    def pool(self) -> ProfileView:
        (view,) = self.coordinator.views()
        return view

    async def until(self, condition: Callable[[ProfileView], bool]) -> None:
        while not condition(self.pool):
            await trio.sleep(0.1)

    async def waited_for(self, ask: Callable[[], Awaitable[object]]) -> float:
        began = trio.current_time()
        await ask()
        return trio.current_time() - began


@asynccontextmanager
async def restarted(*, idle: int = 0, leased: int = 0) -> AsyncIterator[Restarted]:
    """So many VMs are there; a leased one has the number of its lease."""
    host = SlowHost(simulated=SimulatedHost(faults=lambda _: (StopIsSlow(delay_s=END_S),)))
    async with trio.open_nursery() as estate:
        records = {}
        for number in range(idle + leased):
            vm = await host.simulated.launch(SPEC, vm_id=f"vm-{number}", directory=VMS, nursery=estate)
            if number >= leased:
                await vm.pause()
            lease = attrs.evolve(
                LEASE, terms=LeaseTerms(lease_id=f"lease-{number}", owner_uid=1000), expires_at_ns=None
            )
            records[vm.id] = attrs.evolve(
                RECORD, vm_id=vm.id, process=vm.identity, lease=lease if number < leased else None
            )
        producer = direct(host.simulated)
        coordinator = Coordinator(
            policies={"default": PoolPolicy(size=idle, check_interval_s=60.0)},
            producers={"default": producer},
            journal=simulated_journal(),
            found=tuple(
                FoundVm(
                    vm_id=vm_id,
                    profile="default",
                    lease=None
                    if record.lease is None
                    else restored(record, record.lease, now=trio.current_time(), now_ns=0),
                )
                for vm_id, record in records.items()
            ),
            adoptions={vm_id: Adoption(record=record, adopt=host.adopt) for vm_id, record in records.items()},
            rng=random.Random(1),
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(producer.run)
            await nursery.start(coordinator.run)
            yield Restarted(host=host, coordinator=coordinator)
            nursery.cancel_scope.cancel(reason="the test is over")
        estate.cancel_scope.cancel(reason="the test is over")


async def first_answers(idle: int) -> tuple[float, float]:
    """How long a caller waits for a VM, and for a word about it."""
    async with restarted(idle=idle) as service:
        acquire = partial(service.coordinator.acquire, profile="default", owner=ME)
        return await service.waited_for(acquire), await service.waited_for(service.coordinator.prove_alive)


@in_virtual_time
async def test_all_idle_vms_are_found_and_none_is_lost() -> None:
    async with restarted(idle=MANY) as service:
        await service.until(lambda pool: pool.ready == MANY)
        assert (service.pool.counters.adopted, service.pool.counters.produced) == (MANY, MANY)
        await trio.sleep(MANY * WAKE_S * 3)
        assert (service.pool.counters.lost_idle, service.host.simulated.launched) == (0, MANY)
        assert service.host.answered >= MANY, "each was asked since"
        assert service.host.asked_peak <= 2


@in_virtual_time
async def test_who_comes_waits_no_longer_for_one_of_a_thousand_than_for_one_of_ten() -> None:
    assert await first_answers(MANY) == pytest.approx(await first_answers(10))


@in_virtual_time
async def test_the_guests_of_leases_are_asked_in_turn() -> None:
    async with restarted(leased=MANY) as service:
        await service.until(lambda pool: pool.counters.restored == MANY)
        assert service.pool.leased == MANY
        await trio.sleep(MANY * WAKE_S * 2)
        assert service.host.answered >= MANY, "each was asked, and some were again, to see whether they are well"
        assert service.host.asked_peak <= REACHED_AT_ONCE


@in_virtual_time
async def test_who_uses_his_lease_has_its_guest_asked_next() -> None:
    async with restarted(leased=MANY) as service:
        await service.until(lambda pool: pool.counters.restored == MANY)
        reach = partial(service.coordinator.wait_vm_of, f"lease-{MANY - 1}", owner=ME, limit_s=60.0)
        assert await service.waited_for(reach) <= 2 * REACHED_AT_ONCE * WAKE_S
        assert service.host.answered < 10


@in_virtual_time
async def test_few_end_at_a_time() -> None:
    async with restarted(idle=MANY) as service:
        await service.until(lambda pool: pool.ready == MANY)
        took_s = await service.waited_for(service.coordinator.shut_down)
        assert service.host.simulated.alive == frozenset()
        assert took_s >= MANY / ENDED_AT_ONCE * END_S
        assert service.host.ending_peak == ENDED_AT_ONCE
