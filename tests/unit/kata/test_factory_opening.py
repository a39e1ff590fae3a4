"""Which factory is opened, and what it says of itself: by the cases of Kata's own tests, over simulated VMs."""

from __future__ import annotations

import attrs
import pytest
import structlog.testing

from pool.kata.errors import CacheError, InvalidConfigError
from pool.kata.records.config import VMConfig
from pool.kata.records.gokinds import Generation
from tests.spans import kept_spans
from tests.unit.kata.configs import vm_config
from tests.unit.kata.factories import Stage, small, taken
from tests.virtual_time import in_virtual_time
from vmm.errors import TemplateError


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
    with pytest.raises(TemplateError, match="it does not exist"):
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
async def test_what_a_factory_does_is_traced_as_in_kata() -> None:
    """Kata traces NewFactory and GetVM, with these attributes."""
    stage = Stage()
    with kept_spans() as (spans, exporter):
        async with stage.open(spans=spans) as factory, taken(stage, await factory.get_vm(small())):
            await factory.aclose()
        new, base, whole, closed = exporter.get_finished_spans()
    assert [span.name for span in (new, base, whole, closed)] == ["NewFactory", "GetBaseVM", "GetVM", "CloseFactory"]
    assert base.parent == whole.context
    for span in (new, base, whole, closed):
        assert span.attributes == {"source": "runtime", "package": "factory", "subsystem": "factory"}


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
