"""VMs that a factory gives: by the cases of Kata's own tests, over simulated VMs."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from pool.kata.errors import InvalidConfigError, UnsupportedError
from pool.kata.records.config import VMConfig
from pool.kata.records.gokinds import Generation
from tests.unit.kata.factories import Stage, small, taken
from tests.virtual_time import in_virtual_time
from vmm.errors import VmExitedError
from vmm.words.preparation import RESEED_BYTES, Preparation


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param({}, id="f9-direct"),
        pytest.param({"template": True}, id="f10-template"),
        pytest.param({"cache": 2}, id="f12-cache"),
        pytest.param({"cache": 2, "template": True}, id="f13-cache-of-clones"),
    ],
)
@in_virtual_time
async def test_f9_f10_f12_f13_a_vm_is_given_running_and_unique(kind: dict[str, Any]) -> None:
    stage = Stage()
    async with stage.open(**kind) as factory:
        async with taken(stage, await factory.get_vm(small())) as machine:
            assert machine.entropy[-1] != machine.entropy[0], "reseeded, after the rehearsal"
            assert len(machine.entropy[-1]) == RESEED_BYTES
            vm = await factory.get_vm(small())
            assert stage.running(vm)
            assert stage.machine(vm).entropy[-1] != machine.entropy[-1]
            await vm.stop()
        await factory.aclose()
    assert not stage.vms.alive


@in_virtual_time
async def test_f11_a_template_that_others_fetch_still_serves_its_maker() -> None:
    stage = Stage()
    async with stage.open(template=True) as first, stage.open(template=True, fetch_only=True) as second:
        for factory in (second, first):
            async with taken(stage, await factory.get_vm(small())):
                pass


@in_virtual_time
async def test_f14_f15_f16_what_is_wanted_beyond_the_base_is_added() -> None:
    """Less than the base has is no reason to take anything away."""
    stage = Stage()
    async with stage.open(cache=2, template=True) as factory:
        for fields, vcpus, memory_mib in (
            ({"num_vcpus_f": 1.5}, 2, 512),
            ({"memory_size": 640}, 1, 640),
            ({"num_vcpus_f": 3.0, "memory_size": 1024}, 3, 1024),
            ({"memory_size": 256}, 1, 512),
            ({"num_vcpus_f": 0.0, "memory_size": 0}, 1, 512),
        ):
            async with taken(stage, await factory.get_vm(small(**fields))) as machine:
                assert (machine.online.vcpus, machine.online.memory_mib) == (vcpus, memory_mib)


@in_virtual_time
async def test_f19_d1_a_direct_factory_boots_what_it_is_told_to() -> None:
    stage = Stage()
    async with stage.open() as factory:
        assert factory.config() == small().valid()
        async with taken(stage, vm := await factory.get_base_vm()):
            assert not stage.running(vm)
            with pytest.raises(UnsupportedError, match=r"^ERROR: package direct does not support GetVMStatus$"):
                factory.vm_status()
        await factory.aclose()


@pytest.mark.parametrize(("kind", "package"), [({"template": True}, "template")])
@in_virtual_time
async def test_f19_what_keeps_no_vms_has_no_status(kind: dict[str, Any], package: str) -> None:
    async with Stage().open(**kind) as factory:
        with pytest.raises(UnsupportedError, match=f"package {package} does not support GetVMStatus"):
            factory.vm_status()


@in_virtual_time
async def test_c1_a_cache_keeps_vms_ready_and_ends_them() -> None:
    stage = Stage()
    async with stage.open(cache=2) as factory:
        assert factory.config() == small().valid()
        vm = await factory.get_base_vm()
        assert not stage.running(vm)
        await trio.sleep(60)
        ready = factory.vm_status()
        assert [(one.vcpus, one.memory_mib) for one in ready] == [(1, 512)] * 2
        assert len(stage.vms.alive) == 3, "what was given is replaced"
        await factory.aclose()
        assert stage.vms.alive == {vm.id}, "and is not the factory's to end"
        await vm.stop()
    assert not stage.vms.alive


@in_virtual_time
async def test_a_vm_that_was_given_outlives_its_factory() -> None:
    stage = Stage()
    for kind in ({}, {"template": True}, {"cache": 1}):
        async with stage.open(**kind) as factory:
            vm = await factory.get_vm(small())
            if kind == {"template": True}:
                await factory.aclose()
        assert stage.vms.alive == {vm.id}
        await vm.stop()


@pytest.mark.logs_error("invalid hypervisor config")
@in_virtual_time
async def test_v1_a_config_without_kernel_gets_no_vm() -> None:
    stage = Stage()
    async with stage.open() as factory:
        with pytest.raises(InvalidConfigError, match=r"^Missing kernel path$"):
            await factory.get_vm(VMConfig())
    assert stage.vms.launched == 0


@in_virtual_time
async def test_v2_whatever_is_done_to_a_vm_in_its_life() -> None:
    """Kata's mock lets all of it succeed after the end, too; here a VM that is gone says so."""
    stage = Stage()
    async with stage.open() as factory:
        vm = await factory.get_vm(small())
        await vm.pause()
        await vm.resume()
        await vm.grow(vcpus=3, memory_mib=640)
        await vm.agent.prepare(Preparation(vcpus=3, memory_mib=640))
        await vm.agent.prepare(Preparation(entropy=bytes(RESEED_BYTES)))
        await vm.disconnect()
        await vm.stop()
        await vm.stop()
        with pytest.raises(VmExitedError):
            await vm.pause()


@pytest.mark.logs_error("invalid hypervisor config")
@in_virtual_time
async def test_v3_katas_own_templates_are_not_booted_from() -> None:
    """BootFromTemplate is not compared, so such a request gets a base VM; but it must be whole."""
    stage = Stage()
    async with stage.open() as factory:
        with pytest.raises(InvalidConfigError, match=r"^Missing MemoryPath for vm template$"):
            await factory.get_vm(small(boot_from_template=True))
        with pytest.raises(InvalidConfigError, match=r"^Missing DevicesStatePath to Load from vm template$"):
            await factory.get_vm(small(boot_from_template=True, memory_path="/m"))
        request = small(boot_from_template=True, memory_path="/m", devices_state_path="/s")
        async with taken(stage, await factory.get_vm(request)):
            pass


@in_virtual_time
async def test_v4_the_proxy_is_not_started_whatever_its_type() -> None:
    """Nothing here is a proxy: an unknown type differs from the base's and is booted by itself, as noop is."""
    config = attrs.evolve(small(num_vcpus=1), agent_type="kata", proxy_type="kataProxy")
    stage = Stage()
    async with stage.open(config, generation=Generation.RUNTIME_1X) as factory:
        for proxy_type in ("noopProxy", "unknown"):
            async with taken(stage, await factory.get_vm(attrs.evolve(config, proxy_type=proxy_type))) as machine:
                assert machine.state.value.power.value == "running"
