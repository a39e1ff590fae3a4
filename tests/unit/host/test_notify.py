"""Notices to systemd: on a real datagram socket; the watchdog hears of us only while the coordinator answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from actors.supervisor import NEVER_GIVE_UP, Supervised
from pool.core.coordinator import Coordinator
from pool.host.notify import Watchdog, notify, watchdog_interval_s
from tests.unit.actors.stage import simulated_journal
from tests.unit.host.test_clock import Host, VirtualClock
from tests.virtual_time import in_virtual_time


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, vm_home: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """A socket as PID 1 has it, and the environment that names it."""
    name = str(vm_home / "notify") if request.param == "path" else f"@vmpool-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        channel.bind("\0" + name[1:] if name.startswith("@") else name)
        yield channel, {"NOTIFY_SOCKET": name}


def test_a_notice_arrives_as_one_datagram(systemd: tuple[socket.socket, dict[str, str]]) -> None:
    channel, environment = systemd
    assert notify("READY=1\nSTATUS=2 VMs", environment=environment)
    assert channel.recv(100) == b"READY=1\nSTATUS=2 VMs"


def test_without_a_socket_nobody_is_told() -> None:
    assert not notify("READY=1", environment={})
    assert not notify("READY=1", environment={"NOTIFY_SOCKET": ""})


def test_a_socket_that_is_gone_is_an_error(vm_home: Path) -> None:
    with pytest.raises(FileNotFoundError):
        notify("READY=1", environment={"NOTIFY_SOCKET": str(vm_home / "none")})


INTERVALS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"WATCHDOG_USEC": "30000000"}, 15.0),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, 15.0),
    ({"WATCHDOG_USEC": "0"}, None),
    ({"WATCHDOG_USEC": "-1"}, None),
    ({"WATCHDOG_USEC": "soon"}, None),
    ({"WATCHDOG_PID": "7"}, None),
]


@pytest.mark.parametrize(("environment", "interval_s"), INTERVALS)
def test_the_interval_is_half_of_the_patience_if_it_is_ours(
    environment: dict[str, str], interval_s: float | None
) -> None:
    assert watchdog_interval_s(environment=environment, pid=7) == interval_s


def test_our_own_pid_counts() -> None:
    environment = {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
    assert watchdog_interval_s(environment=environment) == 1.0


class Pings:
    """When pings were sent, since this was made."""

    def __init__(self, *, refused: int = 0) -> None:
        self.at: list[float] = []
        self._start = trio.current_time()
        self._refused = refused

    def send(self, state: str) -> None:
        assert state == "WATCHDOG=1"
        if self._refused:
            self._refused -= 1
            raise ConnectionRefusedError("nobody there")
        self.at.append(trio.current_time() - self._start)


@in_virtual_time
async def test_pings_keep_their_beat_however_long_the_answer_takes() -> None:
    pings = Pings()

    async def check() -> None:
        await trio.sleep(3)

    async with trio.open_nursery() as nursery:
        await nursery.start(Watchdog(interval_s=10, check=check, send=pings.send, read=trio.current_time).run)
        await trio.sleep(45)
        nursery.cancel_scope.cancel()
    assert pings.at == [3, 13, 23, 33, 43]


@in_virtual_time
async def test_a_ping_that_is_not_taken_is_not_the_last() -> None:
    pings = Pings(refused=2)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            Watchdog(interval_s=10, check=trio.lowlevel.checkpoint, send=pings.send, read=trio.current_time).run
        )
        await trio.sleep(45)
        nursery.cancel_scope.cancel()
    assert pings.at == [20, 30, 40]


@in_virtual_time
@pytest.mark.logs_error("no answer within the watchdog's interval")
async def test_a_stuck_coordinator_stops_the_pings_and_one_that_goes_on_lets_them_go_on() -> None:
    pings = Pings()
    coordinator = Coordinator(policies={}, producers={}, journal=simulated_journal())
    stuck = trio.CancelScope()

    async def run_until_stuck() -> None:
        with stuck:
            await coordinator.run()

    watchdog = Watchdog(interval_s=10, check=coordinator.prove_alive, send=pings.send, read=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_until_stuck)
        await nursery.start(Supervised(name="watchdog", main=watchdog.run, policy=NEVER_GIVE_UP).run)
        await trio.sleep(25)
        assert pings.at == [0, 10, 20]
        stuck.cancel()
        await trio.sleep(100)
        assert pings.at == [0, 10, 20]
        nursery.start_soon(coordinator.run)
        await trio.sleep(10)
        assert len(pings.at) > 3
        nursery.cancel_scope.cancel()
    assert coordinator.statistics().open_requests == 0


def test_a_service_that_stood_still_pings_before_the_watchdog_loses_patience() -> None:
    """Systemd's clock goes on meanwhile, the service's does not."""
    patience_s, stood_s = 30.0, 12.0
    host = Host()
    began = host.at
    pinged_at: list[float] = []

    async def main() -> None:
        watchdog = Watchdog(
            interval_s=patience_s / 2,
            check=trio.lowlevel.checkpoint,
            send=lambda _: pinged_at.append(host.at - began),
            read=lambda: host.at,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(watchdog.run)
            await trio.sleep(14)
            host.stop_service(stood_s)
            await trio.sleep(16)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=VirtualClock(host))
    assert pinged_at == pytest.approx([0, 14 + stood_s, patience_s], abs=1)
