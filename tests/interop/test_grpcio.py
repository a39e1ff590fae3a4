"""A foreign client: Google's grpcio, with code made by protoc from the .proto alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.unit.rpc.served import serving

PROTO = Path(__file__).parents[2] / "proto"

CLIENT = r"""
import json, sys
sys.path.insert(0, sys.argv[1])
import grpc
from vmpool.v1 import pool_pb2 as pb, pool_pb2_grpc as rpc, processes_pb2 as processes

channel = grpc.insecure_channel("unix:" + sys.argv[2])
pool = rpc.PoolStub(channel)

def refused(call):
    try:
        call()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return ["OK", ""]

acquired = pool.Acquire(pb.AcquireRequest(profile="default", idempotency_key="job-7"), timeout=20)
again = pool.Acquire(pb.AcquireRequest(idempotency_key="job-7"), timeout=20)
lease_id = acquired.lease.lease_id
start = processes.ExecRequest(start=processes.ExecStart(lease_id=lease_id, argv=["cat"]))
replies = list(pool.Exec(iter([start, processes.ExecRequest(stdin=b"from grpcio"),
                               processes.ExecRequest(close_stdin=processes.CloseStdin())]), timeout=20))
flood = pool.Exec(iter([processes.ExecRequest(start=processes.ExecStart(lease_id=lease_id, argv=["yes"]))]))
flooded = 0
for reply in flood:
    flooded += len(reply.stdout)
    if flooded > 20_000_000:
        flood.cancel()
        break
status = pool.Status(pb.StatusRequest(), timeout=20)
print(json.dumps({
    "lease_id": lease_id,
    "same": again.lease.lease_id == lease_id,
    "hostname": acquired.lease.guest.hostname,
    "prepare_us": acquired.timings.prepare_us,
    "kinds": [reply.WhichOneof("kind") for reply in replies],
    "stdout": b"".join(reply.stdout for reply in replies).decode(),
    "exit": [replies[-1].exit.WhichOneof("how"), replies[-1].exit.status],
    "leases": [lease.lease_id for lease in status.leases],
    "unknown": refused(lambda: pool.Acquire(pb.AcquireRequest(profile="gpu"), timeout=20)),
    "large": refused(lambda: pool.Acquire(pb.AcquireRequest(profile="x" * 5_000_000), timeout=20)),
    "gzip acquire": refused(lambda: pool.Acquire(pb.AcquireRequest(profile="x" * 100), timeout=20,
                                                 compression=grpc.Compression.Gzip)),
    "not started": refused(lambda: list(pool.Exec(iter([processes.ExecRequest(stdin=b"x")]), timeout=20))),
    "release": refused(lambda: pool.Release(pb.ReleaseRequest(lease_id=lease_id), timeout=20)),
    "release again": refused(lambda: pool.Release(pb.ReleaseRequest(lease_id=lease_id), timeout=20)),
}))
channel.close()
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Google's own generated code."""
    out = tmp_path_factory.mktemp("stubs")
    protoc = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{PROTO}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
    ]
    subprocess.run([*protoc, "vmpool/v1/pool.proto", "vmpool/v1/processes.proto"], check=True)
    # Or Python would prefer our own package of that name, which is installed here, to a directory without one.
    (out / "vmpool" / "__init__.py").touch()
    return out


async def run_client(stubs: Path, socket_path: Path) -> dict[str, Any]:
    done = await trio.run_process(
        [sys.executable, "-c", CLIENT, os.fspath(stubs), os.fspath(socket_path)], capture_stdout=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def test_grpcio_does_everything(stubs: Path, vm_home: Path) -> None:
    async with serving(vm_home, size=2) as served:
        await served.until(lambda: served.coordinator.views()[0].ready == 2)
        answer = await run_client(stubs, served.path)
    assert answer["same"]
    assert answer["hostname"].startswith("vm-")
    assert answer["kinds"][0] == "started"
    assert answer["kinds"][-1] == "exit"
    assert answer["stdout"] == "from grpcio"
    assert answer["exit"] == ["status", 0]
    assert answer["leases"] == [answer["lease_id"]]
    assert answer["unknown"] == ["NOT_FOUND", "profile: there is no profile 'gpu'; configured: default"]
    assert answer["large"][0] == "RESOURCE_EXHAUSTED"
    assert "the maximum is 4194304" in answer["large"][1]
    assert answer["gzip acquire"] == [
        "UNIMPLEMENTED",
        "compressed messages are not supported; send them uncompressed",
    ]
    assert answer["not started"] == ["INVALID_ARGUMENT", "start: must be the first message of the call"]
    assert answer["release"] == ["OK", ""]
    assert answer["release again"][0] == "FAILED_PRECONDITION"


EXITS_AT_ONCE = r"""
import os, sys
sys.path.insert(0, sys.argv[1])
import grpc
from vmpool.v1 import pool_pb2 as pb, pool_pb2_grpc as rpc
pool = rpc.PoolStub(grpc.insecure_channel("unix:" + sys.argv[2]))
print(pool.Acquire(pb.AcquireRequest(), timeout=20).lease.lease_id, flush=True)
os._exit(0)
"""


async def test_a_client_that_exits_with_its_lease_in_hand_keeps_it(stubs: Path, vm_home: Path) -> None:
    async with serving(vm_home, size=2) as served:
        for _ in range(5):
            done = await trio.run_process(
                [sys.executable, "-c", EXITS_AT_ONCE, os.fspath(stubs), os.fspath(served.path)], capture_stdout=True
            )
            await served.until(lambda: served.server.statistics().connections == 0)
            (lease,) = served.coordinator.leases()
            assert lease.lease_id == done.stdout.decode().strip()
            await served.coordinator.release(lease.lease_id, owner=lease.owner)


WAITS_IN_VAIN = r"""
import sys
sys.path.insert(0, sys.argv[1])
import grpc
from vmpool.v1 import pool_pb2 as pb, pool_pb2_grpc as rpc
pool = rpc.PoolStub(grpc.insecure_channel("unix:" + sys.argv[2]))
try:
    pool.Acquire(pb.AcquireRequest(), timeout=2)
except grpc.RpcError as error:
    print(error.code().name, error.details())
"""


async def test_the_pools_explanation_comes_before_grpcios_own_deadline(stubs: Path, vm_home: Path) -> None:
    async with serving(vm_home, size=1, boot_s=1000) as served:
        done = await trio.run_process(
            [sys.executable, "-c", WAITS_IN_VAIN, os.fspath(stubs), os.fspath(served.path)], capture_stdout=True
        )
    assert done.stdout.decode().startswith("DEADLINE_EXCEEDED profile default: no VM became available in time")
