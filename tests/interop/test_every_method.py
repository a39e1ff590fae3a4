"""Foreign clients, from the .proto alone, call every method that reaches into a VM: Google's grpcio, and Node's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.interop.scenario import EXPECTED, scene

HERE = Path(__file__).parent
PROTO = HERE.parents[1] / "proto"
FILES = [f"vmpool/v1/{name}.proto" for name in ("pool", "processes", "files", "ports")]

NODE_PACKAGES = ("@grpc/grpc-js@1", "@grpc/proto-loader@0.8")
INSTALL_LIMIT_S = 120.0


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


@pytest.fixture(scope="module")
def node_modules() -> Iterator[Path]:
    """Node's packages, in a directory of their own."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    with tempfile.TemporaryDirectory(prefix="vmpool-node-") as directory:
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", directory]
        try:
            subprocess.run([*command, *NODE_PACKAGES], check=True, capture_output=True, timeout=INSTALL_LIMIT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"npm cannot install {' and '.join(NODE_PACKAGES)}: {error}")
        yield Path(directory) / "node_modules"


@pytest.mark.timeout(180)
async def test_grpc_js(node_modules: Path, vm_home: Path) -> None:
    async with scene(vm_home) as where:
        client = ["node", os.fspath(HERE / "every_method.js"), os.fspath(node_modules), os.fspath(PROTO)]
        done = await trio.run_process([*client, os.fspath(where.socket), where.lease_id], capture_stdout=True)
    assert json.loads(done.stdout) == EXPECTED
