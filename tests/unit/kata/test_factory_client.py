"""A factory that is the client of a VMCache server, over simulated VMs and a real socket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest
import structlog.testing
import trio

from pool.kata.cache.server import BaseVm, cached_vm
from pool.kata.cache.wire import CachedVm, QemuGrpc
from pool.kata.errors import CacheError, UnsupportedError
from pool.kata.factory.factory import open_factory
from pool.kata.factory.sources import ClientSource, attach_cached
from pool.kata.records.config import FactoryConfig
from pool.kata.records.gojson import decode
from tests.unit.actors.stage import NOWHERE, SPEC
from tests.unit.kata.cache import ServedCache, base_vm, serving_cache
from tests.unit.kata.configs import sample
from tests.unit.kata.factories import Stage
from vmm.devices.usual import usual_devices
from vmm.errors import AttachError
from vmm.simulated import SimulatedVm
from vmm.words.machines import AgentKind

pytestmark = pytest.mark.usefixtures("leak_check")


@pytest.fixture
def stage() -> Iterator[Stage]:
    one = Stage(boot_s=0.0)
    yield one
    assert not one.vms.alive


async def kept(stage: Stage, number: int, nursery: trio.Nursery, *, agent: AgentKind = AgentKind.BUILTIN) -> BaseVm:
    """A paused VM of a server."""
    spec = attrs.evolve(SPEC, devices=usual_devices(agent=agent), memory_mib=2048, max_memory_mib=4096)
    vm: SimulatedVm = await stage.vms.launch(spec, vm_id=f"vm-{number}", directory=NOWHERE, nursery=nursery)
    await vm.pause()
    return base_vm(number)


def client_of(served: ServedCache) -> FactoryConfig:
    config = served.source.config()
    return FactoryConfig(vm_cache=True, vm_cache_endpoint=str(served.path), vm_config=config)


async def test_it_is_told_the_servers_config(vm_home: Path, stage: Stage) -> None:
    async with serving_cache(vm_home) as served, open_factory(client_of(served), host=stage.host) as factory:
        assert factory.config() == served.source.config()
        with pytest.raises(UnsupportedError, match="package grpccache does not support GetVMStatus"):
            factory.vm_status()
        await factory.aclose()


async def test_it_gives_vms_one_after_the_other_running(vm_home: Path, stage: Stage, nursery: trio.Nursery) -> None:
    """Kata's gives one and is used up."""
    vms = [await kept(stage, number, nursery) for number in (1, 2)]
    async with (
        serving_cache(vm_home, *vms) as served,
        open_factory(client_of(served), host=stage.host) as factory,
    ):
        for _ in vms:
            vm = await factory.get_vm(factory.config())
            assert stage.running(vm)
            await vm.stop()
        assert served.source.given_away == vms


async def test_a_base_vm_is_paused(vm_home: Path, stage: Stage, nursery: trio.Nursery) -> None:
    async with (
        serving_cache(vm_home, await kept(stage, 1, nursery)) as served,
        open_factory(client_of(served), host=stage.host, fetch_only=True) as factory,
    ):
        vm = await factory.get_base_vm()
        assert not stage.running(vm)
        await vm.resume()
        assert stage.running(vm)
        await vm.stop()


async def test_a_vm_whose_agent_is_katas_runs_and_has_what_was_added_plugged_in(
    vm_home: Path, stage: Stage, nursery: trio.Nursery
) -> None:
    """Its taker, who speaks to it, does the rest. That it is left to him is logged once."""
    vms = [await kept(stage, number, nursery, agent=AgentKind.NOOP) for number in (1, 2)]
    async with serving_cache(vm_home, *vms) as served, open_factory(client_of(served), host=stage.host) as factory:
        config = factory.config()
        hypervisor = config.hypervisor_config
        bigger = attrs.evolve(hypervisor, memory_size=hypervisor.memory_size + 128)
        more = attrs.evolve(config, hypervisor_config=bigger)
        with structlog.testing.capture_logs() as logs:
            for request in (config, more):
                vm = await factory.get_vm(request)
                assert stage.running(vm)
                machine = stage.machine(vm)
                assert machine.entropy == []
                assert machine.plugged.value.memory_mib == request.hypervisor_config.memory_size
                await vm.stop()
    assert [entry["vm"] for entry in logs if entry["event"].startswith("no agent in the guest can be used")] == ["vm-1"]


async def test_a_clone_that_nobody_can_reseed_is_not_given(vm_home: Path, stage: Stage, nursery: trio.Nursery) -> None:
    """Kata's template servers give them: their random numbers are their siblings'."""
    vms = [await kept(stage, number, nursery, agent=AgentKind.NOOP) for number in (1, 2)]
    for vm in vms:
        stage.vms.machine(vm.id).is_clone = True
    async with serving_cache(vm_home, *vms) as served, open_factory(client_of(served), host=stage.host) as factory:
        with pytest.raises(UnsupportedError, match=r"^VM 'vm-1' is a clone, and no agent in its guest can reseed it"):
            await factory.get_vm(factory.config())
        assert stage.vms.alive == {"vm-2"}, "it is ended"
        base = await factory.get_base_vm()
        assert not stage.running(base), "who takes a base VM makes it unique"
        await base.stop()


async def test_a_clone_whose_agent_is_ours_is_reseeded_and_given(
    vm_home: Path, stage: Stage, nursery: trio.Nursery
) -> None:
    kept_vm = await kept(stage, 1, nursery)
    stage.vms.machine(kept_vm.id).is_clone = True
    async with serving_cache(vm_home, kept_vm) as served, open_factory(client_of(served), host=stage.host) as factory:
        vm = await factory.get_vm(factory.config())
        assert len(stage.machine(vm).entropy) == 1
        await vm.stop()


@pytest.mark.logs_error("failed to get base VM")
async def test_a_vm_that_is_not_there_is_told(vm_home: Path, stage: Stage) -> None:
    async with (
        serving_cache(vm_home, base_vm(1)) as served,
        open_factory(client_of(served), host=stage.host) as factory,
    ):
        with pytest.raises(AttachError, match="vm-1 cannot be taken over: it is no longer running"):
            await factory.get_vm(factory.config())


@pytest.mark.logs_error("failed to get base VM")
async def test_a_server_that_stops_is_told_to_who_waits(vm_home: Path, stage: Stage) -> None:
    async with serving_cache(vm_home) as served, open_factory(client_of(served), host=stage.host) as factory:

        async def stop() -> None:
            await served.until(lambda: served.source.waiting == 1)
            served.server.stop()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            with pytest.raises(CacheError, match="shutting down"):
                await factory.get_vm(factory.config())


@pytest.mark.parametrize("steps", range(0, 90, 3))
async def test_a_caller_who_goes_away_takes_no_vm(
    vm_home: Path, stage: Stage, nursery: trio.Nursery, steps: int
) -> None:
    """After so many task switches: the server has it still, or ends it; or it was given away, and is ended."""
    vm = await kept(stage, 1, nursery)
    async with serving_cache(vm_home, vm) as served, open_factory(client_of(served), host=stage.host) as factory:

        async def take() -> None:
            given = await factory.get_base_vm()
            await given.stop()

        async with trio.open_nursery() as calls:
            calls.start_soon(take)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            calls.cancel_scope.cancel()
        source = served.source
        await served.until(lambda: source.waiting == 0)
        await served.until(lambda: len(source.ready + source.discarded + source.given_away) == 1)
        assert bool(source.given_away) == (not stage.vms.alive)
        stage.vms.forget(vm.id)


async def test_a_caller_who_goes_away_while_the_connection_is_closed_takes_no_vm(
    stage: Stage, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await kept(stage, 1, nursery)

    class Client:
        async def take_base_vm(self, *, timeout_s: float) -> CachedVm:
            return cached_vm(vm)

    with trio.CancelScope() as scope:

        @contextlib.asynccontextmanager
        async def slow_to_close(_endpoint: Path, *, timeout_s: float) -> AsyncIterator[Client]:
            yield Client()
            scope.cancel()
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr("pool.kata.factory.sources.open_cache_client", slow_to_close)
        await ClientSource(host=stage.host, endpoint=NOWHERE, nursery=nursery).take()
    assert scope.cancelled_caught
    assert not stage.vms.alive


@pytest.mark.parametrize("path", ["/run/vc/vm/ID/monitor.sock", "ID/qmp.sock/x", ""])
async def test_a_qmp_socket_that_is_not_where_a_vms_is(stage: Stage, path: str, nursery: trio.Nursery) -> None:
    qemu = attrs.evolve(decode(QemuGrpc, sample("current-qemuGrpc")), qmp_channel_path=path)
    cached = CachedVm(id="ID", qemu=qemu, vcpus=1, memory_mib=2048)
    with pytest.raises(UnsupportedError, match=r"^VM 'ID': its QMP socket"):
        await attach_cached(cached, host=stage.host, nursery=nursery)
