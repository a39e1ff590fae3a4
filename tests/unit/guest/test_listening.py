"""An agent that listens, as on vsock: one host after the other, each on a connection of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.agents import collect
from tests.waiting import until
from vmm.guest.client import AgentClient
from vmm.words.commands import CommandSpec
from vmm.words.preparation import Preparation

_PROGRAM = Path(__file__).parent / "agent_process.py"
_ROOT = Path(__file__).parents[3]


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[Path]:
    """Where the agent listens. A Unix socket stands in for vsock."""
    path = tmp_path / "agent"
    (tmp_path / "plugged").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        process = await trio.lowlevel.open_process(
            [sys.executable, str(_PROGRAM), str(listener.fileno()), str(tmp_path / "plugged"), "1000"],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin"},
        )
    yield path
    assert process.poll() is None, "the agent serves for ever"
    process.kill()
    await process.wait()


async def connect(address: Path, nursery: trio.Nursery) -> AgentClient:
    return await AgentClient.connect(await trio.open_unix_socket(address), nursery=nursery)


async def test_what_was_prepared_outlives_the_connection(address: Path, nursery: trio.Nursery) -> None:
    first = await connect(address, nursery)
    await first.prepare(Preparation(environment={"SHAPE": "round"}))
    await first.aclose()
    second = await connect(address, nursery)
    outcome = await collect(await second.start_command(CommandSpec(argv=["sh", "-c", "echo $SHAPE"])))
    assert outcome.stdout == b"round\n"
    await second.aclose()


async def test_a_command_ends_with_its_host_s_connection(address: Path, nursery: trio.Nursery, tmp_path: Path) -> None:
    first = await connect(address, nursery)
    argv = ["sh", "-c", f"echo $$ > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/pid; exec sleep 1000"]
    command = await first.start_command(CommandSpec(argv=argv))
    pid = trio.Path(tmp_path / "pid")
    await until(pid.exists)
    number = (await pid.read_text()).strip()
    await first.aclose()
    second = await connect(address, nursery)

    async def is_gone() -> bool:
        await second.ping()
        return not await trio.Path(f"/proc/{number}").exists()

    await until(is_gone)
    await command.aclose()
    await second.aclose()
