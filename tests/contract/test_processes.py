"""Processes that outlive their caller, other users, and terminals: the same over each VM."""

from __future__ import annotations

import contextlib
import signal

import pytest
import trio

from tests.agents import collect
from tests.contract.subjects import BOOT_LIMIT_S, Subject
from tests.contract.test_guest import run
from vmm.contract import Vm
from vmm.contract.processes import AttachedProcess
from vmm.errors import AgentRequestError
from vmm.words.commands import CommandExit, CommandSpec, OutputStream, ResourceLimit, Terminal, TerminalSize
from vmm.words.guest_processes import KEPT_BYTES, Positions, ProcessOutput, ProcessRef

BEGINNING = Positions()


async def everything(attached: AttachedProcess) -> tuple[dict[OutputStream, bytes], CommandExit]:
    """All output to the end, which has no gaps, and the exit."""
    seen: dict[OutputStream, bytes] = dict.fromkeys(OutputStream, b"")
    try:
        async for event in attached.events():
            if isinstance(event, CommandExit):
                return seen, event
            assert event.position == len(seen[event.stream])
            seen[event.stream] += event.data
    finally:
        await attached.aclose()
    raise AssertionError("the last event is the exit")


async def kill_all(vm: Vm) -> None:
    for info in await vm.agent.processes.list():
        if info.exit is None:
            with contextlib.suppress(AgentRequestError):
                await vm.agent.processes.send_signal(ProcessRef(process_id=info.process_id), signal.SIGKILL)
                await vm.agent.processes.wait(ProcessRef(process_id=info.process_id))


async def test_a_process_is_listed_while_it_runs_and_after_its_end(vm: Vm) -> None:
    processes = vm.agent.processes
    spec = CommandSpec(argv=["cat"], working_directory="/tmp")
    info = await processes.start(spec, tag="listed")
    assert (info.tag, info.argv, info.working_directory, info.attached) == ("listed", ("cat",), "/tmp", False)
    assert (info.exit, info.user, info.terminal, info.pid > 0) == (None, "", False, True)
    assert info in await processes.list()
    ref = ProcessRef(process_id=info.process_id)
    await processes.send_input(ref, b"1234567", close=True)
    assert await processes.wait(ref) == CommandExit(status=0)
    (after,) = [other for other in await processes.list() if other.process_id == info.process_id]
    assert (after.exit, after.stdout_end, after.stdout_kept_from) == (CommandExit(status=0), 7, 0)
    await processes.forget(ref)
    assert info.process_id not in [other.process_id for other in await processes.list()]


async def test_numbers_go_up_and_are_not_used_again(vm: Vm) -> None:
    first = await vm.agent.processes.start(CommandSpec(argv=["true"]))
    await vm.agent.processes.wait(ProcessRef(process_id=first.process_id))
    await vm.agent.processes.forget(ProcessRef(process_id=first.process_id))
    command = await vm.agent.start_command(CommandSpec(argv=["true"]))
    assert command.process_id > first.process_id
    assert command.pid > 0
    await collect(command)
    second = await vm.agent.processes.start(CommandSpec(argv=["true"]))
    assert second.process_id > command.process_id


async def test_a_command_is_listed_as_its_callers(vm: Vm) -> None:
    command = await vm.agent.start_command(CommandSpec(argv=["sleep", "1000"]))
    (info,) = [other for other in await vm.agent.processes.list() if other.process_id == command.process_id]
    assert (info.attached, info.pid, info.argv) == (True, command.pid, ("sleep", "1000"))
    with pytest.raises(AgentRequestError) as refused:
        await vm.agent.processes.attach(ProcessRef(process_id=info.process_id))
    assert refused.value.code == "ESRCH"
    await vm.agent.processes.send_signal(ProcessRef(process_id=info.process_id), signal.SIGTERM)
    assert (await collect(command)).exit == CommandExit(signal=signal.SIGTERM)


async def test_who_comes_later_gets_what_was_kept_and_what_follows(vm: Vm) -> None:
    processes = vm.agent.processes
    info = await processes.start(CommandSpec(argv=["cat"]))
    ref = ProcessRef(process_id=info.process_id)
    await processes.send_input(ref, b"early ")
    early = await processes.attach(ref, positions=BEGINNING)
    async for event in early.events():
        assert event == ProcessOutput(stream=OutputStream.STDOUT, position=0, data=b"early ")
        break
    await early.aclose()
    assert (await processes.list())[-1].exit is None, "who leaves leaves the process alone"
    late = await processes.attach(ref)
    assert late.info.stdout_end == 6
    await late.send_stdin(b"late")
    await late.close_stdin()
    assert [event async for event in late.events()] == [
        ProcessOutput(stream=OutputStream.STDOUT, position=6, data=b"late"),
        CommandExit(status=0),
    ]
    await late.aclose()
    seen, _ = await everything(await processes.attach(ref, positions=BEGINNING))
    assert seen[OutputStream.STDOUT] == b"early late"
    middle = await processes.attach(ref, positions=Positions(stdout=8))
    event = await anext(middle.events())
    assert event == ProcessOutput(stream=OutputStream.STDOUT, position=8, data=b"te")
    await middle.aclose()


async def test_a_process_does_not_wait_for_readers_and_the_gap_is_told(vm: Vm) -> None:
    processes = vm.agent.processes
    info = await processes.start(CommandSpec(argv=["cat"]), keep=1000)
    ref = ProcessRef(process_id=info.process_id)
    data = bytes(range(256)) * 1024
    for _ in range(4):
        await processes.send_input(ref, data)
    await processes.send_input(ref, b"", close=True)
    assert await processes.wait(ref) == CommandExit(status=0)
    follower = await processes.attach(ref, positions=BEGINNING)
    pieces = [event async for event in follower.events() if isinstance(event, ProcessOutput)]
    await follower.aclose()
    assert pieces[0].position == 2**20 - 1000
    assert b"".join(piece.data for piece in pieces) == data[-1000:]


async def test_a_mebibyte_is_kept_unless_less_is_asked_for(vm: Vm) -> None:
    processes = vm.agent.processes
    info = await processes.start(CommandSpec(argv=["yes"]), tag="yes")
    follower = await processes.attach(ProcessRef(tag="yes"))
    async for event in follower.events():
        assert isinstance(event, ProcessOutput)
        if event.position > 2 * KEPT_BYTES:
            break
    await follower.aclose()
    await processes.send_signal(ProcessRef(tag="yes"), signal.SIGKILL)
    assert await processes.wait(ProcessRef(tag="yes")) == CommandExit(signal=signal.SIGKILL)
    (after,) = [other for other in await processes.list() if other.process_id == info.process_id]
    assert after.stdout_end - after.stdout_kept_from == KEPT_BYTES
    await processes.forget(ProcessRef(tag="yes"))


async def test_of_running_processes_one_has_a_tag(vm: Vm) -> None:
    processes = vm.agent.processes
    first = await processes.start(CommandSpec(argv=["sleep", "1000"]), tag="one")
    with pytest.raises(AgentRequestError) as refused:
        await processes.start(CommandSpec(argv=["true"]), tag="one")
    assert refused.value.code == "EEXIST"
    await processes.send_signal(ProcessRef(tag="one"), signal.SIGTERM)
    assert await processes.wait(ProcessRef(tag="one")) == CommandExit(signal=signal.SIGTERM)
    second = await processes.start(CommandSpec(argv=["true"]), tag="one")
    assert await processes.wait(ProcessRef(tag="one")) == CommandExit(status=0)
    assert second.process_id > first.process_id


@pytest.mark.parametrize("which", [ProcessRef(process_id=4711), ProcessRef(tag="nobody")])
async def test_what_is_not_there_is_refused(vm: Vm, which: ProcessRef) -> None:
    processes = vm.agent.processes
    for attempt in (
        lambda: processes.attach(which),
        lambda: processes.wait(which),
        lambda: processes.send_input(which, b"x"),
        lambda: processes.send_signal(which, signal.SIGTERM),
        lambda: processes.resize(which, TerminalSize()),
        lambda: processes.forget(which),
    ):
        with pytest.raises(AgentRequestError) as refused:
            await attempt()
        assert refused.value.code == "ESRCH"


async def test_what_a_running_process_does_not_have_is_refused(vm: Vm) -> None:
    processes = vm.agent.processes
    info = await processes.start(CommandSpec(argv=["sleep", "1000"], stdin=b""))
    ref = ProcessRef(process_id=info.process_id)
    with pytest.raises(AgentRequestError) as no_stdin:
        await processes.send_input(ref, b"x")
    with pytest.raises(AgentRequestError) as no_terminal:
        await processes.resize(ref, TerminalSize())
    with pytest.raises(AgentRequestError) as runs:
        await processes.forget(ref)
    assert (no_stdin.value.code, no_terminal.value.code, runs.value.code) == ("EPIPE", "ENOTTY", "EBUSY")
    await processes.send_signal(ref, signal.SIGKILL, everything=True)
    await processes.wait(ref)
    with pytest.raises(AgentRequestError) as refused:
        await processes.send_signal(ref, signal.SIGKILL)
    assert refused.value.code == "ESRCH"


async def test_a_wait_that_is_given_up_leaves_the_process_alone(vm: Vm) -> None:
    info = await vm.agent.processes.start(CommandSpec(argv=["sleep", "1000"]))
    ref = ProcessRef(process_id=info.process_id)
    with trio.move_on_after(0.2) as scope:
        await vm.agent.processes.wait(ref)
    assert scope.cancelled_caught
    assert (await vm.agent.processes.list())[-1].exit is None
    await kill_all(vm)


async def test_processes_survive_the_service(subject: Subject, nursery: trio.Nursery) -> None:
    with trio.fail_after(BOOT_LIMIT_S):
        vm = await subject.clone("handed-over", nursery)
        info = await vm.agent.processes.start(CommandSpec(argv=["cat"]), tag="cat")
        await vm.agent.processes.send_input(ProcessRef(tag="cat"), b"before ")
        vm = await subject.change_hands(vm, nursery)
    try:
        assert [other.process_id for other in await vm.agent.processes.list()] == [info.process_id]
        await vm.agent.processes.send_input(ProcessRef(tag="cat"), b"after", close=True)
        seen, end = await everything(await vm.agent.processes.attach(ProcessRef(tag="cat"), positions=BEGINNING))
        assert (seen[OutputStream.STDOUT], end) == (b"before after", CommandExit(status=0))
        assert (await vm.agent.processes.start(CommandSpec(argv=["true"]))).process_id > info.process_id
    finally:
        await vm.stop()


async def test_a_user_finds_its_home(vm: Vm) -> None:
    ran = await run(vm.agent, "env", user="user")
    assert {"HOME=/home/user", "USER=user", "LOGNAME=user"} <= set(ran.stdout.decode().splitlines())
    assert (await run(vm.agent, "pwd", user="1000")).stdout == b"/home/user\n"
    assert (await run(vm.agent, "pwd", user="user", working_directory="/tmp")).stdout == b"/tmp\n"
    info = await vm.agent.processes.start(CommandSpec(argv=["true"], user="user"))
    assert (info.user, info.working_directory) == ("user", "/home/user")


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        (CommandSpec(argv=["true"], user="nobody-there"), "user"),
        (CommandSpec(argv=["true"], groups=("tty", "no-such")), "groups"),
        (CommandSpec(argv=["true"], limits=(ResourceLimit(name="nofile", soft=20, hard=10),)), "limits"),
    ],
)
async def test_what_the_guest_does_not_have_is_refused_by_its_part(vm: Vm, spec: CommandSpec, part: str) -> None:
    for attempt in (vm.agent.start_command, vm.agent.processes.start):
        with pytest.raises(AgentRequestError) as refused:
            await attempt(spec)
        assert (refused.value.code, refused.value.part) == ("EINVAL", part)


async def test_a_terminal_has_the_size_that_it_was_given(vm: Vm) -> None:
    ran = await run(vm.agent, "stty", "size", terminal=Terminal(size=TerminalSize(rows=33, columns=111)))
    assert ran.stdout.split() == [b"33", b"111"]
    ran = await run(vm.agent, "env", terminal=Terminal(term="linux"))
    assert b"TERM=linux" in ran.stdout.split()


async def test_a_terminal_can_be_resized_by_each_of_its_holders(vm: Vm) -> None:
    command = await vm.agent.start_command(CommandSpec(argv=["sleep", "1000"], terminal=Terminal()))
    await command.resize(TerminalSize(rows=1, columns=2))
    await vm.agent.processes.resize(ProcessRef(process_id=command.process_id), TerminalSize(rows=3, columns=4))
    await command.aclose()
    plain = await vm.agent.start_command(CommandSpec(argv=["sleep", "1000"]))
    with pytest.raises(AgentRequestError) as refused:
        await plain.resize(TerminalSize())
    assert refused.value.code == "ENOTTY"
    await plain.aclose()
