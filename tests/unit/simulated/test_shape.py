"""How a simulated guest comes by its CPUs, memory and random numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from tests.agents import Narrow
from vmm.errors import AgentRequestError
from vmm.simulated import SimulatedHost, SimulatedVm
from vmm.spec import MachineSpec
from vmm.words.commands import CommandSpec, Output
from vmm.words.machines import Accelerator
from vmm.words.preparation import Preparation

NOWHERE = Path("/nowhere")
SPEC = MachineSpec(
    qemu=NOWHERE, kernel=NOWHERE, initrd=NOWHERE, accelerator=Accelerator.TCG, max_vcpus=4, max_memory_mib=1024
)


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def launch(nursery: trio.Nursery, vm_id: str) -> SimulatedVm:
    return await SimulatedHost().launch(SPEC, vm_id=vm_id, directory=NOWHERE, nursery=nursery)


async def test_what_is_never_plugged_in_is_waited_for_five_seconds(
    clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    vm = await launch(nursery, "vm")
    await vm.grow(vcpus=2, memory_mib=256)
    with pytest.raises(AgentRequestError, match=r"ETIMEDOUT: 2 CPUs and 256 MiB"):
        await vm.agent.prepare(Preparation(vcpus=3, memory_mib=256))
    assert clock.current_time() == pytest.approx(5)
    await vm.stop()


async def test_what_is_plugged_in_is_used_once_it_was_asked_for(nursery: trio.Nursery) -> None:
    vm = await launch(nursery, "vm")
    await vm.grow(vcpus=3, memory_mib=512)
    assert (await vm.agent.prepare(Preparation())).cpus_online == 1
    assert (await vm.agent.prepare(Preparation(vcpus=2))).cpus_online == 3
    assert (await vm.agent.prepare(Preparation(memory_mib=512))).memory_online_mib == 512
    await vm.stop()


async def test_no_more_of_a_command_s_output_waits_than_there_is_room_for(nursery: trio.Nursery) -> None:
    vm = await launch(nursery, "vm")
    room = Narrow()
    await vm.agent.put_file("/tmp/file", bytes(3 * room.window + 1))
    command = await vm.agent.start_command(CommandSpec(argv=["cat", "/tmp/file"], room=room))
    sizes = [len(event.data) async for event in command.events() if isinstance(event, Output)]
    assert sizes == [room.window] * 3 + [1]
    await command.aclose()
    await vm.stop()


async def test_guests_draw_the_same_numbers_until_they_are_reseeded(nursery: trio.Nursery) -> None:
    vms = [await launch(nursery, name) for name in ("one", "other")]
    same = {(await vm.agent.prepare(Preparation(random_bytes=8))).random for vm in vms}
    assert len(same) == 1
    different = {(await vm.agent.prepare(Preparation(entropy=vm.id.encode(), random_bytes=8))).random for vm in vms}
    assert len(different) == 2
    for vm in vms:
        await vm.stop()
