"""The direct-boot producer: VMs that are paused and checked, or an error with the evidence and nothing left."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

from actors.direct import DirectBootProducer
from actors.errors import evidence
from actors.machine import ResolvedMachine
from actors.supervisor import RestartPolicy, Supervised
from tests.unit.actors.stage import NOWHERE, direct, produce, resolved
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.errors import AcceleratorError, AgentRequestError, BootError
from vmm.simulated import (
    AgentGoesMute,
    BootFails,
    BootHangs,
    Moment,
    PrepareFails,
    SimulatedHost,
    StopIsSlow,
    scripted,
)
from vmm.simulated.machine import Power
from vmm.spec import MachineSpec
from vmm.words.backoff import Backoff
from vmm.words.kinds import ProducerKind
from vmm.words.processes import BootStage


@in_virtual_time
async def test_it_makes_a_paused_vm_whose_agent_has_answered() -> None:
    host = SimulatedHost(boot_s=2.0)
    producer = direct(host)
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        vm = await produce(producer, nursery=nursery)
        assert vm.machine.state.value.power is Power.PAUSED
        assert vm.machine.entropy, "the hand-out was not rehearsed"
        assert producer.statistics().produced == 1
        await vm.stop()
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_each_vm_has_a_directory_of_its_own() -> None:
    host = SimulatedHost()
    seen: list[tuple[str, Path]] = []

    async def launch(spec: MachineSpec, *, vm_id: str, directory: Path, nursery: trio.Nursery) -> Vm:
        seen.append((vm_id, directory))
        return await host.launch(spec, vm_id=vm_id, directory=directory, nursery=nursery)

    producer = attrs.evolve(direct(host), launch=launch)
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        for vm_id in ("vm-1", "vm-2"):
            await (await produce(producer, nursery=nursery, vm_id=vm_id)).stop()
        nursery.cancel_scope.cancel()
    assert seen == [("vm-1", NOWHERE / "vm-1"), ("vm-2", NOWHERE / "vm-2")]


@in_virtual_time
async def test_production_waits_until_the_producer_is_ready_and_that_time_is_not_the_boots() -> None:
    async def resolve() -> ResolvedMachine:
        await trio.sleep(100.0)
        return resolved("it took a while")

    host = SimulatedHost(boot_s=5.0)
    producer = DirectBootProducer(resolve=resolve, launch=host.launch, vms_directory=NOWHERE, boot_timeout_s=10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(producer.run)
        assert not producer.statistics().ready
        vm = await produce(producer, nursery=nursery)
        assert trio.current_time() == 105.0
        assert producer.statistics().ready
        await vm.stop()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "fault",
    [BootHangs(), AgentGoesMute(when=Moment.READY)],
    ids=["the boot hangs", "the agent is mute"],
)
@in_virtual_time
async def test_a_boot_that_takes_too_long_is_a_boot_error(fault: BootHangs | AgentGoesMute) -> None:
    host = SimulatedHost(boot_s=1.0, faults=scripted({0: [fault]}))
    producer = direct(host, boot_timeout_s=30.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        began = trio.current_time()
        with pytest.raises(BootError, match="not ready within 30 s") as caught:
            await produce(producer, nursery=nursery)
        assert caught.value.stage is BootStage.GUEST
        assert trio.current_time() == began + 30.0
        assert not host.alive
        assert (producer.statistics().produced, producer.statistics().failed) == (0, 1)
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_timeout_carries_the_evidence_that_launch_noted_on_its_cancellation() -> None:
    """`Cancelled` ends in the cancel scope; what was noted on it must not end there too."""

    async def launch(spec: MachineSpec, *, vm_id: str, directory: Path, nursery: trio.Nursery) -> Vm:
        try:
            await trio.sleep_forever()
        except BaseException as error:
            error.add_note("end of guest console: Waiting for root device")
            raise
        raise AssertionError

    producer = attrs.evolve(direct(SimulatedHost()), launch=launch)
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        with pytest.raises(BootError) as caught:
            await produce(producer, nursery=nursery)
        assert evidence(caught.value) == "end of guest console: Waiting for root device"
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_vm_that_fails_its_rehearsal_is_stopped() -> None:
    host = SimulatedHost(faults=scripted({0: [PrepareFails(), StopIsSlow(delay_s=1.0)]}))
    producer = direct(host)
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        with pytest.raises(AgentRequestError):
            await produce(producer, nursery=nursery)
        assert not host.alive
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after_s", [0.5, 1.5], ids=["while it boots", "while it is rehearsed"])
@in_virtual_time
async def test_a_cancelled_production_leaves_nothing_and_is_no_failure(after_s: float) -> None:
    host = SimulatedHost(boot_s=1.0, faults=scripted({0: [AgentGoesMute(when=Moment.READY), StopIsSlow(delay_s=1.0)]}))
    producer = direct(host)
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        with trio.move_on_after(after_s) as scope:
            await produce(producer, nursery=nursery)
        assert scope.cancelled_caught
        assert not host.alive
        assert producer.statistics().failed == 0
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_failed_boot_keeps_its_own_error() -> None:
    host = SimulatedHost(faults=scripted({0: [BootFails(stage=BootStage.QMP, reason="no such machine")]}))
    producer = direct(host)
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        with pytest.raises(BootError, match="no such machine") as caught:
            await produce(producer, nursery=nursery)
        assert caught.value.stage is BootStage.QMP
        assert producer.statistics().failed == 1
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_when_no_accelerator_is_found_its_supervisor_has_it_try_again() -> None:
    """Who waits for a VM waits on; statistics say what is missing."""
    attempts: list[float] = []

    async def resolve() -> ResolvedMachine:
        attempts.append(trio.current_time())
        if len(attempts) < 3:
            raise AcceleratorError(accelerator="kvm", reason="/dev/kvm does not exist", remedy="use tcg")
        return resolved("it works now")

    host = SimulatedHost()
    producer = DirectBootProducer(resolve=resolve, launch=host.launch, vms_directory=NOWHERE, boot_timeout_s=10.0)
    policy = RestartPolicy(backoff=Backoff(initial_s=1.0, jitter=0.0))
    supervised = Supervised(name="producer", main=producer.run, policy=policy)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervised.run)
        await trio.sleep(0.5)
        last_error = supervised.statistics().last_error
        assert last_error is not None
        assert "/dev/kvm does not exist" in last_error
        assert producer.statistics().accelerator is None
        vm = await produce(producer, nursery=nursery)
        assert attempts == [0.0, 1.0, 3.0]
        statistics = producer.statistics()
        assert (statistics.kind, statistics.accelerator) == (ProducerKind.DIRECT, "tcg")
        assert statistics.detail == "it works now"
        await vm.stop()
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_producer_that_has_ended_is_not_ready() -> None:
    producer = direct(SimulatedHost())
    async with trio.open_nursery() as nursery:
        await nursery.start(producer.run)
        assert producer.statistics().ready
        nursery.cancel_scope.cancel()
    assert not producer.statistics().ready
