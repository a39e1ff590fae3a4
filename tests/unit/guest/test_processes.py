"""Processes that belong to no session: the agent's side, with real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from tests.agents import LocalAgent, Narrow, collect
from vmm.contract.processes import AttachedProcess
from vmm.errors import AgentRequestError
from vmm.guest.agent import wire
from vmm.guest.client import AgentClient
from vmm.words.commands import CommandExit, CommandSpec, OutputStream, ResourceLimit
from vmm.words.guest_processes import KEPT_BYTES, MAX_ENDED, Positions, ProcessInfo, ProcessOutput, ProcessRef

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the agent has to be root to become another user")


def shell(script: str, **options: Any) -> CommandSpec:
    return CommandSpec(argv=["sh", "-c", script], **options)


def ref(info: ProcessInfo) -> ProcessRef:
    return ProcessRef(process_id=info.process_id)


async def until_said(attached: AttachedProcess, wanted: bytes) -> None:
    seen = b""
    async for event in attached.events():
        assert isinstance(event, ProcessOutput), f"it ended with {event}, having said {seen!r}"
        seen += event.data
        if wanted in seen:
            return


@pytest.fixture
async def client(client: AgentClient, local_agent: LocalAgent) -> AsyncIterator[AgentClient]:
    """On the host nobody else ends what belongs to no session."""
    yield client
    for child in psutil.Process(local_agent.process.pid).children(recursive=True):
        child.kill()


async def test_streams_are_kept_apart(client: AgentClient) -> None:
    info = await client.processes.start(shell("echo out; echo err >&2; exit 3"))
    assert await client.processes.wait(ref(info)) == CommandExit(status=3)
    attached = await client.processes.attach(ref(info), positions=Positions())
    events = [event async for event in attached.events()]
    await attached.aclose()
    assert events[-1] == CommandExit(status=3)
    assert {(event.stream, event.position, event.data) for event in events if isinstance(event, ProcessOutput)} == {
        (OutputStream.STDOUT, 0, b"out\n"),
        (OutputStream.STDERR, 0, b"err\n"),
    }


async def test_stdin_that_comes_with_the_start_is_all_there_is(client: AgentClient) -> None:
    data = bytes(range(256)) * (wire.WINDOW // 256)
    info = await client.processes.start(CommandSpec(argv=["cat"], stdin=data))
    assert await client.processes.wait(ref(info)) == CommandExit(status=0)
    attached = await client.processes.attach(ref(info), positions=Positions())
    pieces = [event.data async for event in attached.events() if isinstance(event, ProcessOutput)]
    await attached.aclose()
    assert b"".join(pieces) == data


async def test_a_hundred_at_once_cost_little(client: AgentClient, local_agent: LocalAgent) -> None:
    before = local_agent.resident_kib("VmRSS")
    started = [await client.processes.start(shell(f"echo {number}; exec sleep 1000")) for number in range(100)]
    listed = await client.processes.list()
    assert [info.process_id for info in listed] == [info.process_id for info in started]
    for info in started:
        await client.processes.send_signal(ref(info), signal.SIGTERM)
    for number, info in enumerate(started):
        assert await client.processes.wait(ref(info)) == CommandExit(signal=signal.SIGTERM)
        attached = await client.processes.attach(ref(info), positions=Positions())
        assert await anext(attached.events()) == ProcessOutput(
            stream=OutputStream.STDOUT, position=0, data=b"%d\n" % number
        )
        await attached.aclose()
    assert local_agent.resident_kib("VmRSS") - before < 8 * 1024


async def test_what_has_ended_is_kept_for_a_while(client: AgentClient) -> None:
    first = await client.processes.start(CommandSpec(argv=["true"]), tag="first")
    await client.processes.wait(ref(first))
    for _ in range(MAX_ENDED):
        await client.processes.wait(ref(await client.processes.start(CommandSpec(argv=["true"]))))
    listed = await client.processes.list()
    assert len(listed) == MAX_ENDED
    assert first.process_id not in [info.process_id for info in listed]
    with pytest.raises(AgentRequestError, match="no process"):
        await client.processes.wait(ProcessRef(tag="first"))


async def test_a_process_ends_with_a_start_that_is_given_up(client: AgentClient, nursery: trio.Nursery) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.processes.start(CommandSpec(argv=["sleep", "1000"]), tag="given up")
    assert "given up" not in [info.tag for info in await client.processes.list()]
    again = await client.processes.start(CommandSpec(argv=["true"]), tag="given up")
    assert await client.processes.wait(ref(again)) == CommandExit(status=0)


async def test_input_waits_until_it_is_read(client: AgentClient, tmp_path: Path) -> None:
    waiting = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; cat > /dev/null"
    info = await client.processes.start(shell(waiting))
    with trio.move_on_after(0.2) as scope:
        await client.processes.send_input(ref(info), b"stop" * 65536)
    assert scope.cancelled_caught, "a pipe holds less"
    (tmp_path / "go").touch()
    await client.processes.send_input(ref(info), b"go" * 65536, close=True)
    assert await client.processes.wait(ref(info)) == CommandExit(status=0)


async def test_input_that_is_given_up_leaves_nothing_in_the_agent(client: AgentClient, local_agent: LocalAgent) -> None:
    info = await client.processes.start(CommandSpec(argv=["sleep", "1000"]))
    before = local_agent.resident_kib("VmRSS")
    for _ in range(100):
        with trio.move_on_after(0.01):
            await client.processes.send_input(ref(info), bytes(wire.WINDOW))
        attached = await client.processes.attach(ref(info))
        with trio.move_on_after(0.01):
            await attached.send_stdin(bytes(2 * wire.WINDOW))
        await attached.aclose()
    assert local_agent.resident_kib("VmRSS") - before < 8 * 1024


async def test_input_to_who_does_not_read_is_refused(client: AgentClient) -> None:
    info = await client.processes.start(shell("exec <&-; echo closed; exec sleep 1000"))
    attached = await client.processes.attach(ref(info), positions=Positions())
    await until_said(attached, b"closed")
    with pytest.raises(AgentRequestError) as refused:
        await client.processes.send_input(ref(info), b"x")
    assert refused.value.code == "EPIPE"
    with pytest.raises(AgentRequestError) as refused:
        await client.processes.send_input(ref(info), b"x")
    assert refused.value.code == "EPIPE"
    await attached.aclose()


async def test_input_larger_than_a_request_arrives_whole(client: AgentClient) -> None:
    info = await client.processes.start(CommandSpec(argv=["wc", "-c"]))
    await client.processes.send_input(ref(info), bytes(3 * wire.WINDOW + 1), close=True)
    attached = await client.processes.attach(ref(info), positions=Positions())
    await until_said(attached, b"%d" % (3 * wire.WINDOW + 1))
    await attached.aclose()


async def test_several_follow_at_their_own_pace(client: AgentClient, nursery: trio.Nursery) -> None:
    size = 3 * 2**20
    info = await client.processes.start(shell(f"read go; head -c {size} /dev/zero"))
    slow = await client.processes.attach(ref(info), positions=Positions(), room=Narrow())
    fast = await client.processes.attach(ref(info), positions=Positions())
    await client.processes.send_input(ref(info), b"\n")
    pieces = [event async for event in fast.events() if isinstance(event, ProcessOutput)]
    assert pieces[-1].position + len(pieces[-1].data) == size
    position = lost = 0
    async for event in slow.events():
        if isinstance(event, ProcessOutput):
            lost += event.position - position
            position = event.position + len(event.data)
    assert position == size
    assert lost >= size - KEPT_BYTES - 3 * Narrow.window, "it has its windows, and what is kept"
    await slow.aclose()
    await fast.aclose()


async def test_a_follower_that_leaves_amid_gaps_leaves_a_sound_connection(client: AgentClient) -> None:
    info = await client.processes.start(CommandSpec(argv=["yes"]), keep=5000)
    for _ in range(20):
        attached = await client.processes.attach(ref(info), positions=Positions(), room=Narrow())
        async for event in attached.events():
            assert isinstance(event, ProcessOutput)
            if event.position > 0:
                break
        await attached.aclose()
        await client.ping()


async def test_an_unread_process_delays_nobody(client: AgentClient) -> None:
    busy = [await client.processes.start(CommandSpec(argv=["yes"])) for _ in range(4)]
    for number in range(20):
        outcome = await collect(await client.start_command(shell(f"echo {number}")))
        assert outcome.stdout == b"%d\n" % number
    for info in busy:
        await client.processes.send_signal(ref(info), signal.SIGKILL)
        assert await client.processes.wait(ref(info)) == CommandExit(signal=signal.SIGKILL)


async def test_a_time_limit_goes_for_them_too(client: AgentClient) -> None:
    info = await client.processes.start(shell("sleep 1000 & sleep 1000", time_limit_s=0.05))
    assert await client.processes.wait(ref(info)) == CommandExit(signal=signal.SIGKILL, timed_out=True)


async def test_long_arguments_are_shown_cut(client: AgentClient) -> None:
    info = await client.processes.start(CommandSpec(argv=["true", "x" * 100_000, "y"]))
    assert info.argv == ("true", "x" * (1024 - 5) + "...")


async def test_tags_are_bounded(client: AgentClient) -> None:
    with pytest.raises(AgentRequestError) as refused:
        await client.processes.start(CommandSpec(argv=["true"]), tag="ü" * 65)
    assert (refused.value.code, refused.value.part) == ("BAD_REQUEST", "tag")


@needs_root
async def test_a_user_has_its_numbers_and_groups(client: AgentClient) -> None:
    outcome = await collect(await client.start_command(shell("id -u; id -G", user="nobody")))
    assert outcome.stdout.split()[0] == b"65534"
    outcome = await collect(await client.start_command(shell("id -u; id -g; id -G", user="12345", groups=("77", "88"))))
    assert outcome.stdout.decode().split("\n")[:3] == ["12345", "77", "77 88"]


@needs_root
async def test_a_user_has_no_rights_of_root(client: AgentClient) -> None:
    outcome = await collect(await client.start_command(shell("cat /etc/shadow; kill -0 1; echo $?", user="nobody")))
    assert outcome.stdout == b"1\n"
    assert b"Permission denied" in outcome.stderr


async def test_limits_hold(client: AgentClient) -> None:
    limits = (ResourceLimit(name="nofile", soft=50, hard=60), ResourceLimit(name="core", soft=0, hard=0))
    outcome = await collect(await client.start_command(shell("ulimit -n; ulimit -Hn; ulimit -c", limits=limits)))
    assert outcome.stdout.split() == [b"50", b"60", b"0"]


@pytest.mark.parametrize(
    ("spec", "code", "part"),
    [
        (CommandSpec(argv=["/no/such/program"]), "ENOENT", "program"),
        (CommandSpec(argv=["/etc/passwd"]), "EACCES", "program"),
        (CommandSpec(argv=["true", "x" * 200_000]), "E2BIG", "program"),
        (CommandSpec(argv=["true"], working_directory="/no/such"), "ENOENT", "working_directory"),
        (CommandSpec(argv=["nul\0byte"]), "BAD_REQUEST", ""),
        (CommandSpec(argv=["true"], environment={"A=B": "c"}), "BAD_REQUEST", ""),
    ],
)
async def test_what_takes_a_fork_is_refused_in_the_same_words(
    client: AgentClient, spec: CommandSpec, code: str, part: str
) -> None:
    limits = (ResourceLimit(name="core", soft=0, hard=0),)
    with pytest.raises(AgentRequestError) as plain:
        await client.start_command(spec)
    with pytest.raises(AgentRequestError) as forked:
        await client.start_command(
            CommandSpec(
                argv=spec.argv,
                environment=spec.environment,
                working_directory=spec.working_directory,
                limits=limits,
            )
        )
    assert (forked.value.code, forked.value.part, forked.value.message) == (code, part, plain.value.message)


async def test_a_forked_program_has_default_signal_dispositions(client: AgentClient) -> None:
    limits = (ResourceLimit(name="core", soft=0, hard=0),)
    outcome = await collect(
        await client.start_command(shell("grep -E 'Sig(Ign|Blk)' /proc/self/status", limits=limits))
    )
    assert [int(line.split()[1], 16) for line in outcome.stdout.splitlines()] == [0, 0]


async def test_a_process_has_no_descriptors_of_the_agent(client: AgentClient) -> None:
    limits = (ResourceLimit(name="core", soft=0, hard=0),)
    for options in ({}, {"limits": limits}):
        outcome = await collect(await client.start_command(shell("ls /proc/$$/fd", **options)))
        assert outcome.stdout.split() == [b"0", b"1", b"2"]
