"""Commands with a time limit in a guest whose root has unmounted the cgroups, or mounted something over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agents import collect
from vmm.errors import AgentRequestError
from vmm.guest.client import AgentClient
from vmm.words.commands import CommandSpec

_GONE_WHEN = {
    "a command starts": [],
    "the agent has gone in": ["new/cgroup.procs"],
    "the command has started": ["new/cgroup.procs", "cgroup.procs"],
    "never": ["new/cgroup.procs", "cgroup.procs", "new/cgroup.kill"],
}


@pytest.fixture(params=_GONE_WHEN)
def cgroups(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The files that each step of a command writes, up to the one at which they are gone."""
    (tmp_path / "new").mkdir()
    for name in _GONE_WHEN[request.param]:
        (tmp_path / name).touch()
    return tmp_path


def shell(script: str, *, time_limit_s: float) -> CommandSpec:
    return CommandSpec(argv=["sh", "-c", script], time_limit_s=time_limit_s)


async def test_a_command_runs_in_its_process_group(client: AgentClient) -> None:
    outcome = await collect(await client.start_command(shell("echo out; exit 7", time_limit_s=1000.0)))
    assert (outcome.stdout, outcome.exit.status) == (b"out\n", 7)


async def test_its_time_limit_ends_it_and_not_the_agent(client: AgentClient) -> None:
    outcome = await collect(await client.start_command(shell("sleep 1000 & sleep 1000", time_limit_s=0.05)))
    assert outcome.exit.timed_out
    await client.ping()
    again = await collect(await client.start_command(shell("echo still here", time_limit_s=1000.0)))
    assert again.stdout == b"still here\n"


async def test_a_command_that_cannot_be_started_is_refused_for_that(client: AgentClient) -> None:
    with pytest.raises(AgentRequestError) as refused:
        await client.start_command(CommandSpec(argv=["/no/such/program"], time_limit_s=1000.0))
    assert refused.value.part == "program"
