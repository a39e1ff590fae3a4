"""A factory that fails leaves nothing, and says why."""

from __future__ import annotations

import attrs
import pytest
import structlog.testing
import trio

from actors.journal import GivenAway, Recorded
from pool.kata.errors import UnsupportedError
from tests.unit.kata.configs import vm_config
from tests.unit.kata.factories import Stage, small, taken
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.errors import AgentUnreachableError, AttachError, BootError, HotplugError
from vmm.simulated import AgentGoesMute, BootFails, Moment, scripted
from vmm.words.processes import BootStage


@in_virtual_time
async def test_a_vm_that_cannot_be_made_ready_is_ended() -> None:
    stage = Stage(faults=scripted({0: (AgentGoesMute(when=Moment.PAUSED),)}))
    with structlog.testing.capture_logs() as logs:
        async with stage.open() as factory:
            with pytest.raises(AgentUnreachableError, match="not ready for use within 5 s"):
                await factory.get_vm(small())
    assert not stage.vms.alive
    assert "clean up vm" in [entry["event"] for entry in logs]


@in_virtual_time
async def test_more_than_a_vm_can_become_is_refused_and_the_vm_ended() -> None:
    stage = Stage()
    async with stage.open() as factory:
        with pytest.raises(HotplugError):
            await factory.get_vm(small(num_vcpus_f=9.0))
    assert not stage.vms.alive


@in_virtual_time
async def test_a_base_that_cannot_be_had_is_told() -> None:
    stage = Stage(faults=scripted({0: (BootFails(stage=BootStage.GUEST, reason="no luck"),)}))
    with structlog.testing.capture_logs() as logs:
        async with stage.open() as factory:
            with pytest.raises(BootError, match="no luck"):
                await factory.get_vm(small())
    assert logs[-1]["event"] == "failed to get base VM"
    assert not stage.vms.alive


@in_virtual_time
async def test_what_was_taken_from_the_cache_is_nobodys_when_this_process_is_killed() -> None:
    """The mark that says that it is somebody's goes; the next factory ends it."""
    stage = Stage()
    async with stage.open(cache=1) as factory:
        vm = await factory.get_base_vm()
        found = stage.host.journal.read_all()
        assert not any(isinstance(one, GivenAway) for one in found)
        assert not any(isinstance(one, Recorded) and one.vm_id == vm.id for one in found)
        await vm.stop()


@pytest.mark.logs_error("failed to get base VM")
@in_virtual_time
async def test_a_cached_vm_that_cannot_be_attached_is_ended_and_replaced() -> None:
    stage = Stage()
    attached = []

    async def attach(*, vm_id: str, **rest: object) -> Vm:
        attached.append(vm_id)
        if len(attached) == 1:
            raise AttachError(vm_id=vm_id, reason="no luck")
        return await stage.vms.attach(vm_id=vm_id, **rest)  # type: ignore[arg-type]

    stage.host = attrs.evolve(stage.host, attach=attach)
    async with stage.open(cache=1) as factory:
        with pytest.raises(AttachError, match="no luck"):
            await factory.get_vm(small())
        await trio.sleep(60)
        assert attached[0] not in stage.vms.alive
        async with taken(stage, await factory.get_vm(small())):
            pass


@in_virtual_time
async def test_an_image_is_refused_in_a_sentence() -> None:
    with pytest.raises(UnsupportedError, match="vmpool boots an initrd only"):
        async with Stage().open(vm_config(image_path="/img", initrd_path="")):
            pass
