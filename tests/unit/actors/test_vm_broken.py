"""A guest that breaks the agent's protocol: nobody can ask it for anything any more, so its VM is lost at once."""

from __future__ import annotations

import pytest
import trio

from tests.unit.actors.stage import ORDER, Story, one_vm, story
from tests.unit.actors.test_vm_adopted import adopted
from tests.virtual_time import in_virtual_time
from vmm.errors import QmpConnectionError, QmpError
from vmm.simulated import AgentBreaksProtocol, Moment, SimulatedHost
from vmm.words.facts import LeaseAdopted, VmGone, VmHandedOut, VmLost, VmReady
from vmm.words.life import VmState


async def lost(one: Story) -> str:
    fact = await one.until(VmLost)
    assert isinstance(fact, VmLost)
    await one.until(VmGone)
    return fact.reason


@in_virtual_time
async def test_a_leased_vm_is_lost_with_its_reason() -> None:
    async with story() as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await one.until(VmHandedOut)
        one.host.machine("vm-1").break_protocol()
        assert await lost(one) == "the guest agent sent garbage: simulated"
        assert one.recorded() is None
    assert one.kinds() == ["VmReady", "VmHandedOut", "VmLost", "VmGone"]


@in_virtual_time
async def test_an_idle_vm_is_lost_before_anybody_gets_it() -> None:
    async with story() as one:
        await one.until(VmReady)
        one.host.machine("vm-1").break_protocol()
        assert "garbage" in await lost(one)
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


@in_virtual_time
async def test_a_leased_vm_whose_qemu_breaks_its_protocol_is_lost_with_its_reason() -> None:
    """Its guest may have it. Nothing else would end that lease: its agent answers."""
    broken = trio.Event()

    async def wait_broken() -> QmpError:
        await broken.wait()
        return QmpConnectionError("QEMU floods its QMP connection")

    host = SimulatedHost()
    async with story(producer=one_vm(host, wait_broken=wait_broken)) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await one.until(VmHandedOut)
        broken.set()
        assert await lost(one) == "QEMU floods its QMP connection"
    assert one.kinds() == ["VmReady", "VmHandedOut", "VmLost", "VmGone"]
    assert not host.alive


@in_virtual_time
async def test_in_a_hand_out_it_is_noticed_from_two_sides_and_told_once() -> None:
    async with story(AgentBreaksProtocol(when=Moment.RESUMED)) as one:
        await one.until(VmReady)
        one.actor.hand_out(ORDER)
        await lost(one)
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


@pytest.mark.parametrize("leased", [True, False])
@in_virtual_time
async def test_an_adopted_vm_is_lost_too(leased: bool) -> None:
    async with adopted(leased=leased) as one:
        await one.until(LeaseAdopted if leased else VmReady)
        await trio.testing.wait_all_tasks_blocked()
        one.host.machine("vm-1").break_protocol()
        assert "garbage" in await lost(one)
    assert one.actor.state is VmState.GONE
