"""Where our factory differs from Kata's, deliberately."""

from __future__ import annotations

import structlog.testing
import trio

from tests.unit.kata.factories import Stage, small, taken
from tests.virtual_time import in_virtual_time
from vmm.simulated import BootFails, scripted
from vmm.words.processes import BootStage, ExitReport


@in_virtual_time
async def test_deviation_a_request_that_does_not_match_is_given_a_running_vm() -> None:
    """Kata gives a paused one."""
    stage = Stage()
    with structlog.testing.capture_logs() as logs:
        async with stage.open(cache=1, template=True) as factory:
            request = small(cpu_features="pmu=off", memory_size=1024)
            async with taken(stage, vm := await factory.get_vm(request)) as machine:
                assert stage.running(vm)
                assert len(machine.entropy) == 2, "the rehearsal's, and its own"
                assert machine.online.memory_mib == 1024
    (said,) = [entry for entry in logs if entry["event"] == "fallback to direct factory vm"]
    assert said["differences"] == ["HypervisorConfig.CPUFeatures"]


@in_virtual_time
async def test_deviation_a_failed_boot_does_not_close_the_cache() -> None:
    failing = BootFails(stage=BootStage.GUEST, reason="no luck")
    stage = Stage(faults=scripted({0: (failing,), 1: (failing,), 2: (failing,)}))
    async with stage.open(cache=1) as factory, taken(stage, await factory.get_vm(small())):
        assert stage.vms.launched >= 4


@in_virtual_time
async def test_deviation_a_caller_who_goes_away_takes_no_vm() -> None:
    for kind in ({}, {"template": True}, {"cache": 1}, {"cache": 1, "template": True}):
        for seconds in (0.0, 0.05, 0.5, 1.0, 1.01, 2.0):
            stage = Stage()
            async with stage.open(**kind) as factory:
                with trio.move_on_after(seconds) as scope:
                    vm = await factory.get_vm(small())
                if not scope.cancelled_caught:
                    await vm.stop()
                if "cache" in kind:
                    await trio.sleep(60)
                    assert len(factory.vm_status()) == len(stage.vms.alive) == 1
                    await factory.aclose()
                else:
                    assert not stage.vms.alive


@in_virtual_time
async def test_deviation_a_vm_that_died_while_it_was_kept_is_not_given() -> None:
    stage = Stage()
    async with stage.open(cache=1) as factory:
        await trio.sleep(60)
        (kept,) = stage.vms.alive
        stage.vms.machine(kept).exit(ExitReport(signal=9))
        async with taken(stage, vm := await factory.get_vm(small())):
            assert vm.id != kept
