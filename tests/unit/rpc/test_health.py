"""The health service: one answer for the whole service, and one for each profile."""

from __future__ import annotations

import struct
from pathlib import Path

import attrs
import pytest
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from pool.ledger.records import Owner
from pool.ledger.views import CircuitState
from tests.unit.rpc.raw import RawClient, connected
from tests.unit.rpc.served import Served, serving
from vmm.simulated import BootFails
from vmm.simulated.faults import Fault
from vmm.words.backoff import Backoff

WHOLE = ["", "vmpool.v1.Pool"]
DEFAULT = "vmpool.v1.Pool/default"
SERVING, NOT_SERVING, UNKNOWN = "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"


def request(service: str) -> bytes:
    body = HealthCheckRequest(service=service).SerializeToString()
    return struct.pack(">BI", 0, len(body)) + body


def status_in(body: bytes) -> str:
    return HealthCheckResponse.ServingStatus.Name(HealthCheckResponse.FromString(body).status)


async def check(raw: RawClient, service: str) -> str:
    """What Check says, or its status in numbers."""
    call = await raw.start("/grpc.health.v1.Health/Check")
    await raw.send(call, request(service), end=True)
    body = await raw.message_bytes(call)
    return (await raw.status(call))[0] if body is None else status_in(body)


@attrs.define(eq=False)
class Watching:
    raw: RawClient
    call: int

    async def next(self) -> str:
        body = await self.raw.message_bytes(self.call)
        assert body is not None, "the watch has ended"
        return status_in(body)


async def watching(raw: RawClient, service: str) -> Watching:
    call = await raw.start("/grpc.health.v1.Health/Watch")
    await raw.send(call, request(service), end=True)
    return Watching(raw, call)


@pytest.mark.parametrize("service", [*WHOLE, DEFAULT])
async def test_what_works_serves(served: Served, service: str) -> None:
    async with connected(served.path) as raw:
        assert await check(raw, service) == SERVING
        assert await (await watching(raw, service)).next() == SERVING


@pytest.mark.parametrize("service", ["vmpool.v1.Pool/gpu", "vmpool.v1.Pool/", "default", "vmpool.v1.Admin/default"])
async def test_a_profile_that_there_is_not(served: Served, service: str) -> None:
    async with connected(served.path) as raw:
        assert await check(raw, service) == "5"
        assert await (await watching(raw, service)).next() == UNKNOWN


async def test_a_drain_is_told_at_once_and_concerns_the_profile_alone(served: Served) -> None:
    async with connected(served.path) as raw:
        watch = await watching(raw, DEFAULT)
        assert await watch.next() == SERVING
        await served.coordinator.drain("default")
        assert await watch.next() == NOT_SERVING
        assert [await check(raw, service) for service in (*WHOLE, DEFAULT)] == [SERVING, SERVING, NOT_SERVING]
        await served.coordinator.undrain("default")
        assert await watch.next() == SERVING
        assert await check(raw, DEFAULT) == SERVING


async def test_a_pool_without_a_ready_vm_serves_as_long_as_production_is_believed_to_work(vm_home: Path) -> None:
    async with serving(vm_home, size=1, boot_s=1000) as served, connected(served.path) as raw:
        await served.until(lambda: served.coordinator.views()[0].producing == 1)
        assert await check(raw, DEFAULT) == SERVING


async def test_an_open_circuit_is_told_at_once_and_so_is_that_it_is_closed(vm_home: Path) -> None:
    works = False

    def faults(_number: int) -> tuple[Fault, ...]:
        return () if works else (BootFails(reason="no kernel"),)

    policy = {"breaker_threshold": 1, "backoff": Backoff(initial_s=1000.0, maximum_s=1000.0)}
    async with serving(vm_home, size=1, faults=faults, policy=policy) as served, connected(served.path) as raw:
        watch = await watching(raw, DEFAULT)
        if await watch.next() == SERVING:  # the first boot has not failed yet
            assert await watch.next() == NOT_SERVING
        assert served.coordinator.views()[0].circuit is CircuitState.OPEN
        assert [await check(raw, service) for service in WHOLE] == [SERVING, SERVING]
        works = True
        await served.coordinator.reset("default")
        assert await watch.next() == SERVING


async def test_ready_vms_are_handed_out_while_the_circuit_is_open(vm_home: Path) -> None:
    """And who waits for one of them hears when the last has gone."""
    works = True

    def faults(_number: int) -> tuple[Fault, ...]:
        return () if works else (BootFails(reason="no kernel"),)

    policy = {"breaker_threshold": 1, "backoff": Backoff(initial_s=1000.0, maximum_s=1000.0)}
    async with serving(vm_home, size=2, faults=faults, policy=policy) as served, connected(served.path) as raw:
        await served.until(lambda: served.coordinator.views()[0].ready == 2)
        works = False
        watch = await watching(raw, DEFAULT)
        assert await watch.next() == SERVING
        await served.coordinator.acquire(profile="default", owner=Owner(uid=0))
        await served.until(lambda: served.coordinator.views()[0].circuit is CircuitState.OPEN)
        assert await check(raw, DEFAULT) == SERVING
        await served.coordinator.acquire(profile="default", owner=Owner(uid=0))
        assert await watch.next() == NOT_SERVING


async def test_a_service_that_shuts_down_serves_nothing(served: Served) -> None:
    connection = connected(served.path)
    async with served.client() as client, client.lease() as vm, client.exec(vm.lease_id, ["cat"]), connection as raw:
        watches = [await watching(raw, service) for service in (*WHOLE, DEFAULT)]
        assert [await watch.next() for watch in watches] == [SERVING] * 3
        served.server.stop(grace_s=20)
        assert [await watch.next() for watch in watches] == [NOT_SERVING] * 3
        assert [await check(raw, service) for service in (*WHOLE, DEFAULT)] == [NOT_SERVING] * 3
        await served.coordinator.drain("default")
        await served.coordinator.undrain("default")
        assert await check(raw, DEFAULT) == NOT_SERVING


async def test_who_leaves_is_not_told_any_more(served: Served) -> None:
    (status,) = served.server._health.profiles.values()
    async with connected(served.path) as raw:
        assert await (await watching(raw, DEFAULT)).next() == SERVING
        assert len(status._events) == 1
    await served.until(lambda: not status._events)
