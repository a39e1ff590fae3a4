"""A guest that breaks the agent's protocol: nobody can ask it for anything any more, so its VM is lost at once."""

from __future__ import annotations

import pytest
import trio

from actors.life import VmState
from actors.messages import LeaseAdopted, VmGone, VmHandedOut, VmLost, VmReady
from tests.unit.actors.stage import ORDER, Story, story
from tests.unit.actors.test_vm_adopted import adopted
from tests.virtual_time import in_virtual_time
from vmm.simulated import AgentBreaksProtocol, Moment


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
