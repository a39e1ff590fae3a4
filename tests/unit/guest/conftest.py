"""An agent to talk to, without a VM: its own process on the host, at the other end of a socket pair."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from tests.agents import LocalAgent, agent_process
from vmm.guest.client import AgentClient


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
    async with agent_process(
        Path(plugged), preparation_limit_ms=preparation_limit_ms, cgroups=cgroups, limits=agent_limits
    ) as agent:
        yield agent


@pytest.fixture
async def client(local_agent: LocalAgent, nursery: trio.Nursery) -> AsyncIterator[AgentClient]:
    client = await AgentClient.connect(local_agent.stream, nursery=nursery)
    yield client
    await client.aclose()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may look into, as pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="vmpool-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
