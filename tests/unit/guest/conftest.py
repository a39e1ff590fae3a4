"""An agent to talk to, without a VM: its own process on the host, at the other end of a socket pair."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.agents import LocalAgent
from vmm.guest.client import AgentClient

_PROGRAM = Path(__file__).parent / "agent_process.py"
_ROOT = Path(__file__).parents[3]


@pytest.fixture
def plugged(tmp_path_factory: pytest.TempPathFactory) -> trio.Path:
    """What is plugged into the agent's system: CPUs and blocks of memory. Empty, it is one of each."""
    path = tmp_path_factory.mktemp("agent") / "plugged"
    path.touch()
    return trio.Path(path)


@pytest.fixture
def preparation_limit_ms() -> int:
    """For how long the agent waits for what is not plugged in; a test that reaches it has failed."""
    return 60_000


@pytest.fixture
def cgroups() -> Path | None:
    """Where the agent finds cgroups mounted."""
    return None


@pytest.fixture
def agent_limits(request: pytest.FixtureRequest) -> dict[str, int]:
    """Other values for constants of the agent's modules, by module and name."""
    return getattr(request, "param", {})


@pytest.fixture
async def local_agent(
    plugged: trio.Path, preparation_limit_ms: int, cgroups: Path | None, agent_limits: dict[str, int]
) -> AsyncIterator[LocalAgent]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = await trio.lowlevel.open_process(
            [
                sys.executable,
                str(_PROGRAM),
                str(theirs.fileno()),
                str(plugged),
                str(preparation_limit_ms),
                *([] if cgroups is None else [str(cgroups)]),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin", "AGENT_LIMITS": json.dumps(agent_limits)},
        )
    ours.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    yield LocalAgent(process=process, stream=stream)
    await stream.aclose()
    with trio.fail_after(30):
        assert await process.wait() == 0, "the agent must survive everything but the end of its channel"


@pytest.fixture
async def client(local_agent: LocalAgent, nursery: trio.Nursery) -> AsyncIterator[AgentClient]:
    client = await AgentClient.connect(local_agent.stream, nursery=nursery)
    yield client
    await client.aclose()
