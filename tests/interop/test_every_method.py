"""Foreign clients, from the .proto alone, call every method that reaches into a VM: Google's grpcio, and Node's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.interop.scenario import EXPECTED, scene

HERE = Path(__file__).parent
PROTO = HERE.parents[1] / "proto"
FILES = [f"vmpool/v1/{name}.proto" for name in ("pool", "processes", "files", "ports")]

NODE_MODULES = HERE.parents[1] / "build" / "node" / "node_modules"
"""As `scripts/setup --dev` installs them, where there is npm."""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    options = [f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *FILES], check=True)
    # Or Python would prefer our own package of that name, which is installed here, to a directory without one.
    (out / "vmpool" / "__init__.py").touch()
    return out


async def test_grpcio(stubs: Path, vm_home: Path) -> None:
    async with scene(vm_home) as where:
        client = [sys.executable, os.fspath(HERE / "every_method.py"), os.fspath(stubs)]
        done = await trio.run_process([*client, os.fspath(where.socket), where.lease_id], capture_stdout=True)
    assert json.loads(done.stdout) == EXPECTED


@pytest.mark.skipif(not NODE_MODULES.is_dir(), reason="Node's gRPC is not installed: scripts/setup --dev, with npm")
async def test_grpc_js(vm_home: Path) -> None:
    async with scene(vm_home) as where:
        client = ["node", os.fspath(HERE / "node" / "every_method.js"), os.fspath(NODE_MODULES), os.fspath(PROTO)]
        done = await trio.run_process([*client, os.fspath(where.socket), where.lease_id], capture_stdout=True)
    assert json.loads(done.stdout) == EXPECTED
