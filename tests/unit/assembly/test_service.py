"""How a service ends is decided once; and what it does while its RPC server is not there."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from pool.assembly import service as service_module
from pool.assembly.service import _Layers, run_service
from pool.core.coordinator import Coordinator
from pool.host.endpoint import Endpoint, open_endpoint
from pool.rpc.server import ServerSettings
from pool.rpc.service import ServiceInfo
from pool.settings.config import parse_settings
from tests.leaks import nothing_left
from tests.unit.actors.stage import simulated_journal
from tests.virtual_time import in_virtual_time
from vmm.simulated import SimulatedHost
from vmm.simulated.backend import SimulatedBackend
from vmpool.client import open_client

NOTHING = cast("Any", None)


def layers() -> _Layers:
    return _Layers(
        coordinator=NOTHING,
        producers={},
        endpoint=NOTHING,
        vms=NOTHING,
        info=NOTHING,
        server_settings=NOTHING,
        watcher=NOTHING,
        news_log=NOTHING,
        children=[],
        stop=trio.Event(),
    )


def test_to_hand_over_is_to_stop() -> None:
    service = layers()
    service._hand_over()
    assert (service.stop.is_set(), service._handing_over) == (True, True)


def test_a_service_that_stops_already_does_not_hand_over() -> None:
    """It would neither drain nor let go of its VMs."""
    service = layers()
    service.stop.set()
    service._hand_over()
    assert not service._handing_over


# -- between two RPC servers -------------------------------------------------------------------------------------------


@asynccontextmanager
async def without_profiles(path: Path) -> AsyncIterator[tuple[_Layers, Endpoint]]:
    """A service that is not run but for its coordinator."""
    coordinator = Coordinator(policies={}, producers={}, journal=simulated_journal())
    with open_endpoint(path) as endpoint:
        service = layers()
        service.coordinator, service.endpoint = coordinator, endpoint
        service.info, service.server_settings = ServiceInfo(version="1", shapes={}), ServerSettings()
        async with trio.open_nursery() as nursery:
            await nursery.start(coordinator.run)
            yield service, endpoint
            nursery.cancel_scope.cancel()


async def test_a_socket_that_was_removed_meanwhile_is_the_next_ones(vm_home: Path) -> None:
    path = vm_home / "run" / "s.sock"
    with nothing_left(vm_home):
        async with without_profiles(path) as (service, endpoint):
            async with trio.open_nursery() as crashing:
                await crashing.start(service._run_rpc)
                crashing.cancel_scope.cancel()
            path.unlink()
            assert endpoint.look_after()
            await service._listen_anew()
            async with trio.open_nursery() as next_one:
                await next_one.start(service._run_rpc)
                async with open_client(path) as client:
                    assert not (await client.status()).profiles
                next_one.cancel_scope.cancel()


class Untouched:
    """Takes the place of what the service looks after."""

    def look_after(self) -> None: ...

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()


@in_virtual_time
async def test_a_service_that_is_to_stop_does_not_wait_for_the_next_one(
    vm_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would have been told to stop before it was there."""
    crash = trio.Event()

    class Server:
        """Of those that a crash ended, and of those that would be there for ever."""

        def stop(self) -> None: ...

    async def serve(*, sock: socket.socket, task_status: trio.TaskStatus[Server], **_: object) -> None:
        with sock:
            task_status.started(Server())
            if crash.is_set():
                await trio.sleep_forever()
            await crash.wait()
            raise OSError("crashed")

    monkeypatch.setattr(service_module, "serve", serve)
    async with without_profiles(vm_home / "run" / "s.sock") as (service, _), trio.open_nursery() as outer:
        service.vms, service.watcher = cast("Any", Untouched()), cast("Any", Untouched())
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(service._serve, outer))
            crash.set()
            await trio.testing.wait_all_tasks_blocked()
            service.stop.set()
        outer.cancel_scope.cancel()


# -- its log ---------------------------------------------------------------------------------------------------------


async def test_that_it_has_stopped_is_its_last_word(vm_home: Path) -> None:
    for name in ("vmlinuz", "initrd"):
        (vm_home / name).touch()
    settings = parse_settings(
        f"""
        [profiles.default]
        size = 1
        kernel = "{vm_home}/vmlinuz"
        initrd = "{vm_home}/initrd"
        """,
        source="test",
    )
    host, stop = SimulatedHost(boot_s=1000.0), trio.Event()
    with capture_logs() as said:
        async with trio.open_nursery() as nursery:
            start = partial(run_service, settings, socket_path=vm_home / "s.sock", stop=stop)
            await nursery.start(partial(start, backend=SimulatedBackend(host=host)))
            while not host.launched:
                await trio.testing.wait_all_tasks_blocked(0.001)
            stop.set()
    events = [(line["event"], "vm" in line) for line in said]
    assert events[-2:] == [("stopped", True), ("stopped", False)]
