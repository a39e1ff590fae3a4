"""What the agent says of its guest's resources and clock."""

from __future__ import annotations

import os

import attrs
import pytest

from tests.unit.guest.test_files import MIB
from vmm.errors import AgentProtocolError
from vmm.guest.client import AgentClient
from vmm.guest.usage import clock_of, usage_of
from vmm.words.usage import Usage

ANSWER: dict[str, object] = {
    "cpus_online": 2,
    "cpu_busy_ms": 1500,
    "cpu_idle_ms": 90_000,
    "memory_total_bytes": 256 * MIB,
    "memory_available_bytes": 200 * MIB,
    "processes": 3,
    "load_1m_hundredths": 125,
    "disk_total_bytes": 100 * MIB,
    "disk_available_bytes": 0,
    "uptime_ms": 46_000,
    "wall_clock_ns": 1_900_000_000 * 10**9,
}


async def test_the_figures_are_the_kernels(client: AgentClient) -> None:
    first = await client.usage()
    second = await client.usage()
    assert first.cpus_online == 1
    disk = os.statvfs("/")
    assert second.disk_total_bytes == disk.f_blocks * disk.f_frsize
    assert second.memory_total_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < second.memory_available_bytes < second.memory_total_bytes
    assert second.processes >= 2
    assert second.load_1m >= 0
    assert second.cpu_busy_ms >= first.cpu_busy_ms > 0
    assert second.cpu_idle_ms >= first.cpu_idle_ms > 0
    assert second.uptime_ms >= first.uptime_ms > 0
    assert second.wall_clock_ns == first.wall_clock_ns, "the clock of this agent's system stands"


async def test_a_clock_that_was_set_is_told(client: AgentClient) -> None:
    await client.set_clock(1_900_000_000 * 10**9)
    clock = (await client.ping()).clock
    assert clock is not None
    assert clock.wall_clock_ns == 1_900_000_000 * 10**9
    assert (await client.usage()).wall_clock_ns == 1_900_000_000 * 10**9


def test_an_honest_answer_is_believed() -> None:
    assert attrs.asdict(usage_of(ANSWER)) == {
        "load_1m": 1.25,
        **{name: value for name, value in ANSWER.items() if name != "load_1m_hundredths"},
    }
    assert isinstance(usage_of(ANSWER | {"unknown": "field"}), Usage)


@pytest.mark.parametrize(
    "lie",
    [
        *({name: value} for name in ANSWER for value in (-1, True, "1", None, 2**63)),
        {"memory_available_bytes": 256 * MIB + 1},
        {"disk_available_bytes": 100 * MIB + 1},
        {"cpus_online": 2**20},
        {"processes": 2**23},
    ],
    ids=str,
)
def test_a_figure_that_no_machine_has_is_a_breach(lie: dict[str, object]) -> None:
    with pytest.raises(AgentProtocolError):
        usage_of(ANSWER | lie)


def test_an_agent_of_an_earlier_version_tells_no_time() -> None:
    assert clock_of({"version": 2, "kernel": "6.1"}) is None


@pytest.mark.parametrize(
    "lie",
    [{"wall_clock_ns": -1}, {"wall_clock_ns": "noon"}, {"clock_moved_ns": None}, {"clock_moved_ns": True}],
    ids=str,
)
def test_a_time_that_is_none_is_a_breach(lie: dict[str, object]) -> None:
    with pytest.raises(AgentProtocolError):
        clock_of({"wall_clock_ns": 1, "clock_moved_ns": 0} | lie)
