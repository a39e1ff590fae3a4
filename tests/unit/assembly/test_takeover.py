"""The successor's part: it goes on when the service before it has ended, and not before."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from pool.assembly import takeover
from pool.assembly.service import run_service
from pool.assembly.takeover import take_over
from pool.host.endpoint import EndpointError, lock_path, take_lock
from pool.host.runtime import vms_lock_path
from pool.settings.config import parse_settings
from vmm.simulated.backend import SimulatedBackend
from vmpool.client import CallError, ServiceUnavailableError

BROKEN = ServiceUnavailableError(socket_path=Path("s.sock"), reason="the connection broke", remedy="-")


class Predecessor:
    """Answers, or fails to."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.error = error
        self.asked = trio.Event()

    async def hand_over(self) -> None:
        self.asked.set()
        if self.error is not None:
            raise self.error

    @contextlib.asynccontextmanager
    async def connected(self, _path: Path) -> AsyncIterator[Predecessor]:
        yield self


def take_locks(socket_path: Path, runtime: Path, held: contextlib.ExitStack) -> None:
    """As a service that listens there and has its VMs there."""
    take_lock(lock_path(socket_path), held)
    take_lock(vms_lock_path(runtime), held)


@pytest.mark.parametrize("error", [None, BROKEN], ids=["answers", "breaks off"])
async def test_it_waits_for_the_end_of_a_service_that_hands_over(
    vm_home: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    predecessor = Predecessor(error=error)
    monkeypatch.setattr(takeover, "open_client", predecessor.connected)
    socket_path = vm_home / "s.sock"
    with contextlib.ExitStack() as lock:
        take_locks(socket_path, vm_home, lock)
        async with trio.open_nursery() as nursery:
            done = trio.Event()

            async def takes_over() -> None:
                await take_over(socket_path, runtime=vm_home)
                done.set()

            nursery.start_soon(takes_over)
            await predecessor.asked.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set()
            lock.close()
            await done.wait()


async def test_it_says_so_if_that_does_not_end(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "open_client", Predecessor().connected)
    monkeypatch.setattr(takeover, "HAND_OVER_LIMIT_S", 0.0)
    socket_path = vm_home / "s.sock"
    with contextlib.ExitStack() as lock:
        take_locks(socket_path, vm_home, lock)
        with pytest.raises(EndpointError, match="did not end within 0 s of the hand-over"):
            await take_over(socket_path, runtime=vm_home)


async def test_it_passes_on_why_a_service_refuses(vm_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = CallError(status="PERMISSION_DENIED", message="uid 7 may not do this")
    monkeypatch.setattr(takeover, "open_client", Predecessor(error=refusal).connected)
    with pytest.raises(EndpointError, match=r"refused to hand over: .*uid 7 may not do this"):
        await take_over(vm_home / "s.sock", runtime=vm_home)


async def test_without_a_service_there_is_nothing_to_wait_for(vm_home: Path) -> None:
    await take_over(vm_home / "s.sock", runtime=vm_home)


async def test_a_service_that_has_its_vms_elsewhere_is_not_asked(
    vm_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would live on, and their leases with them, where nobody looks."""
    predecessor = Predecessor()
    monkeypatch.setattr(takeover, "open_client", predecessor.connected)
    socket_path, elsewhere = vm_home / "s.sock", vm_home / "elsewhere"
    elsewhere.mkdir()
    with contextlib.ExitStack() as lock:
        take_locks(socket_path, vm_home, lock)
        with pytest.raises(EndpointError, match=rf"\(pid \d+\) does not have its VMs in {elsewhere}: .* stop it first"):
            await take_over(socket_path, runtime=elsewhere)
    assert not predecessor.asked.is_set()


async def test_who_could_not_listen_for_scrapes_asks_nobody_to_go(
    vm_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predecessor = Predecessor()
    monkeypatch.setattr(takeover, "open_client", predecessor.connected)
    (vm_home / "vmlinuz").touch()
    (vm_home / "initrd").touch()
    settings = parse_settings(
        f"""
        [metrics]
        listen = "unix:{vm_home}/none/m.sock"
        [profiles.default]
        kernel = "{vm_home}/vmlinuz"
        initrd = "{vm_home}/initrd"
        """,
        source="test",
    )
    with pytest.raises(EndpointError, match=r"metrics\.listen: .*: No such file or directory"):
        await run_service(
            settings,
            socket_path=vm_home / "s.sock",
            stop=trio.Event(),
            takeover=True,
            backend=SimulatedBackend(),
        )
    assert not predecessor.asked.is_set()
