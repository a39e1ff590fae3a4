"""Server reflection: what it tells of the services, and how it is bounded."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpclib.reflection.v1 import reflection_pb2 as v1
from grpclib.reflection.v1alpha import reflection_pb2 as v1alpha
from h2.settings import SettingCodes

from pool.rpc.reflection import MAX_NAME_BYTES, ReflectionService
from pool.rpc.server import ServerSettings
from pool.settings.limits import EdgeLimits
from tests.unit.rpc.raw import RawClient, connected
from tests.unit.rpc.served import Served, serving

INVALID, NOT_FOUND, EXHAUSTED, DENIED, UNAVAILABLE = 3, 5, "8", "7", "14"
PROTO = "vmpool/v1/pool.proto"


def path_of(version: ModuleType) -> str:
    return f"/{version.DESCRIPTOR.package}.ServerReflection/ServerReflectionInfo"


def framed(message: Any) -> bytes:
    body = message.SerializeToString()
    return struct.pack(">BI", 0, len(body)) + bytes(body)


@attrs.define(eq=False)
class Asking:
    """One call of one version."""

    raw: RawClient
    call: int
    version: ModuleType = v1

    async def ask(self, **request: Any) -> Any:
        await self.raw.send(self.call, framed(self.version.ServerReflectionRequest(**request)))
        return await self.answer()

    async def answer(self) -> Any:
        body = await self.raw.message_bytes(self.call)
        assert body is not None, "the call has ended"
        return self.version.ServerReflectionResponse.FromString(body)

    async def files(self, **request: Any) -> list[FileDescriptorProto]:
        answer = await self.ask(**request)
        return [FileDescriptorProto.FromString(each) for each in answer.file_descriptor_response.file_descriptor_proto]


async def asking(raw: RawClient, version: ModuleType = v1) -> Asking:
    return Asking(raw, await raw.start(path_of(version)), version)


@pytest.mark.parametrize("version", [v1, v1alpha], ids=["v1", "v1alpha"])
async def test_both_versions_list_the_services_and_say_what_was_asked(served: Served, version: ModuleType) -> None:
    async with connected(served.path) as raw:
        answer = await (await asking(raw, version)).ask(host="here", list_services="*")
    assert [service.name for service in answer.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "vmpool.v1.Admin",
        "vmpool.v1.Files",
        "vmpool.v1.Pool",
        "vmpool.v1.Ports",
        "vmpool.v1.Processes",
    ]
    assert (answer.valid_host, answer.original_request.list_services) == ("here", "*")


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("vmpool.v1.Pool", PROTO),
        ("vmpool.v1.Pool.Acquire", PROTO),
        ("vmpool.v1.AcquireRequest", PROTO),
        ("vmpool.v1.AcquireRequest.EnvironmentEntry", PROTO),
        ("vmpool.v1.AcquireRequest.profile", PROTO),
        ("vmpool.v1.OnEmpty", PROTO),
        ("vmpool.v1.ON_EMPTY_WAIT", PROTO),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", "grpclib/health/v1/health.proto"),
        ("grpc.reflection.v1.ServerReflection", "grpclib/reflection/v1/reflection.proto"),
    ],
)
async def test_a_symbol_leads_to_its_file_and_a_file_is_known_by_its_name(
    served: Served, symbol: str, file: str
) -> None:
    async with connected(served.path) as raw:
        asks = await asking(raw)
        found = await asks.files(file_containing_symbol=symbol)
        assert found[0].name == file  # what it imports follows
        assert await asks.files(file_by_filename=file) == found


REFUSED: dict[str, tuple[dict[str, Any], int]] = {
    "a file that there is not": ({"file_by_filename": "gpu.proto"}, NOT_FOUND),
    "a file of a service that is not served here": ({"file_by_filename": "cache/cache.proto"}, NOT_FOUND),
    "a symbol that there is not": ({"file_containing_symbol": "vmpool.v1.Gpu"}, NOT_FOUND),
    "a symbol of a service that is not served here": ({"file_containing_symbol": "cache.CacheService"}, NOT_FOUND),
    "no symbol": ({"file_containing_symbol": ""}, NOT_FOUND),
    "an extension": ({"file_containing_extension": {"containing_type": "vmpool.v1.Lease"}}, NOT_FOUND),
    "all extensions": ({"all_extension_numbers_of_type": "vmpool.v1.Lease"}, NOT_FOUND),
    "nothing": ({}, INVALID),
    "a long name": ({"file_containing_symbol": "x" * MAX_NAME_BYTES}, INVALID),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_there_is_not_is_an_answer_and_the_call_goes_on(served: Served, what: str) -> None:
    request, code = REFUSED[what]
    async with connected(served.path) as raw:
        asks = await asking(raw)
        answer = await asks.ask(**request)
        assert answer.error_response.error_code == code
        assert len(answer.SerializeToString()) < 3 * MAX_NAME_BYTES
        assert (await asks.ask(list_services="")).HasField("list_services_response")
        await raw.send(asks.call, end=True)
        assert await raw.status(asks.call) == ("0", "")


async def test_one_who_does_not_read_is_not_answered_on_and_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[object] = []

    def answer(self: ReflectionService, request: object) -> object:
        answered.append(request)
        return original(self, request)

    original = ReflectionService._answer
    monkeypatch.setattr(ReflectionService, "_answer", answer)
    async with connected(served.path) as raw:
        raw.http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        asks = await asking(raw)
        question = framed(v1.ServerReflectionRequest(file_by_filename=PROTO))
        for _ in range(1000):
            await raw.send(asks.call, question)
        # What comes after them on the connection has been dealt with, so that they have, too.
        assert (await raw.status(await raw.start("/nothing")))[0] == "12"
        assert len(answered) == 1

        raw.http2.increment_flow_control_window(2**20, asks.call)
        raw.http2.increment_flow_control_window(2**24)
        await raw.flush()
        assert (await asks.answer()).HasField("file_descriptor_response")
        await served.until(lambda: len(answered) > 1)


async def test_it_counts_as_a_call(vm_home: Path) -> None:
    settings = ServerSettings(limits=EdgeLimits(calls_per_user=2))
    async with serving(vm_home, settings=settings) as served, connected(served.path) as raw:
        for _ in range(2):
            await (await asking(raw)).ask(list_services="")
        refused = await asking(raw)
        assert (await raw.status(refused.call))[0] == EXHAUSTED


async def test_a_stranger_learns_nothing(vm_home: Path, call_as: Callable[[int], None]) -> None:
    settings = ServerSettings(allowed_uids=frozenset({os.geteuid()}))
    async with serving(vm_home, settings=settings) as served:
        call_as(4242)
        async with connected(served.path) as raw:
            refused = await asking(raw)
            assert (await raw.status(refused.call))[0] == DENIED


async def test_it_does_not_use_up_the_grace_of_a_service_that_stops(served: Served) -> None:
    async with connected(served.path) as raw:
        asks = await asking(raw)
        await asks.ask(list_services="")
        served.server.stop(grace_s=1000)
        assert (await raw.status(asks.call))[0] == UNAVAILABLE
