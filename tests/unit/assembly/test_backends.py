"""The whole service, from its settings to its socket, over a backend that is no QEMU: all goes through one door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from pool.assembly import service as service_module
from pool.assembly.service import run_service
from pool.core.coordinator import Coordinator
from pool.settings.config import Settings, parse_settings
from tests.leaks import nothing_left
from tests.waiting import LIMIT_S
from vmm.simulated import SimulatedHost
from vmm.simulated.backend import SimulatedBackend
from vmpool.client import open_client


@pytest.fixture(autouse=True)
def own_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' process keeps its own."""
    monkeypatch.setattr(service_module, "raise_limit", lambda: 4096)
    monkeypatch.setattr(service_module, "forbid_core_files", lambda: None)


def settings(home: Path, *, producer: str) -> Settings:
    return parse_settings(
        f"""
        [service]
        runtime_directory = "{home}/run"
        [profiles.default]
        size = 1
        kernel = "{home}/vmlinuz"
        initrd = "{home}/initrd"
        qemu = "no-such-program"
        producer = "{producer}"
        """
        + (f'template_directory = "{home}/template"' if producer == "template" else ""),
        source="test",
    )


@asynccontextmanager
async def serving(home: Path, backend: SimulatedBackend, *, producer: str = "direct") -> AsyncIterator[Coordinator]:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        yield await nursery.start(
            partial(
                run_service,
                settings(home, producer=producer),
                socket_path=home / "run" / "s.sock",
                stop=stop,
                backend=backend,
            )
        )
        stop.set()


@pytest.mark.parametrize(("producer", "is_clone"), [("direct", False), ("template", True)])
async def test_a_lease_is_had_of_it(vm_home: Path, producer: str, is_clone: bool) -> None:
    backend = SimulatedBackend(host=SimulatedHost(on_disk=True))
    with nothing_left(vm_home), trio.fail_after(LIMIT_S):
        async with (
            serving(vm_home, backend, producer=producer),
            open_client(vm_home / "run" / "s.sock") as client,
            client.lease(timeout_s=LIMIT_S) as vm,
        ):
            assert backend.host.machine(vm.vm_id).is_clone is is_clone
        assert not backend.host.alive


async def test_what_an_earlier_run_left_is_ended_through_it(vm_home: Path) -> None:
    backend = SimulatedBackend(host=SimulatedHost(on_disk=True))
    remains = vm_home / "run" / "vms" / "vm-left"
    for directory in (vm_home / "run", vm_home / "run" / "vms", remains):
        directory.mkdir(mode=0o700)
    backend.host.remember("vm-left")
    async with serving(vm_home, backend):
        assert not backend.host.has("vm-left")
        assert not remains.exists()


async def test_what_it_made_is_adopted_by_the_next_run(vm_home: Path) -> None:
    """Its records say who made them: a service over QEMU would not take them for its own."""
    backend = SimulatedBackend(host=SimulatedHost(on_disk=True))
    async with serving(vm_home, backend), open_client(vm_home / "run" / "s.sock") as client:
        vm = await client.acquire(timeout_s=LIMIT_S)
        await client.hand_over()
    async with serving(vm_home, backend), open_client(vm_home / "run" / "s.sock") as client:
        await client.release(vm.lease_id)
    assert not backend.host.alive
