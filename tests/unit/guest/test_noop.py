"""A guest without an agent is asked nothing, and nobody is told that it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from vmm.errors import AgentRequestError, AgentUnreachableError
from vmm.guest.noop import NoopAgent
from vmm.words.commands import CommandSpec
from vmm.words.preparation import GuestInfo, Preparation


async def never() -> None:
    raise AssertionError("nobody has to look at the guest for this")


async def test_whether_the_guest_is_there_is_seen_from_outside() -> None:
    looked = 0

    async def look() -> None:
        nonlocal looked
        looked += 1
        if looked > 1:
            raise AgentUnreachableError("it is dead")

    agent = NoopAgent(look=look)
    assert await agent.ping() == GuestInfo(agent_version=0, kernel_release="")
    with pytest.raises(AgentUnreachableError, match="it is dead"):
        await agent.ping()


async def test_what_every_hand_out_asks_is_not_done_and_reported_as_not_done() -> None:
    report = await NoopAgent(look=never).prepare(
        Preparation(entropy=bytes(512), wall_clock_ns=1, hostname="mine", machine_id="0" * 32, vm_uuid="x")
    )
    assert not report.reseeded
    assert (report.hostname, report.machine_id, report.vm_uuid, report.wall_clock_ns) == ("", "", "", 0)
    assert (report.cpus_online, report.memory_mib, report.memory_online_mib) == (0, 0, None)


@pytest.mark.parametrize(
    "ask",
    [
        lambda agent: agent.start_command(CommandSpec(argv=["true"])),
        lambda agent: agent.put_file("/file", b""),
        lambda agent: agent.get_file("/file"),
        lambda agent: agent.prepare(Preparation(vcpus=2)),
        lambda agent: agent.prepare(Preparation(memory_mib=512)),
        lambda agent: agent.prepare(Preparation(environment={"A": "B"})),
    ],
)
async def test_what_a_caller_would_rely_on_is_refused_with_a_way_out(
    ask: Callable[[NoopAgent], Awaitable[object]],
) -> None:
    with pytest.raises(AgentRequestError, match=r'agent = "noop"; run qemu-guest-agent .* set agent = "qga"') as caught:
        await ask(NoopAgent(look=never))
    assert caught.value.code == "UNSUPPORTED"
