"""Commands in the guest: what runs, what comes back, and when it ends."""

from __future__ import annotations

import hashlib
import signal
from typing import Any

import pytest
import trio

from tests.agents import LocalAgent, Narrow, collect, resident_kib, until
from vmm.errors import AgentRequestError
from vmm.guest.agent import wire
from vmm.guest.client import AgentClient
from vmm.words.commands import CommandExit, CommandSpec, Output, OutputStream
from vmm.words.preparation import Preparation

MIB = 1024 * 1024


def shell(script: str, **options: Any) -> CommandSpec:
    return CommandSpec(argv=["sh", "-c", script], **options)


async def test_output_and_status_come_back_apart(client: AgentClient) -> None:
    outcome = await collect(await client.start_command(shell("echo out; echo err >&2; exit 7")))
    assert (outcome.stdout, outcome.stderr) == (b"out\n", b"err\n")
    assert outcome.exit == CommandExit(status=7)


async def test_output_is_binary_safe(client: AgentClient) -> None:
    everything = bytes(range(256)) * 700 + wire.MARKER * 3 + b"\0"
    command = await client.start_command(CommandSpec(argv=["cat"]))
    async with trio.open_nursery() as nursery:

        async def feed() -> None:
            await command.send_stdin(everything)
            await command.close_stdin()

        nursery.start_soon(feed)
        outcome = await collect(command)
    assert outcome.stdout == everything


async def test_environment_is_added_to_the_default_one(client: AgentClient) -> None:
    script = 'echo "$HOME $LANG $TERM $EXTRA"; case "$PATH" in *:/sbin:*) echo sbin; esac'
    outcome = await collect(await client.start_command(shell(script, environment={"EXTRA": "é"})))
    assert outcome.stdout.decode() == "/root C.UTF-8 dumb é\nsbin\n"


async def test_runs_in_the_working_directory(client: AgentClient) -> None:
    outcome = await collect(await client.start_command(shell("pwd", working_directory="/proc")))
    assert outcome.stdout == b"/proc\n"


@pytest.mark.parametrize(
    ("spec", "why", "code", "part"),
    [
        (CommandSpec(argv=["/no/such/program"]), "No such file", "ENOENT", "program"),
        (CommandSpec(argv=["no-such-program"]), "No such file", "ENOENT", "program"),
        (CommandSpec(argv=["/etc/passwd/x"]), "/etc/passwd/x", "ENOENT", "program"),
        (CommandSpec(argv=["/etc/passwd"]), "Permission denied", "EACCES", "program"),
        (CommandSpec(argv=["true", "x" * 200_000]), "too long", "E2BIG", "program"),
        (CommandSpec(argv=["true"], working_directory="/no/such"), "/no/such", "ENOENT", "working_directory"),
        (CommandSpec(argv=["true"], working_directory="/etc/passwd"), "Not a dir", "ENOTDIR", "working_directory"),
    ],
)
async def test_a_command_that_cannot_be_started_says_why(
    client: AgentClient, spec: CommandSpec, why: str, code: str, part: str
) -> None:
    with pytest.raises(AgentRequestError, match=why) as caught:
        await client.start_command(spec)
    assert (caught.value.code, caught.value.part) == (code, part)


@pytest.mark.parametrize(
    "spec",
    [
        CommandSpec(argv=[]),
        CommandSpec(argv=["nul\0byte"]),
        CommandSpec(argv=["true"], environment={"A=B": "c"}),
        CommandSpec(argv=["surrogate \ud800"]),
        CommandSpec(argv=["true"], time_limit_s=1e30),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_and_the_agent_lives(
    client: AgentClient, spec: CommandSpec
) -> None:
    with pytest.raises(AgentRequestError) as caught:
        await client.start_command(spec)
    assert caught.value.code == "BAD_REQUEST"
    await client.ping()


async def test_what_the_agent_would_not_take_is_refused_and_not_sent(client: AgentClient) -> None:
    """It would take the message for garbage, and the channel would be lost."""
    for spec in (CommandSpec(argv=["true", *["x"] * 1_200_000]), CommandSpec(argv=["true", "x" * wire.MAX_REQUEST])):
        with pytest.raises(AgentRequestError, match="the maximum is 4194304") as caught:
            await client.start_command(spec)
        assert caught.value.code == "BAD_REQUEST"
    with pytest.raises(AgentRequestError, match="the maximum is 4194304"):
        await client.prepare(Preparation(environment={"A": "x" * wire.MAX_REQUEST}))
    await client.ping()


async def test_a_very_long_argument_arrives(client: AgentClient) -> None:
    # Longer than a frame; Linux takes no single argument of more than 128 KiB.
    words = ["x" * 100_000, "y" * 100_000]
    outcome = await collect(await client.start_command(CommandSpec(argv=["printf", "%s-", *words])))
    assert outcome.stdout.decode() == "".join(f"{word}-" for word in words)


async def test_signals_reach_the_whole_process_group(client: AgentClient) -> None:
    # The child is ready when it says so: one that has just been forked still has the trap, and takes no notice.
    script = "trap 'echo caught; exit 3' TERM; (echo ready; exec sleep 1000) & wait"
    command = await client.start_command(shell(script))
    await until(command, lambda seen: b"ready" in seen)
    await command.send_signal(signal.SIGTERM)
    outcome = await collect(command)
    assert outcome.stdout == b"caught\n"
    assert outcome.exit == CommandExit(status=3)


async def test_death_by_signal_is_told_from_an_exit_status(client: AgentClient) -> None:
    outcome = await collect(await client.start_command(shell("kill -9 $$")))
    assert outcome.exit == CommandExit(signal=signal.SIGKILL)


async def test_commands_have_default_signal_dispositions(client: AgentClient) -> None:
    # Python ignores SIGPIPE, and `yes | head` would complain if it inherited that.
    outcome = await collect(await client.start_command(shell("yes | head -n 1; grep SigIgn /proc/self/status")))
    said, _, ignored = outcome.stdout.split()
    assert (said, outcome.stderr) == (b"y", b"")
    assert int(ignored, 16) & 1 << (signal.SIGPIPE - 1) == 0


async def test_the_time_limit_kills_the_process_group(client: AgentClient) -> None:
    outcome = await collect(await client.start_command(shell("sleep 1000 & sleep 1000", time_limit_s=0.05)))
    assert outcome.exit == CommandExit(signal=signal.SIGKILL, timed_out=True)


async def test_a_kill_from_elsewhere_is_no_time_out(client: AgentClient) -> None:
    outcome = await collect(await client.start_command(shell("kill -9 $$", time_limit_s=1000)))
    assert outcome.exit == CommandExit(signal=signal.SIGKILL, timed_out=False)


async def test_a_signal_to_a_command_that_has_ended_does_nothing(client: AgentClient) -> None:
    command = await client.start_command(CommandSpec(argv=["true"]))
    await collect(command)
    await command.send_signal(signal.SIGKILL)


async def test_stdin_that_nobody_reads_is_ignored(client: AgentClient) -> None:
    command = await client.start_command(shell("exec <&-; echo closed; sleep 1000"))
    await until(command, lambda seen: b"closed" in seen)
    await command.send_stdin(bytes(2 * MIB))
    await command.aclose()


async def test_stdin_waits_while_the_command_does_not_read(client: AgentClient, nursery: trio.Nursery) -> None:
    command = await client.start_command(shell("read go; sha256sum"))
    sent = trio.Event()
    data = b"go\n" + bytes(MIB)

    async def feed() -> None:
        await command.send_stdin(data[:MIB])
        sent.set()
        await command.send_stdin(data[MIB:])
        await command.close_stdin()

    stopped = await client.start_command(CommandSpec(argv=["sleep", "1000"]))
    with trio.move_on_after(0.1) as scope:
        await stopped.send_stdin(bytes(MIB))
    assert scope.cancelled_caught, "a window and a pipe hold less than a MiB"
    await stopped.aclose()
    nursery.start_soon(feed)
    outcome = await collect(command)
    assert sent.is_set()
    assert outcome.stdout.split()[0].decode() == hashlib.sha256(bytes(MIB)).hexdigest()


async def test_output_of_any_size_passes_through_bounded_memory(client: AgentClient, local_agent: LocalAgent) -> None:
    before_agent, before_host = local_agent.resident_kib(), resident_kib("self", "VmRSS")
    command = await client.start_command(CommandSpec(argv=["head", "-c", str(100 * MIB), "/dev/zero"]))
    received = 0
    async for event in command.events():
        if isinstance(event, Output):
            assert event.data.count(0) == len(event.data)
            received += len(event.data)
        else:
            assert event == CommandExit(status=0)
    await command.aclose()
    assert received == 100 * MIB
    assert local_agent.resident_kib() - before_agent < 4 * 1024
    assert resident_kib("self", "VmRSS") - before_host < 16 * 1024


async def test_who_does_not_read_holds_up_nobody_else(client: AgentClient, local_agent: LocalAgent) -> None:
    before = local_agent.resident_kib()
    unread = [await client.start_command(CommandSpec(argv=["head", "-c", str(4 * MIB), "/dev/zero"])) for _ in range(4)]
    for number in range(20):
        outcome = await collect(await client.start_command(shell(f"echo {number}; head -c 300000 /dev/zero >&2")))
        assert (outcome.stdout, len(outcome.stderr)) == (b"%d\n" % number, 300_000)
        await client.ping()
    assert local_agent.resident_kib() - before < 4 * 1024
    # And what waited is all there.
    assert [len((await collect(command)).stdout) for command in unread] == [4 * MIB] * 4


async def test_with_small_windows_all_goes_through_both_ways(client: AgentClient) -> None:
    data = bytes(range(256)) * 8192
    command = await client.start_command(CommandSpec(argv=["cat"], room=Narrow()))
    async with trio.open_nursery() as nursery:

        async def feed() -> None:
            await command.send_stdin(data)
            await command.close_stdin()

        nursery.start_soon(feed)
        outcome = await collect(command)
    assert outcome.stdout == data


async def test_with_small_windows_stdin_that_is_given_is_taken_whole(client: AgentClient) -> None:
    spec = CommandSpec(argv=["sha256sum"], room=Narrow(), stdin=bytes(wire.WINDOW))
    outcome = await collect(await client.start_command(spec))
    assert outcome.stdout.split()[0].decode() == hashlib.sha256(bytes(wire.WINDOW)).hexdigest()


async def test_no_more_lies_on_the_host_than_small_windows_take(client: AgentClient) -> None:
    command = await client.start_command(shell("cat /dev/zero & exec cat /dev/zero >&2", room=Narrow()))

    def unread() -> int:
        return sum(buffer.held for buffer in command._buffers)

    with trio.fail_after(20):
        while unread() < 2 * Narrow.window:
            await client.ping()
    for _ in range(20):
        await client.ping()
    assert unread() == 2 * Narrow.window
    await command.aclose()


async def test_many_at_once(client: AgentClient) -> None:
    outputs = {}

    async def run(number: int) -> None:
        command = await client.start_command(shell(f"echo {number}; exit {number}"))
        outputs[number] = await collect(command)

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(run, number)
    assert {number: outcome.exit.status for number, outcome in outputs.items()} == {n: n for n in range(30)}


async def test_what_the_command_wrote_comes_before_its_exit_even_if_a_daemon_keeps_the_pipe(
    client: AgentClient,
) -> None:
    script = "sleep 1000 & head -c 60000 /dev/zero; echo $! >&2; exit 5"
    outcome = await collect(await client.start_command(shell(script)))
    assert (len(outcome.stdout), outcome.exit) == (60_000, CommandExit(status=5))
    # The daemon was left alone: it is not the command.
    await collect(await client.start_command(shell(f"kill {int(outcome.stderr)}")))


async def test_closing_a_command_kills_it(client: AgentClient, nursery: trio.Nursery) -> None:
    # The second command ends when the first one's last process does: it holds the other end of a pipe.
    command = await client.start_command(shell("echo $$; sleep 1000"))
    pid = int(await until(command, lambda seen: seen.endswith(b"\n")))
    await command.aclose()
    waiting = shell(f"while kill -0 {pid} 2>/dev/null; do sleep 0.01; done")
    assert (await collect(await client.start_command(waiting))).exit.status == 0


async def test_closing_under_cancellation_still_kills(client: AgentClient) -> None:
    command = await client.start_command(shell("echo $$; sleep 1000"))
    pid = int(await until(command, lambda seen: seen.endswith(b"\n")))
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        finally:
            await command.aclose()
    waiting = shell(f"while kill -0 {pid} 2>/dev/null; do sleep 0.01; done")
    assert (await collect(await client.start_command(waiting))).exit.status == 0


async def test_events_may_be_left_and_taken_up_again(client: AgentClient) -> None:
    command = await client.start_command(shell("echo one; read x; echo two"))
    await until(command, lambda seen: b"one" in seen)
    await command.send_stdin(b"\n")
    await command.close_stdin()
    events = [event async for event in command.events()]
    assert events == [Output(stream=OutputStream.STDOUT, data=b"two\n"), CommandExit(status=0)]
    assert [event async for event in command.events()] == []
    await command.aclose()
