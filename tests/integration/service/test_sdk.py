"""What a program does with leased VMs through the SDK: the same with trio, asyncio and threads."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import trio

import vmpool
import vmpool.sync
from tests.running import RunningService
from tests.soak.memory import MOST_GROWTH_MIB, Peak
from tests.trees import make_tree, seen
from tests.unit.sdk.faces import AT_ONCE, in_thread

JOBS: Final = 10
PORT: Final = 7000
WAIT_S: Final = 300
"""For a VM: there are fewer than jobs."""

SERVER: Final = f"""
import socket
server = socket.create_server(("127.0.0.1", {PORT}))
while True:
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as file:
        name = file.readline().decode().strip()
        if name:
            with open("asked", "w") as asked:
                asked.write(name)
            with open(name, "rb") as content:
                connection.sendall(content.read())
"""


def ask(address: Any) -> bytes:
    with socket.create_connection(address) as client, client.makefile("rb") as file:
        client.sendall(b"inner/question\n")
        return file.read()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("run", AT_ONCE.values(), ids=AT_ONCE)
def test_ten_jobs_at_a_time(service: RunningService, tmp_path: Path, run: Any) -> None:
    """Each brings its files, starts a server, asks it through a forward, and takes its files out."""
    for number in range(JOBS):
        make_tree(tmp_path / f"in{number}", 20)
        (tmp_path / f"in{number}" / "inner").mkdir()
        (tmp_path / f"in{number}" / "inner" / "question").write_text(f"answer {number}")
        (tmp_path / f"in{number}" / "serve.py").write_text(SERVER)

    async def job(face: Any, pool: Any, number: int) -> Any:
        async with pool.vm(name=f"job-{number}", timeout=WAIT_S) as vm:
            await vm.files.upload(tmp_path / f"in{number}", "/root/job", owners=True)
            process = await vm.start(["python3", "-IS", "serve.py"], cwd="/root/job", tag="server")
            await vm.wait_port(PORT, timeout=WAIT_S)
            async with vm.forward(PORT) as forward:
                answer = await in_thread(face, ask, forward.address)
            await process.kill()
            ended = await process.wait()
            await vm.files.download("/root/job", tmp_path / f"out{number}")
            return answer, ended

    assert run(job, service.socket_path, JOBS) == [
        (f"answer {number}".encode(), vmpool.CommandExit(signal=9)) for number in range(JOBS)
    ]
    for number in range(JOBS):
        before, after = seen(tmp_path / f"in{number}"), seen(tmp_path / f"out{number}")
        assert after.pop("asked")[-1][0] == b"inner/question"
        assert after == before


def test_a_tree_comes_back_as_it_was(service: RunningService, tmp_path: Path) -> None:
    make_tree(tmp_path / "there", 300)
    with vmpool.sync.connect(service.socket_path) as pool, pool.vm(timeout=WAIT_S) as vm:
        vm.files.upload(tmp_path / "there", "/root/tree", owners=True)
        vm.files.download("/root/tree", tmp_path / "back")
    assert seen(tmp_path / "back") == seen(tmp_path / "there")


def test_a_large_file_takes_little_memory(service: RunningService) -> None:
    """On its way, of the service and of the client."""
    mib = 48
    piece = bytes(range(256)) * 4096

    async def data() -> AsyncIterator[bytes]:
        for _ in range(mib):
            yield piece

    async def main() -> int:
        seen = 0
        async with vmpool.connect(service.socket_path) as pool, pool.vm(memory_mib=512, timeout=WAIT_S) as vm:
            with Peak(service.process.pid) as of_service, Peak() as of_client:
                await vm.files.write("/root/large", data())
                async with vm.files.open_read("/root/large") as pieces:
                    async for one in pieces:
                        seen += len(one)
        assert of_service.growth_mib < MOST_GROWTH_MIB
        assert of_client.growth_mib < MOST_GROWTH_MIB
        return seen

    assert trio.run(main) == mib * 2**20
