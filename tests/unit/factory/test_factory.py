"""Kata's factory, by the cases of Kata's own tests, over simulated VMs. Names begin with the case."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import structlog.testing
import trio

from actors.journal import GivenAway, Recorded
from pool.factory.config import VMConfig
from pool.factory.errors import CacheError, InvalidConfigError, UnsupportedError
from pool.factory.generation import Generation
from tests.unit.factory.configs import vm_config
from tests.unit.factory.factories import Stage, small, taken
from tests.virtual_time import in_virtual_time
from vmm.contract import RESEED_BYTES, BootStage, ExitReport, Preparation, Vm
from vmm.errors import AgentUnreachableError, AttachError, BootError, HotplugError, TemplateError, VmExitedError
from vmm.simulated import AgentGoesMute, BootFails, Moment, scripted
from vmm.template.store import TemplateStore

# -- which factory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fetch_only", [True, False])
@in_virtual_time
async def test_f1_an_empty_config_opens_no_factory(fetch_only: bool) -> None:
    with pytest.raises(InvalidConfigError, match=r"^Missing kernel path$"):
        async with Stage().open(VMConfig(), fetch_only=fetch_only):
            pass


@in_virtual_time
async def test_f2_a_hypervisor_type_alone_opens_no_factory() -> None:
    with pytest.raises(InvalidConfigError, match=r"^Missing kernel path$"):
        async with Stage().open(VMConfig(hypervisor_type="qemu")):
            pass


@pytest.mark.parametrize("fetch_only", [True, False])
@in_virtual_time
async def test_f3_kernel_and_initrd_open_a_direct_factory(fetch_only: bool) -> None:
    async with Stage().open(vm_config(), fetch_only=fetch_only) as factory:
        await factory.aclose()
        await factory.aclose()


@in_virtual_time
async def test_f4_a_template_is_made_and_can_be_fetched_then() -> None:
    """Kata's mock never writes the state, so there the fetch fails."""
    stage = Stage()
    with pytest.raises(TemplateError, match="there is none"):
        async with stage.open(template=True, fetch_only=True):
            pass
    async with stage.open(template=True):
        pass
    assert stage.templates.built == 1
    async with stage.open(template=True, fetch_only=True):
        pass
    assert stage.templates.built == 1


@in_virtual_time
async def test_f5_a_cache_of_clones_is_made_and_cannot_be_fetched() -> None:
    stage = Stage()
    async with stage.open(template=True, cache=10):
        pass
    with pytest.raises(InvalidConfigError, match=r"^cache factory does not support fetch$"):
        async with stage.open(template=True, cache=10, fetch_only=True):
            pass
    assert not stage.vms.alive


@in_virtual_time
async def test_f6_a_cache_of_booted_vms_is_made_and_cannot_be_fetched() -> None:
    stage = Stage()
    async with stage.open(cache=10):
        pass
    with pytest.raises(InvalidConfigError, match=r"^cache factory does not support fetch$"):
        async with stage.open(cache=10, fetch_only=True):
            pass
    assert not stage.vms.alive


@in_virtual_time
async def test_f7_what_a_factory_logs_says_that_it_is_the_factory() -> None:
    """Kata hands its factory a logger; here the fields are bound, and the level is the process's."""
    stage = Stage()
    with structlog.testing.capture_logs() as logs:
        async with stage.open() as factory, taken(stage, await factory.get_vm(small())):
            pass
    ours = [entry for entry in logs if entry.get("subsystem") == "factory"]
    assert [entry["event"] for entry in ours] == ["get base VM", "got base VM"]
    assert ours[-1]["vm"].startswith("vm-")


@in_virtual_time
async def test_f18_paths_of_files_that_are_not_there_are_kept() -> None:
    async with Stage().open(vm_config(kernel_path="foo", initrd_path="bar")) as factory:
        hypervisor = factory.config().hypervisor_config
        assert (hypervisor.kernel_path, hypervisor.initrd_path) == ("foo", "bar")


@in_virtual_time
async def test_f20_a_cache_of_one_cannot_be_fetched() -> None:
    with pytest.raises(InvalidConfigError, match="cache factory does not support fetch"):
        async with Stage().open(cache=1, fetch_only=True):
            pass


async def test_f21_a_client_without_a_server_opens_no_factory() -> None:
    with pytest.raises(CacheError, match="rpc error"):
        async with Stage().open(vm_cache=True, vm_cache_endpoint="/nowhere/cache.sock"):
            pass


@in_virtual_time
async def test_f22_runtime_1x_wants_the_types_of_agent_and_proxy_in_a_request() -> None:
    old = Generation.RUNTIME_1X
    config = attrs.evolve(small(num_vcpus=1), agent_type="kata", proxy_type="kataProxy")
    stage = Stage()
    async with stage.open(config, generation=old) as factory:
        with pytest.raises(InvalidConfigError, match=r"^Missing agent type$"):
            await factory.get_vm(attrs.evolve(config, agent_type=""))
        with pytest.raises(InvalidConfigError, match=r"^Missing proxy type$"):
            await factory.get_vm(attrs.evolve(config, proxy_type=""))
        async with taken(stage, await factory.get_vm(config)):
            pass


# -- VMs -----------------------------------------------------------------------------------------------------------


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
async def test_f9_f10_f12_f13_a_vm_is_given_running_and_unique(kind: dict[str, object]) -> None:
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
async def test_f19_what_keeps_no_vms_has_no_status(kind: dict[str, object], package: str) -> None:
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


# -- templates -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_t1_a_template_is_made_once_and_is_not_made_over() -> None:
    stage = Stage()
    async with stage.open(template=True) as factory:
        assert factory.config() == small().valid()
    with pytest.raises(InvalidConfigError, match=r"^There is already a VM template in /run/vc/vm/template$"):
        async with stage.open(template=True):
            pass
    assert stage.templates.built == 1


@in_virtual_time
async def test_t2_t5_clones_are_paused_and_come_from_a_made_and_from_a_fetched_template() -> None:
    stage = Stage()
    for fetch_only in (False, True):
        async with stage.open(template=True, fetch_only=fetch_only) as factory:
            first, second = await factory.get_base_vm(), await factory.get_base_vm()
            for vm in (first, second):
                async with taken(stage, vm):
                    assert not stage.running(vm)


def test_t3_a_template_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    """Kata looks whether memory and state are there; here they must be what was saved, too."""
    store = TemplateStore(tmp_path / "templates" / "default")

    def missing() -> str:
        with pytest.raises(TemplateError) as error:
            store.open(fingerprint="f")
        return error.value.reason

    assert missing() == "there is none"
    memory, state = store.begin(memory_mib=1)
    assert memory.exists()
    assert missing() == "there is none"
    state.write_bytes(b"state")
    store.publish(fingerprint="f")
    store.open(fingerprint="f")
    state.unlink()
    assert "No such file or directory" in missing()


@in_virtual_time
async def test_t4_a_template_that_could_not_be_made_is_tried_again() -> None:
    stage = Stage()
    stage.templates.builds_fail = True
    with pytest.raises(Exception, match="saving a template failed"):
        async with stage.open(template=True):
            pass
    assert not stage.vms.alive
    stage.templates.builds_fail = False
    async with stage.open(template=True):
        pass
    assert stage.templates.built == 1


@in_virtual_time
async def test_t6_closing_a_factory_removes_its_template_and_leaving_it_does_not() -> None:
    stage = Stage()
    async with stage.open(template=True):
        pass
    assert stage.templates.template is not None
    async with stage.open(template=True, fetch_only=True) as factory:
        await factory.aclose()
    assert stage.templates.template is None


# -- one VM --------------------------------------------------------------------------------------------------------


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


# -- where it differs from Kata's, deliberately ----------------------------------------------------------------------


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


# -- errors --------------------------------------------------------------------------------------------------------


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
