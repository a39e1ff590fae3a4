"""VMCache with a foreign client and a foreign server: Google's grpcio, with code from the .proto alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from pool.kata.cache.client import CacheStatus, WaitingVm, cache_status, open_cache_client, quit_cache
from pool.kata.errors import CacheError
from tests.unit.kata.cache import base_vm, serving_cache
from tests.unit.kata.configs import SAMPLES

PROTO = Path(__file__).parents[2] / "proto"
LIMIT_S = 20.0

CLIENT = r"""
import json, sys
sys.path.insert(0, sys.argv[1])
import grpc
from google.protobuf.empty_pb2 import Empty
from cache import cache_pb2_grpc as rpc

channel = grpc.insecure_channel("unix:" + sys.argv[2])
cache = rpc.CacheServiceStub(channel)

def outcome(call, timeout):
    try:
        call(Empty(), timeout=timeout)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"

config = cache.Config(Empty(), timeout=20)
before = cache.Status(Empty(), timeout=20)
vm = cache.GetBaseVM(Empty(), timeout=20)
print(json.dumps({
    "type": json.loads(config.Data)["HypervisorType"],
    "agent": json.loads(config.AgentConfig)["DialTimeout"],
    "vms": [[vm.pid, vm.cpu, vm.memory] for vm in before.vmstatus],
    "id": vm.id,
    "qmp": json.loads(vm.hypervisor)["QmpChannelpath"],
    "url": vm.proxyURL,
    "size": [vm.cpu, vm.memory, vm.cpuDelta],
    "empty": outcome(cache.GetBaseVM, 0.2),
    "after": len(cache.Status(Empty(), timeout=20).vmstatus),
    "quit": outcome(cache.Quit, 20),
}))
channel.close()
"""

SERVER = r"""
import os, sys, threading
from concurrent import futures
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import grpc
from google.protobuf.empty_pb2 import Empty
from cache import cache_pb2 as pb, cache_pb2_grpc as rpc

samples = Path(sys.argv[3])

class Cache(rpc.CacheServiceServicer):
    vms = 1

    def Config(self, request, context):
        return pb.GrpcVMConfig(Data=(samples / "runtime1x-VMConfig-Data.json").read_bytes(),
                               AgentConfig=(samples / "runtime1x-AgentConfig.json").read_bytes())

    def GetBaseVM(self, request, context):
        if not self.vms:
            context.abort(grpc.StatusCode.UNKNOWN, "failed to GetBaseVM: cache factory is closed")
        self.vms -= 1
        return pb.GrpcVM(id="ID", hypervisor=(samples / "runtime1x-qemuGrpc.json").read_bytes(),
                         proxyPid=9, proxyURL="unix:///run/vc/vm/ID/proxy.sock", cpu=1, memory=2048)

    def Status(self, request, context):
        return pb.GrpcStatus(pid=5, vmstatus=[pb.GrpcVMStatus(pid=6, cpu=1, memory=2048)])

    def Quit(self, request, context):
        threading.Timer(0.2, lambda: server.stop(1)).start()
        return Empty()

server = grpc.server(futures.ThreadPoolExecutor(2))
rpc.add_CacheServiceServicer_to_server(Cache(), server)
server.add_insecure_port("unix:" + sys.argv[2])
server.start()
os.write(1, b"ready\n")
server.wait_for_termination()
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Google's own generated code."""
    out = tmp_path_factory.mktemp("stubs")
    options = [f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, "cache/cache.proto"], check=True)
    return out


async def test_a_grpcio_client(stubs: Path, vm_home: Path) -> None:
    async with serving_cache(vm_home, base_vm(1, context_id=77)) as served:
        done = await trio.run_process(
            [sys.executable, "-c", CLIENT, os.fspath(stubs), os.fspath(served.path)], capture_stdout=True
        )
        with trio.fail_after(LIMIT_S):
            await served.source.quits.wait()
        assert served.source.discarded == []
    assert json.loads(done.stdout) == {
        "type": "qemu",
        "agent": 45,
        "vms": [[1001, 2, 2048]],
        "id": "vm-1",
        "qmp": "/run/vc/vm/vm-1/qmp.sock",
        "url": "vsock://77:1024",
        "size": [2, 2048, 0],
        "empty": "DEADLINE_EXCEEDED",
        "after": 0,
        "quit": "OK",
    }


async def test_a_grpcio_server(stubs: Path, vm_home: Path) -> None:
    """What Kata's server is to us: it answers as Go does, and ends its connections in its own way."""
    path = vm_home / "cache.sock"
    argv = [sys.executable, "-c", SERVER, os.fspath(stubs), os.fspath(path), os.fspath(SAMPLES)]
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(partial(trio.run_process, argv, stdout=subprocess.PIPE))
        assert process.stdout is not None
        assert await process.stdout.receive_some() == b"ready\n"
        async with open_cache_client(path, timeout_s=LIMIT_S) as client:
            assert client.config.agent_type == "kata"
            vm = await client.take_base_vm(timeout_s=LIMIT_S)
        assert (vm.id, vm.agent_url, vm.proxy_pid) == ("ID", "unix:///run/vc/vm/ID/proxy.sock", 9)
        async with open_cache_client(path, timeout_s=LIMIT_S) as client:
            with pytest.raises(CacheError) as error:
                await client.take_base_vm(timeout_s=LIMIT_S)
        assert str(error.value) == (
            "failed to GetBaseVM: rpc error: code = Unknown desc = failed to GetBaseVM: cache factory is closed"
        )
        assert await cache_status(path, timeout_s=LIMIT_S) == CacheStatus(
            pid=5, vms=(WaitingVm(pid=6, vcpus=1, memory_mib=2048),)
        )
        await quit_cache(path, timeout_s=LIMIT_S)
        with trio.fail_after(LIMIT_S):
            assert await process.wait() == 0
