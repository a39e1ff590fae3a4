"""What goes wrong with simulated VMs, under a virtual clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from vmm.errors import AgentRequestError, AgentUnreachableError, BootError, VmExitedError
from vmm.simulated import (
    AgentGoesMute,
    BootFails,
    BootHangs,
    Exits,
    Fault,
    Moment,
    PrepareFails,
    PrepareIsSlow,
    SimulatedHost,
    SimulatedVm,
    StopIsSlow,
    random_faults,
    scripted,
)
from vmm.spec import MachineSpec
from vmm.words.commands import CommandSpec
from vmm.words.machines import Accelerator
from vmm.words.preparation import Preparation
from vmm.words.processes import BootStage, ExitReport

NOWHERE = Path("/nowhere")
SPEC = MachineSpec(qemu=NOWHERE, kernel=NOWHERE, initrd=NOWHERE, accelerator=Accelerator.TCG)


@pytest.fixture
def clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Every test names it: pytest-trio uses a clock only if it is an argument of the test itself."""
    return autojump_clock


async def launch(host: SimulatedHost, nursery: trio.Nursery, vm_id: str = "vm") -> SimulatedVm:
    return await host.launch(SPEC, vm_id=vm_id, directory=NOWHERE, nursery=nursery)


async def with_faults(nursery: trio.Nursery, *faults: Fault) -> SimulatedVm:
    return await launch(SimulatedHost(faults=scripted({0: faults})), nursery)


async def test_a_boot_takes_its_time(clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    host = SimulatedHost(boot_s=5)
    vm = await launch(host, nursery)
    assert clock.current_time() == pytest.approx(5)
    assert host.alive == {"vm"}
    await vm.stop()
    assert (host.alive, host.launched) == (frozenset(), 1)


async def test_a_boot_that_fails_leaves_nothing(clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    host = SimulatedHost(faults=scripted({0: [BootFails(stage=BootStage.QMP, reason="no", after_s=2)]}))
    with pytest.raises(BootError, match=r"stage: qmp.*no"):
        await launch(host, nursery)
    assert clock.current_time() == pytest.approx(2)
    assert host.alive == frozenset()
    await (await launch(host, nursery)).stop()


async def test_a_boot_that_hangs_until_it_is_cancelled(clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    host = SimulatedHost(faults=scripted({0: [BootHangs()]}))
    with trio.move_on_after(60) as limit:
        await launch(host, nursery)
    assert limit.cancelled_caught
    assert host.alive == frozenset()


@pytest.mark.parametrize("when", Moment)
async def test_an_exit_strikes_after_its_moment(
    clock: trio.testing.MockClock, nursery: trio.Nursery, when: Moment
) -> None:
    vm = await with_faults(nursery, Exits(when=when, after_s=3))
    steps: dict[Moment, Callable[[], Awaitable[object]]] = {
        Moment.READY: vm.agent.ping,
        Moment.PAUSED: vm.pause,
        Moment.RESUMED: vm.resume,
        Moment.PREPARED: lambda: vm.agent.prepare(Preparation()),
    }
    await steps[when]()
    assert (await vm.wait_exited()).signal is not None
    assert clock.current_time() == pytest.approx(3)
    with pytest.raises(VmExitedError):
        await vm.pause()
    with pytest.raises(AgentUnreachableError):
        await vm.agent.ping()
    await vm.stop()


async def test_a_vm_that_was_stopped_does_not_exit_again(clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    vm = await with_faults(nursery, Exits(when=Moment.READY, after_s=3))
    report = await vm.stop()
    await trio.sleep(10)
    assert await vm.wait_exited() == report == ExitReport(status=0)


async def test_a_mute_agent_answers_nothing_and_its_vm_lives(
    clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    vm = await with_faults(nursery, AgentGoesMute(when=Moment.RESUMED))
    await vm.agent.ping()
    await vm.pause()
    await vm.resume()
    with trio.move_on_after(60) as limit:
        await vm.agent.ping()
    assert limit.cancelled_caught
    async with trio.open_nursery() as stopping:
        stopping.start_soon(vm.stop)
        with pytest.raises(AgentUnreachableError):
            await vm.agent.ping()


async def test_preparation_that_fails_and_one_that_is_slow(
    clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    host = SimulatedHost(faults=scripted({0: [PrepareFails(code="EPERM")], 1: [PrepareIsSlow(delay_s=7)]}))
    failing, slow = await launch(host, nursery, "failing"), await launch(host, nursery, "slow")
    with pytest.raises(AgentRequestError, match="EPERM"):
        await failing.agent.prepare(Preparation(entropy=b"x"))
    assert failing.machine.entropy == []
    report = await slow.agent.prepare(Preparation(entropy=b"x", wall_clock_ns=1))
    assert report.reseeded
    assert slow.machine.entropy == [b"x"]
    assert clock.current_time() == pytest.approx(7)
    await failing.stop()
    await slow.stop()


async def test_a_slow_stop_is_not_cut_short(clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    vm = await with_faults(nursery, StopIsSlow(delay_s=4))
    with trio.move_on_after(1):
        await vm.stop()
    assert clock.current_time() == pytest.approx(4)
    assert vm.machine.exit_report == ExitReport(status=0)


async def test_commands_sleep_on_the_virtual_clock(clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    vm = await launch(SimulatedHost(), nursery)
    command = await vm.agent.start_command(CommandSpec(argv=["sleep", "3600"]))
    events = [event async for event in command.events()]
    assert len(events) == 1
    assert clock.current_time() == pytest.approx(3600)
    await command.aclose()
    await vm.stop()


async def test_a_stop_ends_with_the_service_that_ordered_it(
    clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """It was killed while it waited for QEMU's end: the VM lives on, for the next service."""
    host = SimulatedHost(faults=scripted({0: [StopIsSlow(delay_s=3.0)]}))
    vm = await launch(host, nursery)
    nursery.start_soon(vm.stop)
    await trio.sleep(1.0)
    host.kill_service()
    await trio.sleep(10.0)
    assert host.alive == {"vm"}
    assert host.machine("vm").exit_report is None


async def test_one_id_one_vm(clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    host = SimulatedHost()
    vm = await launch(host, nursery)
    with pytest.raises(ValueError, match="already"):
        await launch(host, nursery)
    await vm.stop()


def test_random_plans_repeat_with_their_seed() -> None:
    def draw(seed: int) -> list[Sequence[Fault]]:
        plan = random_faults(Random(seed), {BootHangs(): 0.5, StopIsSlow(delay_s=1): 0.1})
        return [plan(number) for number in range(100)]

    assert draw(1) == draw(1) != draw(2)
    assert 20 < sum(BootHangs() in faults for faults in draw(1)) < 80
