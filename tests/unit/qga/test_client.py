"""qemu-ga's client against a qemu-ga in memory."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.agents import Narrow, collect
from tests.unit.qga.fake import FakeProcess, FakeQga, Refused
from tests.virtual_time import in_virtual_time
from vmm.errors import AgentProtocolError, AgentRequestError, AgentUnreachableError, NoRoomError
from vmm.guest.qga.client import QgaClient
from vmm.guest.qga.protocol import MAX_LINE
from vmm.guest.qga.session import ENVIRONMENT_PATH
from vmm.words.commands import CommandExit, CommandSpec, Output, OutputStream, ResourceLimit, Terminal
from vmm.words.preparation import Preparation


@attrs.frozen(kw_only=True)
class Session:
    client: QgaClient
    ours: trio.testing.MemoryReceiveStream
    """What the client reads from."""
    qga: FakeQga
    nursery: trio.Nursery


@asynccontextmanager
async def session() -> AsyncIterator[Session]:
    ours, theirs = trio.testing.memory_stream_pair()
    qga = FakeQga(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(qga.run)
        client = await QgaClient.connect(ours, nursery=nursery)
        qga.heard.clear()
        yield Session(client=client, ours=ours.receive_stream, qga=qga, nursery=nursery)
        await client.aclose()
        nursery.cancel_scope.cancel()


def ends_with(status: int, **output: str) -> Any:
    """A program that ends at once."""

    def end(process: FakeProcess) -> None:
        encoded = {f"{name}-data": base64.b64encode(text.encode()).decode() for name, text in output.items()}
        process.end = {"exitcode": status} | encoded

    return end


@in_virtual_time
async def test_what_was_said_to_another_host_is_not_heard() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b'_data": "rest of a line"}\n{"return": 7}\n\xff{"return": 12345}\n')
    qga = FakeQga(theirs)
    qga.handlers["guest-info"] = lambda _: {"version": "7.2.22"}
    qga.handlers["guest-get-osinfo"] = lambda _: {"kernel-release": "6.1"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(qga.run)
        client = await QgaClient.connect(ours, nursery=nursery)
        info = await client.ping()
        await client.aclose()
        nursery.cancel_scope.cancel()
    assert (info.agent_version, info.kernel_release) == (7, "6.1")


@in_virtual_time
async def test_what_another_host_left_running_is_ended_and_its_environment_goes_on() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    qga = FakeQga(theirs)
    qga.files[ENVIRONMENT_PATH] = b'{"SHAPE": "round"}'
    left = qga.processes[7] = FakeProcess(["sleep", "1000"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(qga.run)
        client = await QgaClient.connect(ours, nursery=nursery)
        await trio.testing.wait_all_tasks_blocked()
        assert left.end == {"signal": signal.SIGKILL}
        assert qga.processes == {}, "qemu-ga was asked until it forgot it: its pid is free for another"
        await client.start_command(CommandSpec(argv=["program"]))
        [process] = qga.processes.values()
        assert "SHAPE=round" in process.environment
        await client.aclose()
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_qemu_ga_that_may_not_execute_programs_has_nothing_to_be_ended() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    qga = FakeQga(theirs)

    def refuse(_: dict[str, Any]) -> None:
        raise Refused("The command guest-exec has been disabled for this instance", error_class="CommandNotFound")

    qga.handlers["guest-exec"] = refuse
    async with trio.open_nursery() as nursery:
        nursery.start_soon(qga.run)
        await (await QgaClient.connect(ours, nursery=nursery)).aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "environment",
    [b"{", b"[]", b'{"A": 1}', b"[" * 100_000, b'{"A": ' * 100_000],
    ids=["cut short", "no object", "a number", "lists without an end", "objects without an end"],
)
@in_virtual_time
async def test_an_environment_that_nobody_wrote_is_not_taken_on(environment: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    qga = FakeQga(theirs)
    qga.files[ENVIRONMENT_PATH] = environment
    async with trio.open_nursery() as nursery:
        nursery.start_soon(qga.run)
        with pytest.raises(AgentProtocolError, match="not a JSON object of strings"):
            await QgaClient.connect(ours, nursery=nursery)
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_command_s_output_comes_with_its_end() -> None:
    async with session() as s:
        s.qga.on_start = ends_with(3, out="said", err="wailed")
        command = await s.client.start_command(
            CommandSpec(argv=["program", "x"], stdin=b"given", environment={"A": "B"})
        )
        [process] = s.qga.processes.values()
        assert (process.argv, process.stdin) == (["program", "x"], b"given")
        assert "A=B" in process.environment
        assert any(variable.startswith("PATH=/") for variable in process.environment), "qemu-ga adds nothing itself"
        assert [event async for event in command.events()] == [
            Output(stream=OutputStream.STDOUT, data=b"said"),
            Output(stream=OutputStream.STDERR, data=b"wailed"),
            CommandExit(status=3),
        ]
        assert s.qga.processes == {}, "qemu-ga was asked until it forgot it"


@in_virtual_time
async def test_one_request_is_on_its_way_at_a_time() -> None:
    async with session() as s:
        s.qga.hold()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(s.client.start_command, CommandSpec(argv=["program"]))
            await trio.testing.wait_all_tasks_blocked()
            assert s.qga.heard == ["guest-exec"]
            s.qga.release()


@in_virtual_time
async def test_commands_run_side_by_side() -> None:
    async with session() as s:
        started: dict[str, FakeProcess] = {}
        s.qga.on_start = lambda process: started.update({process.argv[0]: process})
        commands = [await s.client.start_command(CommandSpec(argv=[name])) for name in ("one", "two")]
        for name in ("two", "one"):
            ends_with(0, out=name)(started[name])
        assert [(await collect(command)).stdout for command in commands] == [b"one", b"two"]


@in_virtual_time
async def test_an_abandoned_request_is_synced_away() -> None:
    async with session() as s:
        s.qga.files["/late"] = b"late"
        s.qga.files["/next"] = b"next"
        s.qga.hold()
        with trio.move_on_after(5):
            await s.client.get_file("/late")
        s.qga.release()
        assert await s.client.get_file("/next") == b"next"
        assert s.qga.heard[:2] == ["guest-file-open", "guest-sync-delimited"]
        await s.client.aclose()
        assert s.qga.handles == {}, "what the late answer opened is closed"


@in_virtual_time
async def test_a_qemu_ga_that_started_anew_is_usable_once_its_silence_was_abandoned() -> None:
    async with session() as s:
        s.qga.files["/file"] = b"data"
        s.qga.hold()
        with trio.move_on_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(s.client.get_file, "/file")
                await trio.testing.wait_all_tasks_blocked()
                s.qga.forget()
        assert await s.client.get_file("/file") == b"data"


@in_virtual_time
async def test_a_command_whose_start_was_abandoned_is_killed() -> None:
    async with session() as s:
        s.qga.hold()
        with trio.move_on_after(5):
            await s.client.start_command(CommandSpec(argv=["sleep", "1000"]))
        s.qga.release()
        await trio.sleep(10)
        assert s.qga.processes == {}, "started, killed, and forgotten"
        assert s.qga.heard.count("guest-exec") == 2


@pytest.mark.parametrize("attempt", range(10))
@in_virtual_time
async def test_a_command_whose_start_was_abandoned_as_the_answer_came_is_killed(attempt: int) -> None:
    """trio runs what is due at once in any order; of ten attempts some take each."""
    async with session() as s:
        s.qga.hold()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(s.client.start_command, CommandSpec(argv=["sleep", "1000"]))
                await trio.testing.wait_all_tasks_blocked()
                s.qga.processes[555] = FakeProcess(["sleep", "1000"])
                s.ours.put_data(json.dumps({"return": {"pid": 555}, "id": s.qga.last_id}).encode() + b"\n")
                scope.cancel()
        s.qga.forget()
        await trio.sleep(10)
        assert s.qga.processes == {}


@in_virtual_time
async def test_a_request_that_was_not_sent_never_is() -> None:
    async with session() as s:
        s.qga.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(s.client.start_command, CommandSpec(argv=["first"]))
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(5):
                await s.client.start_command(CommandSpec(argv=["second"]))
            s.qga.release()
        assert [process.argv for process in s.qga.processes.values()] == [["first"]]


@in_virtual_time
async def test_closing_a_command_under_cancellation_kills_it() -> None:
    async with session() as s:
        command = await s.client.start_command(CommandSpec(argv=["sleep", "1000"]))
        with trio.CancelScope() as scope:
            scope.cancel()
            await command.aclose()
        await trio.sleep(10)
        assert s.qga.processes == {}


@in_virtual_time
async def test_closing_the_client_waits_for_what_is_being_killed() -> None:
    async with session() as s:
        command = await s.client.start_command(CommandSpec(argv=["sleep", "1000"]))
        [process] = s.qga.processes.values()
        await command.aclose()
        await s.client.aclose()
        assert process.end == {"signal": signal.SIGKILL}


@pytest.mark.parametrize("attempt", range(20))
@in_virtual_time
async def test_who_is_at_something_when_the_owner_ends_is_no_more_than_cancelled(attempt: int) -> None:
    """There is nothing to be undone any more. trio takes tasks in an order that differs from attempt to attempt."""
    ours, theirs = trio.testing.memory_stream_pair()
    qga = FakeQga(theirs, files={"/file": b"content"})
    async with trio.open_nursery() as owner:
        owner.start_soon(qga.run)
        client = await QgaClient.connect(ours, nursery=owner)
        qga.handlers["guest-file-read"] = lambda _: owner.cancel_scope.cancel()
        for _ in range(attempt % 3 + 1):
            owner.start_soon(client.get_file, "/file")


@in_virtual_time
async def test_the_time_limit_kills() -> None:
    async with session() as s:
        command = await s.client.start_command(CommandSpec(argv=["sleep", "1000"], time_limit_s=100))
        assert (await collect(command)).exit == CommandExit(signal=signal.SIGKILL, timed_out=True)
        assert 100 <= trio.current_time() < 101


@in_virtual_time
async def test_a_program_that_runs_long_is_asked_about_seldom() -> None:
    async with session() as s:
        command = await s.client.start_command(CommandSpec(argv=["sleep", "1000"], time_limit_s=100))
        await collect(command)
        assert s.qga.heard.count("guest-exec-status") < 450


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"user": "user"}, "user"),
        ({"groups": ("tty",)}, "groups"),
        ({"limits": (ResourceLimit(name="nofile", soft=1, hard=1),)}, "limits"),
        ({"terminal": Terminal()}, "terminal"),
    ],
)
@in_virtual_time
async def test_options_that_qemu_ga_does_not_have_are_refused_by_their_names(
    options: dict[str, Any], part: str
) -> None:
    async with session() as s:
        with pytest.raises(AgentRequestError, match=part) as caught:
            await s.client.start_command(CommandSpec(argv=["true"], **options))
        assert (caught.value.code, caught.value.part) == ("UNSUPPORTED", part)


@in_virtual_time
async def test_stdin_that_comes_later_is_refused_with_a_way_out() -> None:
    async with session() as s:
        command = await s.client.start_command(CommandSpec(argv=["cat"]))
        await command.send_stdin(b"")
        await command.close_stdin()
        with pytest.raises(AgentRequestError, match=r'put a file .* agent = "builtin"') as caught:
            await command.send_stdin(b"data")
        assert caught.value.code == "UNSUPPORTED"
        await command.send_signal(signal.SIGKILL)
        assert [event async for event in command.events()] == [CommandExit(signal=signal.SIGKILL)]
        with pytest.raises(AgentRequestError):
            await command.send_stdin(b"what it would have read, had it been there in time")
        await command.aclose()


@in_virtual_time
async def test_what_qemu_ga_is_forbidden_to_do_says_where_to_allow_it() -> None:
    async with session() as s:

        def refuse(_: dict[str, Any]) -> None:
            raise Refused("The command guest-exec has been disabled for this instance", error_class="CommandNotFound")

        s.qga.handlers["guest-exec"] = refuse
        with pytest.raises(AgentRequestError, match="--allow-rpcs") as caught:
            await s.client.start_command(CommandSpec(argv=["true"]))
        assert caught.value.code == "UNSUPPORTED"


@in_virtual_time
async def test_output_beyond_the_limit_costs_its_command_only() -> None:
    async with session() as s:
        s.qga.on_start = ends_with(0, out="y" * MAX_LINE)
        command = await s.client.start_command(CommandSpec(argv=["yes"]))
        with pytest.raises(AgentRequestError) as caught:
            await collect(command)
        assert caught.value.code == "EFBIG"
        s.qga.on_start = ends_with(0, out="y")
        assert (await collect(await s.client.start_command(CommandSpec(argv=["yes"])))).stdout == b"y"


@in_virtual_time
async def test_output_for_which_there_is_no_room_is_not_kept() -> None:
    async with session() as s:
        s.qga.on_start = ends_with(0, out="y" * 1000)
        room = Narrow(left=1500)
        command = await s.client.start_command(CommandSpec(argv=["yes"], room=room))
        assert len((await collect(command)).stdout) == 1000
        command = await s.client.start_command(CommandSpec(argv=["yes"], room=room))
        with pytest.raises(NoRoomError, match="some_key"):
            await collect(command)
        assert len((await collect(await s.client.start_command(CommandSpec(argv=["yes"])))).stdout) == 1000


@in_virtual_time
async def test_a_command_that_was_closed_takes_no_room_at_its_end() -> None:
    async with session() as s:
        room = Narrow(left=1500)
        command = await s.client.start_command(CommandSpec(argv=["yes"], room=room))
        (process,) = s.qga.processes.values()
        await command.aclose()
        ends_with(0, out="y" * 1000)(process)
        await trio.sleep(1)
        assert room.left == 1500


@in_virtual_time
async def test_a_file_beyond_the_caller_s_limit_is_not_kept() -> None:
    async with session() as s:
        s.qga.files["/file"] = bytes(200_000)
        assert len(await s.client.get_file("/file", limit=200_000)) == 200_000
        with pytest.raises(AgentRequestError) as caught:
            await s.client.get_file("/file", limit=199_999)
        assert caught.value.code == "EFBIG"
        await s.client.aclose()
        assert s.qga.handles == {}


@pytest.mark.parametrize("said", [b"hello\n", b"[]\n", b'{"id": 1}\n', b'{"return": 1, "id": 999}\n'])
@in_virtual_time
async def test_a_guest_that_says_what_is_no_answer_is_not_listened_to_any_more(said: bytes) -> None:
    async with session() as s:
        s.qga.hold()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(AgentProtocolError):
                    await s.client.ping()

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await s.qga.stream.send_all(said)
        with pytest.raises(AgentProtocolError):
            await s.client.ping()


@in_virtual_time
async def test_who_waits_hears_that_the_channel_closed() -> None:
    async with session() as s:
        command = await s.client.start_command(CommandSpec(argv=["sleep", "1000"]))
        await s.qga.stream.aclose()
        with pytest.raises(AgentUnreachableError):
            await s.client.ping()
        with pytest.raises(AgentUnreachableError):
            await anext(command.events())
        await command.aclose()


@in_virtual_time
async def test_requests_are_lines_of_json() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            with pytest.raises(AgentUnreachableError):
                await QgaClient.connect(ours, nursery=nursery)

        nursery.start_soon(connect)
        said = bytes(await theirs.receive_some())
        await theirs.aclose()
    assert said.startswith(b"\xff")
    request = json.loads(said[1:])
    assert (request["execute"], type(request["arguments"]["id"])) == ("guest-sync-delimited", int)


def cpus(*online: bool) -> list[dict[str, Any]]:
    """As guest-get-vcpus tells of them; the first cannot be switched off."""
    return [{"logical-id": number, "online": state, "can-offline": number > 0} for number, state in enumerate(online)]


@pytest.mark.parametrize(
    ("with_node", "started"), [([], [1, 2]), ([0, 2], [2]), ([0, 1, 2], [1, 2])], ids=["no ACPI", "one plugged", "both"]
)
@in_virtual_time
async def test_a_place_for_a_cpu_is_left_alone_until_acpi_has_found_one_there(
    with_node: list[int], started: list[int]
) -> None:
    """Under TCG all places look like CPUs that are offline; to start what is not plugged in takes ten seconds."""
    switched: list[int] = []

    def switch_on(arguments: dict[str, Any]) -> int:
        switched.extend(cpu["logical-id"] for cpu in arguments["vcpus"])
        return len(arguments["vcpus"])

    async with session() as with_guest:
        qga = with_guest.qga
        for number in with_node:
            qga.files[f"/sys/devices/system/cpu/cpu{number}/firmware_node/hid"] = b"LNXCPU\n"
        qga.files["/proc/meminfo"] = b"MemTotal: 250000 kB\n"
        qga.handlers |= {
            "guest-get-vcpus": lambda _: cpus(True, 1 in switched, 2 in switched),
            "guest-set-vcpus": switch_on,
            "guest-get-host-name": lambda _: {"host-name": "vm"},
            "guest-get-time": lambda _: 1,
        }
        report = await with_guest.client.prepare(Preparation(vcpus=1 + len(started)))
    assert (report.cpus_online, switched) == (1 + len(started), started)


@pytest.mark.parametrize(
    ("status", "said", "code", "part"),
    [
        (72, "sh: 1: cd: can't cd to /nope", "ENOENT", "working_directory"),
        (72, "sh: line 0: cd: /nope: Permission denied", "EACCES", "working_directory"),
        (127, "", "ENOENT", "program"),
    ],
)
@in_virtual_time
async def test_a_place_that_cannot_be_gone_to_is_told_from_a_program_that_is_not_there(
    status: int, said: str, code: str, part: str
) -> None:
    async with session() as s:
        s.qga.on_start = ends_with(status, err=said)
        with pytest.raises(AgentRequestError) as caught:
            await s.client.start_command(CommandSpec(argv=["program"], working_directory="/nope"))
        assert (caught.value.code, caught.value.part) == (code, part)


@pytest.mark.parametrize(
    ("description", "code"),
    [
        ("Failed to execute child process “nope” (No such file or directory)", "ENOENT"),
        ("Guest agent command failed, error was 'Failed to execute child process (Permission denied)'", "EACCES"),
        ("Guest agent command failed, error was 'nobody knows'", "EIO"),
        ("Failed to fork (Cannot allocate memory)", "ENOMEM"),
    ],
)
@in_virtual_time
async def test_a_program_that_qemu_ga_does_not_start(description: str, code: str) -> None:
    async with session() as s:

        def refuse(_: dict[str, Any]) -> None:
            raise Refused(description)

        s.qga.handlers["guest-exec"] = refuse
        with pytest.raises(AgentRequestError) as caught:
            await s.client.start_command(CommandSpec(argv=["nope"]))
        assert (caught.value.code, caught.value.part) == (code, "program")


@in_virtual_time
async def test_an_environment_that_has_no_room_is_refused_as_such() -> None:
    async with session() as s:
        guest_with(s.qga)

        def end(process: FakeProcess) -> None:
            full = process.argv[3:] == [ENVIRONMENT_PATH]
            ends_with(int(full), err="sh: 1: cannot create: No space left on device" if full else "")(process)

        s.qga.on_start = end
        with pytest.raises(AgentRequestError) as caught:
            await s.client.prepare(Preparation(environment={"A": "b"}))
        assert (caught.value.code, caught.value.part) == ("ENOSPC", "environment")


@pytest.mark.parametrize(
    ("command", "wanted", "part"),
    [
        ("guest-set-vcpus", Preparation(vcpus=2), "vcpus"),
        ("guest-get-memory-blocks", Preparation(memory_mib=256), "memory_mib"),
        ("guest-set-memory-blocks", Preparation(memory_mib=256), "memory_mib"),
    ],
)
@in_virtual_time
async def test_what_is_not_brought_online_is_refused_as_what_was_asked_for(
    command: str, wanted: Preparation, part: str
) -> None:
    async with session() as s:
        guest_with(s.qga)

        def refuse(_: dict[str, Any]) -> None:
            raise Refused("failed: Input/output error")

        s.qga.handlers[command] = refuse
        with pytest.raises(AgentRequestError) as caught:
            await s.client.prepare(wanted)
        assert (caught.value.code, caught.value.part) == ("EIO", part)


def guest_with(qga: FakeQga) -> None:
    """A CPU and a block of memory are online, one more of each is not."""
    qga.handlers["guest-get-vcpus"] = lambda _: [
        {"logical-id": 0, "online": True},
        {"logical-id": 1, "online": False},
    ]
    qga.handlers["guest-get-memory-blocks"] = lambda _: [
        {"phys-index": 0, "online": True},
        {"phys-index": 1, "online": False},
    ]
    qga.handlers["guest-get-memory-block-info"] = lambda _: {"size": 128 * 2**20}
    qga.handlers["guest-get-host-name"] = lambda _: {"host-name": "guest"}
    qga.handlers["guest-get-time"] = lambda _: 1
    qga.files["/proc/meminfo"] = b"MemTotal: 131072 kB\n"


@pytest.mark.parametrize(
    "end",
    [{"exitcode": 256}, {"exitcode": 2**62}, {"exitcode": -1}, {"exitcode": True}, {"signal": 0}, {"signal": 65}, {}],
    ids=str,
)
@in_virtual_time
async def test_an_exit_that_cannot_be_breaks_the_protocol(end: dict[str, Any]) -> None:
    async with session() as s:

        def on_start(process: FakeProcess) -> None:
            process.end = end

        s.qga.on_start = on_start
        command = await s.client.start_command(CommandSpec(argv=["program"]))
        with pytest.raises(AgentProtocolError):
            assert [event async for event in command.events()] == []
        await command.aclose()


@pytest.mark.parametrize("output", ["QQ", "Q Q=", "caf\u00e9", "QQ==\n", "\0", 7, None, ["QQ=="]], ids=repr)
@in_virtual_time
async def test_output_that_is_no_base64_breaks_the_protocol(output: object) -> None:
    async with session() as s:
        s.qga.on_start = lambda process: setattr(process, "end", {"exitcode": 0, "out-data": output})
        with pytest.raises(AgentProtocolError, match="base64"):
            await collect(await s.client.start_command(CommandSpec(argv=["true"])))


@in_virtual_time
async def test_what_qemu_ga_says_in_a_refusal_is_cut() -> None:
    async with session() as s:

        def refuse(_: dict[str, Any]) -> None:
            raise Refused("\ud800" + "x" * 100_000 + ": No such file or directory")

        s.qga.handlers["guest-exec"] = refuse
        with pytest.raises(AgentRequestError) as caught:
            await s.client.start_command(CommandSpec(argv=["program"]))
        assert caught.value.code == "ENOENT"
        assert len(str(caught.value).encode()) < 1100


@pytest.mark.parametrize(
    "about", [{"version": "9" * 5000}, {"version": 7}, {"version": None}, [], None, {"version": "\ud800"}], ids=repr
)
@in_virtual_time
async def test_a_version_that_is_none_is_nobodys_bug(about: object) -> None:
    async with session() as s:
        s.qga.handlers |= {"guest-info": lambda _: about, "guest-get-osinfo": lambda _: {"kernel-release": "\ud800"}}
        info = await s.client.ping()
        assert info.kernel_release.encode() == rb"\ud800"


@pytest.mark.parametrize("written", [0, 10**9])
@in_virtual_time
async def test_a_file_that_is_written_by_nothing_or_by_too_much(written: int) -> None:
    async with session() as s:
        s.qga.on_start = ends_with(0)
        s.qga.handlers["guest-file-write"] = lambda _: {"count": written, "eof": False}
        with pytest.raises(AgentProtocolError, match=f"wrote {written} of 4 bytes"):
            await s.client.put_file("/file", b"data")


@in_virtual_time
async def test_a_file_that_gives_nothing_and_does_not_end() -> None:
    async with session() as s:
        s.qga.files["/file"] = b"data"
        s.qga.handlers["guest-file-read"] = lambda _: {"count": 0, "buf-b64": "", "eof": False}
        with pytest.raises(AgentProtocolError, match="before the end of the file"):
            await s.client.get_file("/file")


@in_virtual_time
async def test_the_hostname_is_the_kernels() -> None:
    """qemu-ga before 5.1 says what it was when that was first asked."""
    async with session() as s:
        guest_with(s.qga)
        s.qga.files["/proc/sys/kernel/hostname"] = b"of-the-kernel\n"
        assert (await s.client.prepare(Preparation())).hostname == "of-the-kernel"


@pytest.mark.parametrize("meminfo", [b"MemTotal: " + b"9" * 5000 + b" kB\n", b"", b"\xff"])
@in_virtual_time
async def test_memory_that_is_no_number_is_nobodys_bug(meminfo: bytes) -> None:
    async with session() as s:
        guest_with(s.qga)
        s.qga.files["/proc/meminfo"] = meminfo
        assert (await s.client.prepare(Preparation())).memory_mib == 0


@pytest.mark.parametrize("how", ["garbage", "an answer that is none", "an end that is none"])
@in_virtual_time
async def test_a_guest_that_breaks_the_protocol_is_told_of_to_whoever_waits_for_that(how: str) -> None:
    async with session() as s:
        told: list[AgentProtocolError] = []

        async def wait() -> None:
            told.append(await s.client.wait_broken())

        s.nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert told == []
        with pytest.raises(AgentProtocolError):
            if how == "garbage":
                s.qga.hold()
                s.ours.put_data(b"garbage\n")
                await s.client.ping()
            elif how == "an answer that is none":
                s.qga.handlers["guest-exec"] = lambda _: {"pid": "one"}
                await s.client.start_command(CommandSpec(argv=["program"]))
            else:
                s.qga.handlers["guest-exec-status"] = lambda _: {"exited": True}
                await collect(await s.client.start_command(CommandSpec(argv=["program"])))
        await trio.testing.wait_all_tasks_blocked()
        assert len(told) == 1
        with pytest.raises(AgentProtocolError):
            await s.client.ping()
