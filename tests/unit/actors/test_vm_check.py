"""The health check of an idle VM: it runs for a moment, its agent answers, it is paused; whatever comes between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio

from actors.parking import CHECK_TIMEOUT_S
from tests.unit.actors.stage import ORDER, OneVm, Story, Wrapped, make_actor, paused_vm, story
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.errors import QmpConnectionError
from vmm.simulated import AgentGoesMute, Exits, Moment, SimulatedHost, StopIsSlow
from vmm.simulated.machine import MachineState, Power
from vmm.words.facts import VmGone, VmHandedOut, VmHealthy, VmLost, VmReady
from vmm.words.life import VmState
from vmm.words.preparation import GuestInfo

PING_S = 1.0


def power(one: Story) -> Power:
    state: MachineState = one.host.machine("vm-1").state.value
    return state.power


@attrs.define(eq=False)
class Checked:
    """A VM that writes down what is done to it, and whose agent takes a while to answer."""

    host: SimulatedHost = attrs.field(factory=SimulatedHost)
    done: list[str] = attrs.field(factory=list)
    ping_s: float = PING_S

    @property
    def producer(self) -> OneVm:
        return OneVm(answer=self._produce)

    async def _produce(self, nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(self.host, nursery)

        def noted(name: str, operation: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def note(*args: Any) -> Any:
                self.done.append(name)
                return await operation(*args)

            return note

        async def ping() -> GuestInfo:
            self.done.append("ping")
            await trio.sleep(self.ping_s)
            return await vm.agent.ping()

        agent = Wrapped(vm.agent, ping=ping, prepare=noted("prepare", vm.agent.prepare))
        return Wrapped(vm, agent=agent, resume=noted("resume", vm.resume), pause=noted("pause", vm.pause))


# -- the check that goes well ------------------------------------------------------------------------------------------


@in_virtual_time
async def test_it_resumes_asks_and_pauses() -> None:
    vm = Checked()
    async with story(producer=vm.producer) as one:
        await one.until(VmReady)
        one.actor.check()
        assert await one.until(VmHealthy) == VmHealthy(vm_id="vm-1")
        assert vm.done == ["resume", "ping", "pause"]
        assert vm.host.machine("vm-1").state.value.power is Power.PAUSED
        one.actor.stop("enough")
    assert one.kinds() == ["VmReady", "VmHealthy", "VmGone"]


@in_virtual_time
async def test_it_stays_idle_and_adoptable_all_the_while() -> None:
    vm = Checked()
    async with story(producer=vm.producer) as one:
        await one.until(VmReady)
        record = one.recorded()
        assert record is not None
        one.actor.check()
        await trio.sleep(PING_S / 2)
        assert vm.host.machine("vm-1").state.value.power is Power.RUNNING
        assert (one.actor.state, one.recorded()) == (VmState.READY, record)
        await one.until(VmHealthy)
        assert (one.actor.state, one.recorded()) == (VmState.READY, record)
        one.actor.stop("enough")


@in_virtual_time
async def test_it_can_be_done_again_and_again_and_then_the_vm_is_handed_out() -> None:
    async with story() as one:
        await one.until(VmReady)
        for number in range(3):
            one.actor.check()
            while one.kinds().count("VmHealthy") == number:
                await trio.sleep(0.1)
        one.actor.hand_out(ORDER)
        await one.until(VmHandedOut)
        assert power(one) is Power.RUNNING
        one.actor.stop("enough")


# -- the check that does not -------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_mute_agent_costs_the_vm_after_the_time_limit() -> None:
    async with story(AgentGoesMute(when=Moment.PAUSED)) as one:
        await one.until(VmReady)
        began = trio.current_time()
        one.actor.check()
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert trio.current_time() == began + CHECK_TIMEOUT_S
        assert lost.reason == f"the agent did not answer a check within {CHECK_TIMEOUT_S:g} s"
        assert one.on_disk["VmLost"] is None, "nobody adopts it"
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


@pytest.mark.parametrize("operation", ["resume", "pause"])
@in_virtual_time
async def test_a_process_that_hangs_is_lost_after_the_time_limit(operation: str) -> None:
    """QEMU is stopped, or waits for a disk: it takes commands and answers none."""
    host = SimulatedHost()

    async def answer(nursery: trio.Nursery) -> Vm:
        return Wrapped(await paused_vm(host, nursery), **{operation: trio.sleep_forever})

    async with story(producer=OneVm(answer=answer)) as one:
        await one.until(VmReady)
        began = trio.current_time()
        one.actor.check()
        await one.until(VmLost)
        assert trio.current_time() == began + CHECK_TIMEOUT_S
    assert not host.alive


@pytest.mark.parametrize("operation", ["resume", "pause"])
@in_virtual_time
async def test_an_error_of_qemu_is_a_loss(operation: str) -> None:
    host = SimulatedHost()

    async def fail() -> None:
        raise QmpConnectionError("the connection broke")

    async def answer(nursery: trio.Nursery) -> Vm:
        return Wrapped(await paused_vm(host, nursery), **{operation: fail})

    async with story(producer=OneVm(answer=answer)) as one:
        await one.until(VmReady)
        one.actor.check()
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert lost.reason == "the connection broke"
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


@in_virtual_time
async def test_death_during_a_check_is_one_loss() -> None:
    async with story(AgentGoesMute(when=Moment.PAUSED), Exits(when=Moment.RESUMED, after_s=0.5)) as one:
        await one.until(VmReady)
        began = trio.current_time()
        one.actor.check()
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert trio.current_time() == began + 0.5
        assert "killed by signal 11" in lost.reason
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


# -- what comes between ------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_hand_out_ordered_during_a_check_waits_for_it_and_then_works() -> None:
    vm = Checked()
    async with story(producer=vm.producer) as one:
        await one.until(VmReady)
        began = trio.current_time()
        one.actor.check()
        await trio.sleep(PING_S / 2)
        one.actor.hand_out(ORDER)
        handed_out = await one.until(VmHandedOut)
        assert isinstance(handed_out, VmHandedOut)
        assert trio.current_time() == began + PING_S
        assert handed_out.timings.total_s == 0.0
        assert vm.done[:3] == ["resume", "ping", "pause"]
        assert sorted(vm.done[3:]) == ["prepare", "resume"]
        assert vm.host.machine("vm-1").state.value.power is Power.RUNNING
        assert one.on_disk["VmHandedOut"] is not None
        one.actor.stop("enough")
    assert one.kinds() == ["VmReady", "VmHealthy", "VmHandedOut", "VmGone"]


@in_virtual_time
async def test_a_check_and_a_hand_out_may_be_ordered_before_either_is_begun() -> None:
    async with story() as one:
        await one.until(VmReady)
        one.actor.check()
        one.actor.hand_out(ORDER)
        await one.until(VmHandedOut)
        one.actor.stop("enough")
    assert one.kinds() == ["VmReady", "VmHealthy", "VmHandedOut", "VmGone"]


@in_virtual_time
async def test_a_hand_out_that_waits_for_a_mute_agent_is_a_loss() -> None:
    async with story(AgentGoesMute(when=Moment.PAUSED)) as one:
        await one.until(VmReady)
        one.actor.check()
        one.actor.hand_out(ORDER)
        await one.until(VmLost)
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


@in_virtual_time
async def test_stop_during_a_check() -> None:
    vm = Checked()
    async with story(producer=vm.producer) as one:
        await one.until(VmReady)
        one.actor.check()
        await trio.sleep(PING_S / 2)
        one.actor.stop("the pool wants fewer VMs")
        assert one.recorded() is None
    assert one.kinds() == ["VmReady", "VmGone"]
    assert not vm.host.alive


@in_virtual_time
async def test_orders_to_a_vm_that_is_ending_do_nothing() -> None:
    async with story(StopIsSlow(delay_s=5.0)) as one:
        await one.until(VmReady)
        one.actor.stop("the pool wants fewer VMs")
        one.actor.check()
        one.actor.hand_out(ORDER)
    assert one.kinds() == ["VmReady", "VmGone"]


@in_virtual_time
async def test_a_vm_that_is_let_go_during_a_check_can_be_adopted() -> None:
    vm = Checked()
    host = vm.host
    async with trio.open_nursery() as nursery:
        one = Story(host=host)
        one.actor = make_actor(one, vm.producer)
        nursery.start_soon(one.actor.run)
        await one.until(VmReady)
        record = one.recorded()
        one.actor.check()
        await trio.sleep(PING_S / 2)
        one.actor.detach("the service hands over")
        assert await one.until(VmGone) == VmGone(vm_id="vm-1", let_go=True)
        assert one.kinds() == ["VmReady", "VmGone"]
        assert one.recorded() == record is not None
        assert host.alive == {"vm-1"}

        assert record is not None
        survivor = await host.adopt(record.process, vm_id="vm-1", directory=one.journal.directory)
        await survivor.stop()
        nursery.cancel_scope.cancel()
