"""What runtime 1.x has between client and agent goes with its VM. Over simulated VMs, and a process for the proxy."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import psutil
import pytest
import structlog.testing
import trio

from pool.kata.cache.server import cached_vm
from pool.kata.cache.wire import CachedVm
from pool.kata.factory.sources import attach_cached
from tests.unit.actors.stage import NOWHERE, SPEC
from tests.unit.kata.cache import base_vm
from tests.unit.kata.factories import Stage
from vmm.devices.usual import usual_devices
from vmm.errors import AttachError
from vmm.words.machines import AgentKind

pytestmark = pytest.mark.usefixtures("leak_check")

PROXY = """
import signal, socket, sys
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[2])
    print("ready", flush=True)
    signal.pause()
"""


@attrs.frozen(kw_only=True)
class Proxy:
    process: subprocess.Popen[bytes]
    socket: Path

    def cached(self, **fields: object) -> CachedVm:
        """The VM whose proxy this is, as a server of runtime 1.x would have sent it."""
        vm = cached_vm(base_vm(1))
        named = {"proxy_pid": self.process.pid, "agent_url": f"unix://{self.socket}"} | fields
        return attrs.evolve(vm, **named)  # type: ignore[arg-type]

    def lives(self) -> bool:
        return psutil.pid_exists(self.process.pid)


@contextlib.contextmanager
def proxy_of(vm_id: str, home: Path, *, temper: str = "mild") -> Iterator[Proxy]:
    """With the words of kata-proxy's command line. It is ended in the end."""
    directory = home / "vm-1"
    directory.mkdir()
    path = directory / "proxy.sock"
    argv = [sys.executable, "-S", "-c", PROXY, temper, str(path)]
    argv += ["-listen-socket", f"unix://{path}", "-mux-socket", "/kata.sock", "-sandbox", vm_id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield Proxy(process=process, socket=path)
        finally:
            process.kill()
            process.wait()
            path.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                directory.rmdir()


@pytest.fixture
async def stage(nursery: trio.Nursery) -> Stage:
    one = Stage(boot_s=0.0)
    spec = attrs.evolve(SPEC, devices=usual_devices(agent=AgentKind.NOOP), memory_mib=2048, max_memory_mib=4096)
    vm = await one.vms.launch(spec, vm_id="vm-1", directory=NOWHERE, nursery=nursery)
    await vm.pause()
    return one


async def test_the_proxy_and_its_directory_go_with_the_vm(vm_home: Path, stage: Stage, nursery: trio.Nursery) -> None:
    with proxy_of("vm-1", vm_home) as proxy:
        vm = await attach_cached(proxy.cached(), host=stage.host, nursery=nursery)
        await vm.resume()
        await vm.grow(vcpus=1, memory_mib=2176)
        assert (vm.id, vm.is_clone) == ("vm-1", False)
        assert proxy.lives()
        await vm.stop()
        assert not stage.vms.alive
        assert not proxy.socket.parent.exists()
        assert not proxy.lives()
        await vm.stop()


async def test_a_proxy_that_is_asked_in_vain_is_killed(
    vm_home: Path, stage: Stage, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool.kata.factory.proxied.TERM_LIMIT_S", 0.05)
    with proxy_of("vm-1", vm_home, temper="deaf") as proxy:
        vm = await attach_cached(proxy.cached(), host=stage.host, nursery=nursery)
        with trio.CancelScope() as scope:
            scope.cancel()
            await vm.stop()
        assert not proxy.lives(), "under cancellation too"
        assert not proxy.socket.parent.exists()


@pytest.mark.parametrize("whose", ["another VM's", "0", "-1", "nobody's"])
async def test_nothing_but_the_vms_own_proxy_is_signalled(
    vm_home: Path, stage: Stage, nursery: trio.Nursery, whose: str
) -> None:
    """A pid in an answer is not a reason to end a process."""
    with proxy_of("vm-2" if whose == "another VM's" else "vm-1", vm_home) as proxy:
        pid = {"0": 0, "-1": -1, "nobody's": 2**40}.get(whose, proxy.process.pid)
        vm = await attach_cached(proxy.cached(proxy_pid=pid), host=stage.host, nursery=nursery)
        await vm.stop()
        assert proxy.lives()
        assert proxy.socket.exists() == (pid <= 0)


@pytest.mark.parametrize("url", ["", "vsock://77:1024", "unix://{home}/vm-1/other.sock", "unix://vm-1/proxy.sock"])
async def test_without_the_socket_of_a_proxy_there_is_none(
    vm_home: Path, stage: Stage, nursery: trio.Nursery, url: str
) -> None:
    """vmpool's own servers name QEMU's pid, and Kata's 0, beside the address of the agent itself."""
    with proxy_of("vm-1", vm_home) as proxy:
        cached = proxy.cached(agent_url=url.format(home=vm_home))
        vm = await attach_cached(cached, host=stage.host, nursery=nursery)
        await vm.stop()
        assert proxy.lives()
        assert proxy.socket.exists()


async def test_a_directory_that_is_not_the_vms_or_has_more_in_it_stays(
    vm_home: Path, stage: Stage, nursery: trio.Nursery
) -> None:
    with proxy_of("vm-1", vm_home) as proxy:
        (proxy.socket.parent / "kept").touch()
        vm = await attach_cached(proxy.cached(), host=stage.host, nursery=nursery)
        await vm.stop()
        assert [entry.name for entry in proxy.socket.parent.iterdir()] == ["kept"]
        (proxy.socket.parent / "kept").unlink()


async def test_a_directory_of_another_name_is_left_as_it_is(vm_home: Path, stage: Stage, nursery: trio.Nursery) -> None:
    with proxy_of("vm-1", vm_home) as proxy:
        elsewhere = vm_home / "etc"
        proxy.socket.parent.rename(elsewhere)
        try:
            cached = proxy.cached(agent_url=f"unix://{elsewhere}/proxy.sock")
            vm = await attach_cached(cached, host=stage.host, nursery=nursery)
            await vm.stop()
            assert (elsewhere / "proxy.sock").exists()
        finally:
            elsewhere.rename(proxy.socket.parent)


async def test_the_proxy_of_a_vm_that_is_gone_goes_too(vm_home: Path, nursery: trio.Nursery) -> None:
    with proxy_of("vm-1", vm_home) as proxy:
        with pytest.raises(AttachError, match="no longer running"):
            await attach_cached(proxy.cached(), host=Stage().host, nursery=nursery)
        assert not proxy.socket.parent.exists()


async def test_a_vm_that_is_let_go_of_keeps_its_proxy(vm_home: Path, stage: Stage, nursery: trio.Nursery) -> None:
    with proxy_of("vm-1", vm_home) as proxy:
        vm = await attach_cached(proxy.cached(), host=stage.host, nursery=nursery)
        await vm.disconnect()
        await vm.detach()
        assert proxy.lives()
        assert proxy.socket.exists()
    stage.vms.forget("vm-1")


async def test_what_cannot_be_ended_is_told(
    vm_home: Path, stage: Stage, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with proxy_of("vm-1", vm_home) as proxy, structlog.testing.capture_logs() as logs:
        vm = await attach_cached(proxy.cached(), host=stage.host, nursery=nursery)
        monkeypatch.setattr("signal.pidfd_send_signal", forbidden)
        await vm.stop()
        monkeypatch.undo()
        assert proxy.lives()
        assert proxy.socket.exists()
    (said,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert (said["event"], said["pid"]) == ("kata-proxy is left behind", proxy.process.pid)
