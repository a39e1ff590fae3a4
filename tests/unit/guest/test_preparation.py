"""Making a guest unique and right: what the agent does, refuses, and waits for."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.agents import collect
from vmm.errors import AgentRequestError
from vmm.guest.client import AgentClient
from vmm.words.commands import CommandSpec
from vmm.words.preparation import Preparation

MACHINE_ID = "0123456789abcdef" * 2
VM_UUID = "01234567-89ab-cdef-0123-456789abcdef"


async def environment_of(client: AgentClient, **of_its_own: str) -> dict[str, str]:
    outcome = await collect(await client.start_command(CommandSpec(argv=["env"], environment=of_its_own)))
    return dict(line.split("=", 1) for line in outcome.stdout.decode().splitlines())


async def test_everything_is_done_in_one_request(client: AgentClient, plugged: trio.Path) -> None:
    await plugged.write_text("2 3")
    report = await client.prepare(
        Preparation(
            entropy=bytes(512),
            random_bytes=4,
            wall_clock_ns=1234,
            hostname="vm-1",
            machine_id=MACHINE_ID,
            vm_uuid=VM_UUID,
            vcpus=2,
            memory_mib=300,
        )
    )
    assert (report.reseeded, report.random) == (True, bytes(range(4)))
    assert (report.wall_clock_ns, report.hostname, report.machine_id) == (1234, "vm-1", MACHINE_ID)
    assert report.vm_uuid == "", "this system has none to show"
    assert (report.cpus_online, report.memory_mib, report.memory_online_mib) == (2, 100, 384)


async def test_what_is_not_asked_for_is_left_alone(client: AgentClient, plugged: trio.Path) -> None:
    await plugged.write_text("2 2")
    report = await client.prepare(Preparation())
    assert not report.reseeded
    assert (report.hostname, report.cpus_online, report.memory_online_mib) == ("unnamed", 1, None)
    assert (report.random, report.machine_id, report.vm_uuid) == (b"", "", "")


async def test_a_system_that_refuses_is_reported_with_its_errno(client: AgentClient) -> None:
    with pytest.raises(AgentRequestError) as caught:
        await client.prepare(Preparation(entropy=b"refuse"))
    assert (caught.value.request, caught.value.code, caught.value.part) == ("prepare", "EPERM", "entropy")


@pytest.mark.parametrize(
    "bad",
    [
        {"machine_id": "0" * 31},
        {"machine_id": "0" * 31 + "G"},
        {"machine_id": MACHINE_ID.upper()},
        {"machine_id": ""},
        {"vm_uuid": MACHINE_ID},
        {"vm_uuid": VM_UUID.replace("0", "g")},
        *({"vm_uuid": VM_UUID[:at] + "g" + VM_UUID[at + 1 :]} for at in (0, 7, 9, 12, 14, 17, 19, 22, 24, 35)),
        *({"vm_uuid": VM_UUID[:at] + "0" + VM_UUID[at + 1 :]} for at in (8, 13, 18, 23)),
        {"vm_uuid": VM_UUID.upper()},
        {"hostname": ""},
        {"hostname": "x" * 65},
        {"hostname": "a/b"},
        {"hostname": "a b"},
        {"hostname": "a:b"},
        {"hostname": "\u00e9"},
        {"hostname": "a\0b"},
        {"hostname": "a\nb"},
        {"random_bytes": -1},
        {"random_bytes": 257},
        {"vcpus": 0},
        {"memory_mib": -1},
        {"environment": {"A=B": "c"}},
        {"environment": {"": "c"}},
        {"environment": {"A": "nul\0"}},
        {"environment": {"A": 5}},
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused_whole(client: AgentClient, bad: dict[str, Any]) -> None:
    with pytest.raises(AgentRequestError) as caught:
        await client.prepare(attrs.evolve(Preparation(hostname="changed", wall_clock_ns=1), **bad))
    assert caught.value.code == "BAD_REQUEST"
    assert next(iter(bad)) in caught.value.message
    assert (await client.prepare(Preparation())).hostname == "unnamed"


@pytest.mark.parametrize("hostname", ["a", "vm-0123456789ab", "Host_1.example", "x" * 64])
async def test_a_hostname_may_be(client: AgentClient, hostname: str) -> None:
    assert (await client.prepare(Preparation(hostname=hostname))).hostname == hostname


async def test_the_environment_is_that_of_commands_that_start_later(client: AgentClient) -> None:
    await client.prepare(Preparation(environment={"COLOUR": "green", "SHAPE": "round"}))
    await client.prepare(Preparation(environment={"SHAPE": "square"}))
    found = await environment_of(client, COLOUR="blue")
    assert (found["COLOUR"], found["SHAPE"]) == ("blue", "square")
    assert (await environment_of(client))["COLOUR"] == "green"
    assert found["PATH"]


async def test_what_is_plugged_in_later_is_waited_for_while_all_else_goes_on(
    client: AgentClient, plugged: trio.Path
) -> None:
    reports = []

    async def prepare() -> None:
        reports.append(await client.prepare(Preparation(vcpus=3, memory_mib=512)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(prepare)
        await trio.testing.wait_all_tasks_blocked()
        await client.ping()
        assert (await client.prepare(Preparation(hostname="other"))).hostname == "other"
        for now_plugged in ("1 4", "3 4"):
            assert reports == []
            script = f"echo {now_plugged} > {plugged}.new; mv {plugged}.new {plugged}"
            await collect(await client.start_command(CommandSpec(argv=["sh", "-c", script])))
    assert (reports[0].cpus_online, reports[0].memory_online_mib) == (3, 512)


async def test_a_preparation_that_is_cancelled_is_forgotten(client: AgentClient, plugged: trio.Path) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.prepare, Preparation(vcpus=2))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await client.ping()
    await plugged.write_text("2 1")
    assert (await client.prepare(Preparation())).cpus_online == 1


class TestLimit:
    @pytest.fixture
    def preparation_limit_ms(self) -> int:
        return 20

    @pytest.mark.parametrize(
        ("there", "found"), [("2 1", "2 CPUs and 128 MiB are online"), ("0 0", "cpu7: Device or resource busy")]
    )
    async def test_what_never_comes_is_an_error_that_says_what_is_there(
        self, client: AgentClient, plugged: trio.Path, there: str, found: str
    ) -> None:
        await plugged.write_text(there)
        with pytest.raises(AgentRequestError, match="ETIMEDOUT") as caught:
            await client.prepare(Preparation(hostname="vm-1", vcpus=3, memory_mib=256))
        assert found in caught.value.message
        assert "3 CPUs and 256 MiB were requested" in caught.value.message
        assert (await client.prepare(Preparation())).hostname == "vm-1"
