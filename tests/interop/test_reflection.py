"""A client without the .proto: Google's reflection client asks the service for its schemas, and calls it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import trio

from tests.unit.kata.cache import serving_cache
from tests.unit.rpc.served import serving

CLIENT = r"""
import json, sys
import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel("unix:" + sys.argv[1])
known = ProtoReflectionDescriptorDatabase(channel)
pool = DescriptorPool(known)

def call(method, **request):
    service, _, name = method.rpartition("/")
    method_ = pool.FindServiceByName(service).methods_by_name[name]
    ask, answer = GetMessageClass(method_.input_type), GetMessageClass(method_.output_type)
    stub = channel.unary_unary(f"/{method}", ask.SerializeToString, answer.FromString)
    return MessageToDict(stub(ParseDict(request, ask()), timeout=20), preserving_proto_field_name=True)

answers = {"services": list(known.get_services())}
for method, request in json.loads(sys.argv[2]):
    answers[method] = call(method, **request)
print(json.dumps(answers))
channel.close()
"""


async def run_client(socket_path: Path, *calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Calls methods, each with a request in JSON."""
    command = [sys.executable, "-c", CLIENT, os.fspath(socket_path), json.dumps(calls)]
    done = await trio.run_process(command, capture_stdout=True)
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


async def test_a_client_without_the_proto_acquires_a_vm(vm_home: Path) -> None:
    async with serving(vm_home, size=1) as served:
        await served.until(lambda: served.coordinator.views()[0].ready == 1)
        answers = await run_client(
            served.path,
            ("vmpool.v1.Pool/Acquire", {"profile": "default", "on_empty": "ON_EMPTY_FAIL"}),
            ("vmpool.v1.Pool/Status", {}),
            ("vmpool.v1.Admin/Drain", {"profile": "default"}),
            ("grpc.health.v1.Health/Check", {"service": "vmpool.v1.Pool/default"}),
        )
        (lease,) = served.coordinator.leases()
        assert served.coordinator.views()[0].drained
    assert answers["services"] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "vmpool.v1.Admin",
        "vmpool.v1.Files",
        "vmpool.v1.Pool",
        "vmpool.v1.Ports",
        "vmpool.v1.Processes",
    ]
    assert answers["vmpool.v1.Pool/Acquire"]["lease"]["lease_id"] == lease.lease_id
    assert answers["vmpool.v1.Pool/Status"]["leases"][0]["vm_id"] == lease.vm_id
    assert answers["grpc.health.v1.Health/Check"] == {"status": "NOT_SERVING"}


async def test_the_vm_cache_tells_of_its_own_service_alone(vm_home: Path) -> None:
    async with serving_cache(vm_home) as cache:
        answers = await run_client(cache.path, ("cache.CacheService/Status", {}))
    assert answers["services"] == [
        "cache.CacheService",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]
    assert answers["cache.CacheService/Status"]["pid"] == str(os.getpid())
