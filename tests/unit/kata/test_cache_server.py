"""The VMCache service, asked by its own client."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from pathlib import Path

import pytest
import trio
import trio.testing

from pool.host.endpoint import EndpointError
from pool.kata.cache.client import CacheStatus, WaitingVm, cache_status, open_cache_client, quit_cache
from pool.kata.cache.endpoint import open_cache_endpoint
from pool.kata.cache.server import cached_vm
from pool.kata.errors import CacheError
from pool.kata.records.gojson import encode
from pool.kata.records.matching import check_config
from tests.spans import kept_spans
from tests.unit.kata.cache import ServedCache, base_vm, serving_cache
from tests.unit.rpc.raw import connected
from vmpool.wire.generated.google.protobuf import Empty

pytestmark = pytest.mark.usefixtures("leak_check")

GET_BASE_VM = "/cache.CacheService/GetBaseVM"
LIMIT_S = 20.0


async def take(path: Path) -> str:
    async with open_cache_client(path, timeout_s=LIMIT_S) as client:
        return (await client.take_base_vm(timeout_s=LIMIT_S)).id


async def refusal(path: Path) -> CacheError:
    with pytest.raises(CacheError) as error:
        await take(path)
    return error.value


async def test_a_client_is_told_the_config_at_once(vm_home: Path) -> None:
    async with serving_cache(vm_home) as served, open_cache_client(served.path, timeout_s=LIMIT_S) as client:
        check_config(client.config, served.source.config())


async def test_a_client_gets_a_vm_as_it_is(vm_home: Path) -> None:
    vm = base_vm(1, context_id=77)
    async with serving_cache(vm_home, vm) as served:
        async with open_cache_client(served.path, timeout_s=LIMIT_S) as client:
            got = await client.take_base_vm(timeout_s=LIMIT_S)
        assert got == cached_vm(vm)
        assert served.source.discarded == []
        assert served.source.given_away == [vm]
    assert got.agent_url == "vsock://77:1024"
    assert (got.vcpus, got.memory_mib) == (2, 2048)
    sent = json.loads(encode(got.qemu))
    assert sent["QmpChannelpath"] == "/run/vc/vm/vm-1/qmp.sock"
    assert sent["State"]["Bridges"][0]["ID"] == "pci-bridge-0", "Kata hot-plugs nothing without"
    assert sent["QemuSMP"] == {"CPUs": 2, "Cores": 1, "Threads": 1, "Sockets": 4, "MaxCPUs": 4}


async def test_what_a_client_waits_for_is_traced(vm_home: Path) -> None:
    with kept_spans() as (spans, exporter):
        async with serving_cache(vm_home, base_vm(1), spans=spans) as served:
            await take(served.path)
        (span,) = exporter.get_finished_spans()
    assert (span.name, span.attributes) == (
        "GetBaseVM",
        {"source": "vmpool", "package": "factory", "subsystem": "cache"},
    )


async def test_a_client_that_ends_what_it_takes_for_its_proxy_ends_the_vm(vm_home: Path) -> None:
    """Runtime 1.x asks whether the process of that pid lives before it speaks to the agent, and ends it at the end. 0
    would be its own process group."""
    async with serving_cache(vm_home, base_vm(1), base_vm(2, context_id=77)) as served:
        for number in (1, 2):
            async with open_cache_client(served.path, timeout_s=LIMIT_S) as client:
                vm = await client.take_base_vm(timeout_s=LIMIT_S)
            assert vm.proxy_pid == base_vm(number).pid


def test_an_agent_that_kata_cannot_speak_to_has_no_address() -> None:
    """Its client would try for 20 seconds; without an address it fails at once."""
    assert cached_vm(base_vm(1)).agent_url == ""
    assert cached_vm(base_vm(1, context_id=77, katas_agent=False)).agent_url == ""
    assert cached_vm(base_vm(1, context_id=77)).agent_url == "vsock://77:1024"


async def test_each_client_gets_a_vm_of_its_own_and_waits_for_it(vm_home: Path) -> None:
    got: list[str] = []
    async with serving_cache(vm_home, base_vm(1), base_vm(2)) as served:

        async def client() -> None:
            got.append(await take(served.path))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client)
            await served.until(lambda: served.source.waiting == 3)
            for number in (3, 4, 5):
                served.source.add(base_vm(number))
    assert sorted(got) == ["vm-1", "vm-2", "vm-3", "vm-4", "vm-5"]


async def test_a_connection_is_good_for_one_vm(vm_home: Path) -> None:
    async with serving_cache(vm_home, base_vm(1), base_vm(2)) as served:
        async with open_cache_client(served.path, timeout_s=LIMIT_S) as client:
            await client.take_base_vm(timeout_s=LIMIT_S)
            with pytest.raises(CacheError, match=r"^failed to GetBaseVM: rpc error: code = Canceled desc = "):
                await client.take_base_vm(timeout_s=LIMIT_S)
        assert [vm.id for vm in served.source.ready] == ["vm-2"]


async def test_why_there_is_no_vm_is_told_in_katas_words(vm_home: Path) -> None:
    async with serving_cache(vm_home) as served:
        served.source.broken = RuntimeError("cache factory is closed")
        error = await refusal(served.path)
    assert str(error) == (
        "failed to GetBaseVM: rpc error: code = Unknown desc = failed to GetBaseVM: cache factory is closed"
    )
    assert (error.call, error.code) == ("GetBaseVM", "Unknown")


async def test_status_tells_the_server_and_the_vms_that_wait(vm_home: Path) -> None:
    async with serving_cache(vm_home, base_vm(1), base_vm(2)) as served:
        await take(served.path)
        assert await cache_status(served.path, timeout_s=LIMIT_S) == CacheStatus(
            pid=os.getpid(), vms=(WaitingVm(pid=1002, vcpus=2, memory_mib=2048),)
        )


async def test_quit_is_answered_first_and_done_once(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool.kata.cache.server.QUIT_DELAY_S", 0.05)
    async with serving_cache(vm_home) as served:
        await quit_cache(served.path, timeout_s=LIMIT_S)
        await quit_cache(served.path, timeout_s=LIMIT_S)
        await served.source.quits.wait()
        await quit_cache(served.path, timeout_s=LIMIT_S)
        await trio.testing.wait_all_tasks_blocked()


async def test_between_quit_and_the_end_the_server_serves(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool.kata.cache.server.QUIT_DELAY_S", 1000.0)
    async with serving_cache(vm_home, base_vm(1)) as served:
        await quit_cache(served.path, timeout_s=LIMIT_S)
        assert await take(served.path) == "vm-1"
        assert not served.source.quits.is_set()


async def test_a_client_that_waits_does_not_hold_up_the_end(vm_home: Path) -> None:
    async with serving_cache(vm_home) as served, trio.open_nursery() as nursery:
        errors: list[CacheError] = []

        async def client() -> None:
            errors.append(await refusal(served.path))

        nursery.start_soon(client)
        await served.until(lambda: served.source.waiting == 1)
        served.server.stop()
    assert errors[0].code == "Unavailable"
    assert "shutting down" in str(errors[0])


async def test_a_cancelled_server_leaves_nothing(vm_home: Path) -> None:
    with trio.CancelScope() as scope:
        async with serving_cache(vm_home) as served, open_cache_client(served.path, timeout_s=LIMIT_S):
            scope.cancel()
            await trio.sleep_forever()


async def lost(served: ServedCache) -> None:
    """The VM that was there is there still, or was given up properly."""
    source = served.source
    await served.until(lambda: source.waiting == 0 and len(source.ready) + len(source.discarded) == 1)
    assert source.given_away == []


@pytest.mark.parametrize("steps", range(0, 40, 2))
async def test_a_client_that_goes_away_takes_no_vm(vm_home: Path, steps: int) -> None:
    """Some task switches after its request, without having read a reply."""
    async with serving_cache(vm_home, base_vm(1)) as served:
        async with connected(served.path) as raw:
            await raw.request(GET_BASE_VM, Empty())
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
        await lost(served)


async def test_a_client_that_goes_away_while_it_waits_takes_no_vm(vm_home: Path) -> None:
    async with serving_cache(vm_home) as served:
        async with connected(served.path) as raw:
            await raw.request(GET_BASE_VM, Empty())
            await served.until(lambda: served.source.waiting == 1)
        await served.until(lambda: served.source.waiting == 0)
        served.source.add(base_vm(1))
        assert await take(served.path) == "vm-1"


@pytest.mark.parametrize("name", ["Config", "GetBaseVM", "Status", "Quit"])
async def test_a_call_without_a_message_is_refused(vm_home: Path, name: str) -> None:
    async with serving_cache(vm_home, base_vm(1)) as served, connected(served.path) as raw:
        call = await raw.start(f"/cache.CacheService/{name}")
        await raw.send(call, end=True)
        assert (await raw.status(call))[0] == "3"
        assert len(served.source.ready) == 1


class TestSocket:
    def test_it_is_the_owners_alone_in_a_directory_that_others_may_enter(self, vm_home: Path) -> None:
        path = vm_home / "a" / "b" / "cache.sock"
        with open_cache_endpoint(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
        assert not path.exists()
        for directory in (path.parent, path.parent.parent):
            directory.rmdir()

    @pytest.mark.parametrize("kind", ["server", "busy server", "file", "link"])
    def test_what_is_there_already_is_left_alone(self, vm_home: Path, kind: str) -> None:
        path = vm_home / "cache.sock"
        with contextlib.ExitStack() as others:
            if kind == "file":
                path.touch()
            elif kind == "link":
                path.symlink_to("nowhere")
            else:
                others.enter_context(open_cache_endpoint(path)).listen(0)
                for _ in range(5 if kind == "busy server" else 0):
                    client = others.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                    client.setblocking(False)
                    client.connect_ex(str(path))
            with pytest.raises(EndpointError) as error, open_cache_endpoint(path):
                pass
            assert str(error.value) == f"{path} already exist.  Please stop running VMCache server and remove {path}"
            assert path.is_symlink() or path.exists()
        path.unlink(missing_ok=True)

    def test_a_server_that_was_killed_is_not_in_the_way(self, vm_home: Path) -> None:
        path = vm_home / "cache.sock"
        with open_cache_endpoint(path):
            path.rename(vm_home / "moved")
        (vm_home / "moved").rename(path)
        with open_cache_endpoint(path), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(path))
        assert not path.exists()

    def test_a_path_that_is_too_long(self, vm_home: Path) -> None:
        with (
            pytest.raises(EndpointError, match="shorter vm_cache_endpoint"),
            open_cache_endpoint(vm_home / ("x" * 200)),
        ):
            pass

    def test_a_place_that_cannot_be_had(self, vm_home: Path) -> None:
        (vm_home / "file").touch()
        with (
            pytest.raises(EndpointError, match="choose a writable path for vm_cache_endpoint"),
            open_cache_endpoint(vm_home / "file" / "cache.sock"),
        ):
            pass
        (vm_home / "file").unlink()
