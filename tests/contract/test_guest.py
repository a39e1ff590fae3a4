"""What a ready VM's guest does for its host."""

from __future__ import annotations

import errno
import signal
import uuid

import attrs
import pytest
import trio
import trio.testing

from tests.agents import collect
from tests.contract.subjects import BOOT_LIMIT_S, Subject
from vmm.contract import Agent, Vm
from vmm.errors import AgentRequestError
from vmm.words.commands import MAX_GIVEN_STDIN, CommandExit, CommandSpec, Output, OutputStream
from vmm.words.preparation import Preparation


@attrs.frozen(kw_only=True)
class Ran:
    """A command's whole output and its end."""

    stdout: bytes
    stderr: bytes
    end: CommandExit


async def run(agent: Agent, *argv: str, stdin: bytes = b"", **how: object) -> Ran:
    command = await agent.start_command(CommandSpec(argv=argv, **how))  # type: ignore[arg-type]
    written: dict[OutputStream, bytes] = dict.fromkeys(OutputStream, b"")
    try:
        async with trio.open_nursery() as nursery:

            async def feed() -> None:
                await command.send_stdin(stdin)
                await command.close_stdin()

            nursery.start_soon(feed)
            async for event in command.events():
                if isinstance(event, CommandExit):
                    return Ran(stdout=written[OutputStream.STDOUT], stderr=written[OutputStream.STDERR], end=event)
                written[event.stream] += event.data
    finally:
        await command.aclose()
    raise AssertionError("the last event is the exit")


async def test_a_launched_vm_is_ready(vm: Vm) -> None:
    info = await vm.agent.ping()
    assert info.agent_version >= 1
    assert info.kernel_release


async def test_preparation_is_reported_as_seen_from_inside(vm: Vm) -> None:
    now_ns = 1_900_000_000 * 10**9
    report = await vm.agent.prepare(Preparation(entropy=bytes(512), wall_clock_ns=now_ns, hostname="mine"))
    assert report.reseeded
    assert report.hostname == "mine"
    assert 0 <= report.wall_clock_ns - now_ns < 60 * 10**9
    assert report.cpus_online == 1
    assert 100 <= report.memory_mib <= 256


async def test_preparation_leaves_alone_what_it_does_not_name(vm: Vm) -> None:
    before = await vm.agent.prepare(Preparation(hostname="kept"))
    after = await vm.agent.prepare(Preparation())
    assert (after.hostname, after.reseeded) == ("kept", False)
    assert after.wall_clock_ns >= before.wall_clock_ns


async def test_identity_is_seen_from_inside(vm: Vm) -> None:
    machine_id, vm_uuid = uuid.uuid4().hex, str(uuid.uuid4())
    report = await vm.agent.prepare(Preparation(machine_id=machine_id, vm_uuid=vm_uuid))
    assert (report.machine_id, report.vm_uuid) == (machine_id, vm_uuid)
    assert (await run(vm.agent, "cat", "/etc/machine-id")).stdout.decode() == f"{machine_id}\n"
    assert (await run(vm.agent, "cat", "/sys/class/dmi/id/product_uuid")).stdout.decode() == f"{vm_uuid}\n"
    again = await vm.agent.prepare(Preparation())
    assert (again.machine_id, again.vm_uuid) == ("", "")


async def test_a_booted_machine_has_its_uuid_from_the_start(subject: Subject, nursery: trio.Nursery) -> None:
    with trio.fail_after(BOOT_LIMIT_S):
        vm = await subject.launch("booted", nursery)
    try:
        assert (await run(vm.agent, "cat", "/sys/class/dmi/id/product_uuid")).stdout.decode() == f"{vm.uuid}\n"
    finally:
        await vm.stop()


async def test_random_bytes_are_drawn_anew_each_time(vm: Vm) -> None:
    wanted = [Preparation(entropy=bytes(512), random_bytes=32), Preparation(random_bytes=32), Preparation()]
    drawn = [(await vm.agent.prepare(preparation)).random for preparation in wanted]
    assert [len(random) for random in drawn] == [32, 32, 0]
    assert drawn[0] != drawn[1]


async def test_the_vms_environment_is_below_the_commands(vm: Vm) -> None:
    await vm.agent.prepare(Preparation(environment={"SHAPE": "round", "TASTE": "sweet"}))
    lines = (await run(vm.agent, "env", environment={"TASTE": "bitter"})).stdout.decode().splitlines()
    assert {"SHAPE=round", "TASTE=bitter"} <= set(lines)


async def test_output_and_exit_status_of_a_command(vm: Vm) -> None:
    ran = await run(vm.agent, "echo", "hello,", "guest")
    assert ran == Ran(stdout=b"hello, guest\n", stderr=b"", end=CommandExit(status=0))
    assert (await run(vm.agent, "false")).end == CommandExit(status=1)


async def test_stderr_is_a_stream_of_its_own(vm: Vm) -> None:
    ran = await run(vm.agent, "cat", "/absent")
    assert ran.stdout == b""
    assert b"No such file or directory" in ran.stderr
    assert ran.end == CommandExit(status=1)


async def test_stdin_goes_in_whole_until_it_is_closed(vm: Vm) -> None:
    data = bytes(range(256)) * 2048
    ran = await run(vm.agent, "cat", stdin=data)
    assert ran == Ran(stdout=data, stderr=b"", end=CommandExit(status=0))


async def test_stdin_may_come_with_the_start(vm: Vm) -> None:
    data = bytes(range(256)) * (MAX_GIVEN_STDIN // 256)
    command = await vm.agent.start_command(CommandSpec(argv=["cat"], stdin=data))
    outcome = await collect(command)
    assert (outcome.stdout, outcome.exit) == (data, CommandExit(status=0))
    with pytest.raises(ValueError, match="stdin"):
        CommandSpec(argv=["cat"], stdin=data + b"more")


async def test_stdin_of_a_command_that_does_not_read_is_ignored_once_it_ended(vm: Vm) -> None:
    command = await vm.agent.start_command(CommandSpec(argv=["true"]))
    assert [event async for event in command.events()] == [CommandExit(status=0)]
    await command.send_stdin(b"too late")
    await command.close_stdin()
    await command.send_signal(signal.SIGTERM)
    await command.aclose()


async def test_environment_and_working_directory(vm: Vm) -> None:
    lines = (await run(vm.agent, "env", environment={"COLOUR": "grün"})).stdout.decode().splitlines()
    assert "COLOUR=grün" in lines
    assert any(line.startswith("PATH=/") for line in lines)
    assert (await run(vm.agent, "pwd", working_directory="/tmp")).stdout == b"/tmp\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
async def test_a_command_dies_of_a_signal(vm: Vm, number: signal.Signals) -> None:
    command = await vm.agent.start_command(CommandSpec(argv=["sleep", "1000"]))
    await command.send_signal(number)
    assert [event async for event in command.events()] == [CommandExit(signal=number)]
    await command.aclose()


async def test_a_time_limit_kills(vm: Vm) -> None:
    ran = await run(vm.agent, "sleep", "1000", time_limit_s=0.05)
    assert ran.end == CommandExit(signal=signal.SIGKILL, timed_out=True)


async def test_a_flood_of_output_waits_for_its_reader_and_ends_with_its_command(vm: Vm) -> None:
    flood = await vm.agent.start_command(CommandSpec(argv=["yes"]))
    events = flood.events()
    first = await anext(events)
    assert isinstance(first, Output)
    assert first.data.startswith(b"y\ny\n")
    assert (await run(vm.agent, "echo", "meanwhile")).stdout == b"meanwhile\n"
    await flood.aclose()
    await flood.aclose()
    assert await vm.agent.ping()


async def test_commands_run_side_by_side(vm: Vm) -> None:
    results: dict[str, Ran] = {}

    async def run_one(word: str) -> None:
        results[word] = await run(vm.agent, "cat", stdin=word.encode())

    async with trio.open_nursery() as nursery:
        for word in ("one", "two", "three"):
            nursery.start_soon(run_one, word)
    assert {word: ran.stdout.decode() for word, ran in results.items()} == {word: word for word in results}


async def test_what_cannot_be_started_is_refused(vm: Vm) -> None:
    with pytest.raises(AgentRequestError) as caught:
        await vm.agent.start_command(CommandSpec(argv=["/no/such/program"]))
    assert (caught.value.code, caught.value.part) == ("ENOENT", "program")
    with pytest.raises(AgentRequestError) as caught:
        await vm.agent.start_command(CommandSpec(argv=["true"], working_directory="/no/such/directory"))
    assert (caught.value.code, caught.value.part) == ("ENOENT", "working_directory")


@pytest.mark.parametrize("size", [0, 1, 200_000])
async def test_files_go_in_and_come_back(vm: Vm, size: int) -> None:
    data = bytes(number * 31 % 256 for number in range(size))
    await vm.agent.put_file("/tmp/file", b"replaced")
    await vm.agent.put_file("/tmp/file", data, mode=0o600)
    assert await vm.agent.get_file("/tmp/file") == data
    assert (await run(vm.agent, "cat", "/tmp/file")).stdout == data


async def test_a_file_that_is_not_there(vm: Vm) -> None:
    for attempt in (vm.agent.get_file("/absent"), vm.agent.put_file("/no/such/directory/file", b"")):
        with pytest.raises(AgentRequestError) as caught:
            await attempt
        assert caught.value.code == errno.errorcode[errno.ENOENT]


async def test_a_cancelled_request_leaves_the_agent_usable(vm: Vm) -> None:
    await vm.pause()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(vm.agent.ping)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    await vm.resume()
    assert await vm.agent.ping()
