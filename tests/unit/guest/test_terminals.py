"""Terminals: what a person at one relies on."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from tests.agents import Outcome, collect
from vmm.guest.client import AgentClient
from vmm.guest.command import RemoteCommand
from vmm.words.commands import CommandExit, CommandSpec, Output, OutputStream, Terminal, TerminalSize

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent has to be root to give a terminal to its user")


def on_terminal(script: str, size: TerminalSize = TerminalSize()) -> CommandSpec:  # noqa: B008 - frozen
    return CommandSpec(argv=["sh", "-c", script], terminal=Terminal(size=size))


async def until_said(command: RemoteCommand, wanted: bytes) -> bytes:
    seen = b""
    async for event in command.events():
        assert isinstance(event, Output), f"it ended with {event}, having said {seen!r}"
        assert event.stream is OutputStream.STDOUT
        seen += event.data
        if wanted in seen:
            return seen
    raise AssertionError(seen)


async def on(client: AgentClient, script: str) -> Outcome:
    return await collect(await client.start_command(on_terminal(script)))


async def test_all_three_streams_are_the_terminal(client: AgentClient) -> None:
    outcome = await on(client, "tty; for fd in 0 1 2; do test -t $fd && echo $fd; done; echo err >&2")
    path, *rest = outcome.stdout.split()
    assert path.startswith(b"/dev/pts/")
    assert rest == [b"0", b"1", b"2", b"err"]
    assert outcome.stderr == b""


async def test_a_program_is_told_of_a_new_size(client: AgentClient) -> None:
    size = TerminalSize(rows=10, columns=20)
    command = await client.start_command(
        on_terminal("trap 'stty size; exit' WINCH; stty size; echo ready; while :; do sleep 0.01; done", size)
    )
    assert b"10 20" in await until_said(command, b"ready")
    await command.resize(TerminalSize(rows=33, columns=44))
    assert (await collect(command)).stdout == b"33 44\r\n"


async def test_control_c_interrupts_the_foreground(client: AgentClient) -> None:
    # The child says when it is there: before that, the shell alone would get the signal.
    script = "trap 'echo caught' INT; sh -c 'echo ready; exec sleep 1000'; echo after"
    command = await client.start_command(on_terminal(script))
    await until_said(command, b"ready")
    await command.send_stdin(b"\x03")
    outcome = await collect(command)
    assert outcome.stdout.replace(b"^C", b"").split() == [b"caught", b"after"]


async def test_job_control_works(client: AgentClient) -> None:
    command = await client.start_command(CommandSpec(argv=["sh", "-i"], terminal=Terminal(), environment={"PS1": "? "}))
    await until_said(command, b"? ")
    # The program says that it has the terminal, in words that the echo of the line does not have.
    await command.send_stdin(b"sh -c 'echo re\"\"ady; exec sleep 1000'\n")
    await until_said(command, b"ready")
    await command.send_stdin(b"\x1a")
    await until_said(command, b"? ")
    await command.send_stdin(b"jobs; echo listed\n")
    assert b"Stopped" in await until_said(command, b"\r\nlisted")
    await command.send_stdin(b"kill %1; fg; echo 'o'ver\n")
    await until_said(command, b"over")
    await command.send_stdin(b"exit 5\n")
    assert (await collect(command)).exit == CommandExit(status=5)


async def test_the_end_of_input_is_an_end_of_file(client: AgentClient) -> None:
    command = await client.start_command(on_terminal("cat; echo over"))
    await command.send_stdin(b"line\n")
    await command.close_stdin()
    outcome = await collect(command)
    assert outcome.stdout.split() == [b"line", b"line", b"over"]
    assert outcome.exit == CommandExit(status=0)


async def test_all_output_comes_before_the_exit(client: AgentClient) -> None:
    outcome = await on(client, "stty raw; head -c 300000 /dev/zero; exit 4")
    assert (len(outcome.stdout), outcome.exit) == (300_000, CommandExit(status=4))


async def test_who_hangs_up_ends_what_runs_on_the_terminal(client: AgentClient) -> None:
    command = await client.start_command(on_terminal("echo $$; sleep 1000"))
    pid = int(await until_said(command, b"\n"))
    await command.aclose()
    waiting = CommandSpec(argv=["sh", "-c", f"while kill -0 {pid} 2>/dev/null; do sleep 0.01; done"])
    with trio.fail_after(30):
        assert (await collect(await client.start_command(waiting))).exit == CommandExit(status=0)


async def test_a_signal_reaches_the_program(client: AgentClient) -> None:
    command = await client.start_command(on_terminal("echo ready; exec sleep 1000"))
    await until_said(command, b"ready")
    await command.send_signal(signal.SIGTERM)
    assert (await collect(command)).exit == CommandExit(signal=signal.SIGTERM)
