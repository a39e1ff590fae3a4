"""VMCache with a foreign client and real VMs: grpcio, from the .proto alone, against the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.integration.service.kata import kata_home, kill, qmp
from tests.running import STOP_LIMIT_S
from vmm.initramfs.image import GuestImage

PROTO = Path(__file__).parents[2] / "proto"

pytestmark = pytest.mark.qemu

CLIENT = r"""
import json, sys
sys.path.insert(0, sys.argv[1])
import grpc
from google.protobuf.empty_pb2 import Empty
from cache import cache_pb2_grpc as rpc

with grpc.insecure_channel("unix:" + sys.argv[2]) as channel:
    cache = rpc.CacheServiceStub(channel)
    config = cache.Config(Empty(), timeout=20)
    vm = cache.GetBaseVM(Empty(), timeout=120)
    status = cache.Status(Empty(), timeout=20)
    cache.Quit(Empty(), timeout=20)
    hypervisor = json.loads(vm.hypervisor)
    print(json.dumps({
        "kernel": json.loads(config.Data)["HypervisorConfig"]["KernelPath"],
        "server": status.pid,
        "waiting": [entry.pid for entry in status.vmstatus],
        "id": vm.id,
        "qmp": hypervisor["QmpChannelpath"],
        "uuid": hypervisor["State"]["UUID"],
        "size": [vm.cpu, vm.memory],
        "bridge": hypervisor["State"]["Bridges"][0],
    }))
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    options = [f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, "cache/cache.proto"], check=True)
    return out


def test_a_vm_taken_by_grpcio_outlives_the_service(stubs: Path, guest_image: GuestImage) -> None:
    with kata_home(guest_image, number=1) as kata:
        service = kata.home.start()
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, os.fspath(stubs), os.fspath(kata.endpoint)],
            check=True,
            capture_output=True,
            timeout=200,
        )
        got = json.loads(done.stdout)
        assert service.process.wait(STOP_LIMIT_S) == 0, "Quit ends the service"
        assert got["server"] == service.process.pid
        assert got["kernel"] == str(guest_image.kernel)
        assert got["size"] == [1, 256]
        left = service.qemus()
        assert set(left) == {got["id"]}, "what was given away, and nothing else"
        assert left[got["id"]].pid not in got["waiting"]
        assert not kata.endpoint.exists()
        status, uuid, _, running = qmp(got["qmp"], "query-status", "query-uuid", "cont", "query-status")
        assert (status["status"], running["status"]) == ("paused", "running")
        assert uuid["UUID"] == got["uuid"]
        assert (got["bridge"]["ID"], got["bridge"]["Addr"], got["bridge"]["MaxCapacity"]) == ("pci-bridge-0", 2, 30)
        # As Kata plugs a network in.
        qmp(got["qmp"], "device_add", driver="virtio-net-pci", id="net", bus=got["bridge"]["ID"], addr="01")
        (buses,) = qmp(got["qmp"], "query-pci")
        (bridge,) = [one for one in buses[0]["devices"] if one["qdev_id"] == "pci-bridge-0"]
        assert bridge["slot"] == 2
        assert [one["qdev_id"] for one in bridge["pci_bridge"]["devices"]] == ["net"]
        assert left[got["id"]].status() != psutil.STATUS_ZOMBIE
        kill(left[got["id"]].pid)
        kata.end(service)
