"""The service by Kata's configuration, with VMs that are taken through VMCache: all of it real."""

from __future__ import annotations

import json
import subprocess
import time
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from pool.kata.cache.client import cache_status, open_cache_client
from pool.kata.cache.wire import CachedVm
from pool.kata.config.runtime_config import load_runtime_config
from pool.kata.errors import CacheError
from pool.kata.factory.factory import open_factory
from pool.kata.factory.host import open_qemu_host
from pool.kata.records.config import FactoryConfig
from tests.integration.service.kata import KataHome, kata_home, qmp
from tests.running import RunningService, vmpool_argv
from tests.waiting import until
from vmm.contract import Vm
from vmm.errors import AttachError
from vmm.initramfs.image import GuestImage
from vmm.qemu.attach import attach
from vmm.qemu.vm import QemuVm
from vmm.words.commands import CommandExit, CommandSpec, Output
from vmm.words.preparation import Preparation
from vmpool.client import CallError, Wishes, open_client

LIMIT_S = 120.0

TAKEN = 20
KILLED_AFTER = (4, 8, 12, 16)


async def take(endpoint: Path) -> CachedVm:
    async with open_cache_client(endpoint, timeout_s=LIMIT_S) as client:
        return await client.take_base_vm(timeout_s=LIMIT_S)


async def output(vm: Vm, *argv: str) -> bytes:
    command = await vm.agent.start_command(CommandSpec(argv=argv))
    try:
        events = [event async for event in command.events()]
    finally:
        await command.aclose()
    assert events[-1] == CommandExit(status=0)
    return b"".join(event.data for event in events if isinstance(event, Output))


async def test_a_factory_makes_running_vms_of_what_the_service_gives(guest_image: GuestImage) -> None:
    with kata_home(guest_image, number=1) as kata:
        service = await trio.to_thread.run_sync(kata.home.start)
        base = load_runtime_config(kata.config).factory.vm_config
        client = FactoryConfig(vm_cache=True, vm_cache_endpoint=str(kata.endpoint), vm_config=base)
        bigger = attrs.evolve(
            base, hypervisor_config=attrs.evolve(base.hypervisor_config, num_vcpus_f=2.0, memory_size=384)
        )
        with trio.fail_after(LIMIT_S):
            async with (
                open_qemu_host(kata.home.path / "client") as host,
                open_factory(client, host=host) as factory,
            ):
                vm = await factory.get_vm(bigger)
                await vm.grow(vcpus=2, memory_mib=512)  # a second time: no two of its DIMMs have one name
                report = await vm.agent.prepare(Preparation(vcpus=2, memory_mib=512))
                assert (report.cpus_online, report.memory_online_mib) == (2, 512)
                assert await output(vm, "/bin/echo", "hello") == b"hello\n"
                await vm.stop()

                vm = await factory.get_base_vm()
                assert isinstance(vm, QemuVm)
                assert (await vm.instance.execute("query-status"))["status"] == "paused"
                await vm.resume()
                assert (await vm.instance.execute("query-status"))["status"] == "running"
                await vm.stop()
        assert await trio.to_thread.run_sync(service.stop) == 0
        assert service.qemus() == {}
        assert sorted(path.name for path in service.runtime.rglob("*")) == []
        kata.end(service)


async def test_attaching_what_is_not_there_touches_nothing(vm_home: Path, nursery: trio.Nursery) -> None:
    (vm_home / "vm-1").mkdir()
    with pytest.raises(AttachError, match="no processes have -uuid 6ba7b810"):
        await attach(
            vm_id="vm-1",
            directory=vm_home / "vm-1",
            uuid="6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            nursery=nursery,
        )
    with pytest.raises(AttachError, match="is not an absolute path that ends in the VM"):
        await attach(vm_id="vm-2", directory=vm_home / "vm-1", uuid="x", nursery=nursery)
    (vm_home / "vm-1").rmdir()


@attrs.define(eq=False)
class Takers:
    """Clients that go on taking VMs, one at a time each, whatever becomes of the service."""

    endpoint: Path
    taken: list[CachedVm] = attrs.field(factory=list)
    begun: int = 0
    failures: int = 0

    async def run(self) -> None:
        while self.begun < TAKEN:
            self.begun += 1
            try:
                self.taken.append(await take(self.endpoint))
            except CacheError:
                self.begun -= 1
                self.failures += 1
                await trio.sleep(0.05)  # the service is down; nothing tells when it is up again

    async def has(self, count: int) -> bool:
        return len(self.taken) >= count


async def killed_and_restarted(kata: KataHome, service: RunningService) -> RunningService:
    service.process.kill()
    await trio.to_thread.run_sync(service.process.wait)
    return await trio.to_thread.run_sync(kata.home.start)


async def test_no_vm_is_lost_or_given_twice_by_a_service_that_is_killed(guest_image: GuestImage) -> None:
    with kata_home(guest_image, number=2, factory='enable_template = true\ntemplate_path = "{place}"') as kata:
        service = await trio.to_thread.run_sync(kata.home.start)
        takers = Takers(kata.endpoint)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(takers.run)
            for count in KILLED_AFTER:
                await until(partial(takers.has, count))
                service = await killed_and_restarted(kata, service)
        assert takers.failures, "some calls were cut off"
        assert len({vm.id for vm in takers.taken}) == TAKEN

        status = await cache_status(kata.endpoint, timeout_s=LIMIT_S)
        alive = service.qemus()
        given = {vm.id for vm in takers.taken}
        assert given <= set(alive)
        assert not {alive[vm_id].pid for vm_id in given} & {vm.pid for vm in status.vms}
        for vm in takers.taken:
            (answer,) = await trio.to_thread.run_sync(qmp, vm.qemu.qmp_channel_path, "query-status")
            assert answer["status"] == "paused"

        assert await trio.to_thread.run_sync(service.stop) == 0
        # Killed between the mark and the client's having it, a VM may be anybody's, and is left: one for each kill.
        unclaimed = set(service.qemus()) - given
        assert all((service.runtime / "vms" / vm_id / "given-away").exists() for vm_id in unclaimed)
        assert len(unclaimed) <= len(KILLED_AFTER)
        assert given <= set(service.qemus()), "the end of the service is not theirs"
        kata.end(service)


async def test_a_guest_that_only_its_taker_can_ask(guest_image: GuestImage) -> None:
    """As Kata's: pooled, given away and adopted unasked; what somebody in it would have to do costs no VM."""
    with kata_home(guest_image, number=1, agent="noop") as kata:
        service = await trio.to_thread.run_sync(kata.home.start)
        with trio.fail_after(LIMIT_S):
            vm = await take(kata.endpoint)
        assert (vm.agent_url, vm.qemu.context_id) == ("", 0)
        (answer,) = await trio.to_thread.run_sync(qmp, vm.qemu.qmp_channel_path, "query-status")
        assert answer["status"] == "paused"
        service = await killed_and_restarted(kata, service)
        async with open_client(service.socket_path) as client:
            with pytest.raises(CallError, match="environment: UNSUPPORTED"):
                await client.acquire(wishes=Wishes(environment={"SHAPE": "round"}))
            async with client.lease(timeout_s=LIMIT_S) as held:
                assert not held.guest.reseeded
                assert held.vm_id != vm.id
        said = [line for line in kata.home.log.read_text().splitlines() if "nobody in the guests can be asked" in line]
        assert len(said) == 2, "once for each service"
        assert vm.id in service.qemus()
        kata.end(service)


async def test_without_a_cache_there_is_no_endpoint(guest_image: GuestImage) -> None:
    with kata_home(guest_image, number=0) as kata:
        service = await trio.to_thread.run_sync(kata.home.start)
        assert not kata.endpoint.exists()
        with pytest.raises(CacheError, match=r"code = Unavailable desc = .*cache\.sock"):
            await cache_status(kata.endpoint, timeout_s=LIMIT_S)
        kata.end(service)


def test_the_commands_drive_the_server(guest_image: GuestImage) -> None:
    """Kata's texts and exit codes: init, which serves; status; destroy, which ends it; and both without a server."""
    with kata_home(guest_image, number=1, command=("factory", "init")) as kata:
        service = kata.home.start()

        def ask(command: str) -> subprocess.CompletedProcess[bytes]:
            return service.command("factory", command, "--kata-config", str(kata.config))

        take_all = trio.run(take, kata.endpoint)
        deadline = time.monotonic() + LIMIT_S
        while (lines := ask("status").stdout.decode().splitlines())[1].startswith("vm factory"):
            assert time.monotonic() < deadline
        server, vm, rest = lines
        assert server == f"VM cache server pid = {service.process.pid}"
        pid = next(process.pid for vm_id, process in service.qemus().items() if vm_id != take_all.id)
        assert vm == f"VM pid = {pid} Cpu = 1 Memory = 256MiB"
        assert rest == "vm factory not enabled"

        done = ask("destroy")
        assert (done.returncode, done.stdout) == (0, b"vm factory destroyed\n")
        assert service.process.wait(LIMIT_S) == 0
        assert set(service.qemus()) == {take_all.id}
        logged = [json.loads(line) for line in kata.home.log.read_text().splitlines() if line.startswith("{")]
        assert all("subsystem" in line for line in logged)
        (given,) = [line for line in logged if line["event"] == "VM handed out"]
        assert (given["subsystem"], given["vm"]) == ("cache", take_all.id)
        for said in ("VM cache server start", "VM cache server stop", "VM cache server will stop after 1 second"):
            assert said in kata.home.log.read_text()

        done = ask("status")
        assert done.returncode == 0
        assert done.stdout.startswith(b"failed to call gRPC Status\n: rpc error: code = Unavailable")
        done = ask("destroy")
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"failed to call gRPC Quit" in done.stderr
        kata.end(service)


def test_a_template_is_made_fetched_and_removed_by_the_commands(guest_image: GuestImage) -> None:
    with kata_home(guest_image, number=0, factory='enable_template = true\ntemplate_path = "{place}"') as kata:

        def ask(command: str) -> tuple[int, bytes]:
            argv = vmpool_argv(
                "factory", command, "--kata-config", str(kata.config), "--socket", str(kata.home.path / "s")
            )
            done = subprocess.run(argv, check=False, capture_output=True, timeout=LIMIT_S)
            assert b"Traceback" not in done.stderr, done.stderr
            return done.returncode, done.stdout

        assert ask("status") == (0, b"vm factory is off\n")
        assert ask("init") == (0, b"vm factory initialized\n")
        assert ask("status") == (0, b"vm factory is on\n")
        assert ask("init") == (1, b"")
        trio.run(_clone, kata)
        assert ask("destroy") == (0, b"vm factory destroyed\n")
        assert ask("status") == (0, b"vm factory is off\n")
        assert not list((kata.home.path / "template").rglob("memory"))


async def _clone(kata: KataHome) -> None:
    config = load_runtime_config(kata.config).factory
    async with (
        open_qemu_host(kata.home.path / "factory") as host,
        open_factory(config, host=host, fetch_only=True) as factory,
    ):
        with trio.fail_after(LIMIT_S):
            vm = await factory.get_vm(config.vm_config)
        assert await output(vm, "/bin/echo", "hello") == b"hello\n"
        await vm.stop()
