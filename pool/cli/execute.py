"""`vmpool run` and `vmpool exec`: a command in a VM, with its stdin, output, signals and exit code."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any, Final

import click
import trio

from pool.cli.connection import call
from pool.cli.guest_command import GuestCommand, guest_argv
from pool.cli.leasing import Asked, acquire_options, tell_match
from pool.cli.names import LEASE
from pool.cli.options import EXIT_OWN_FAILURE, socket_option
from pool.cli.output import PREFIX, OutputError, remark, write_to
from pool.cli.signals import Signals
from pool.cli.stdin import forward_stdin, known_stdin
from pool.cli.streams import STDERR, STDOUT, NobodyReadsError
from pool.cli.words import SECONDS, TEXT, VARIABLE
from vmpool.client import Client, CommandExit, Output, OutputStream, RemoteCommand

_TARGETS: Final = {OutputStream.STDOUT: STDOUT, OutputStream.STDERR: STDERR}

UNREAD_LIMIT_S: Final = 2.0
"""How long a command may run on after SIGPIPE, which it may ignore, once its output has lost its reader."""


def _exec_options(command: Any) -> Any:
    for option in (
        guest_argv,
        click.option(
            "--env",
            "-e",
            "variables",
            multiple=True,
            type=VARIABLE,
            metavar="NAME=VALUE",
            help="Environment variable for the command.",
        ),
        click.option("--workdir", "-w", type=TEXT, help="Working directory in the guest."),
        click.option("--time-limit", "time_limit_s", type=SECONDS, help="Seconds until the command gets SIGKILL."),
        click.option(
            "--stdin-first",
            is_flag=True,
            help="Read all of stdin, at most 256 KiB, before the command starts. Needed with qemu-ga.",
        ),
    ):
        command = option(command)
    return command


@click.command(cls=GuestCommand)
@acquire_options
@_exec_options
@socket_option
def run(
    *,
    asked: Asked,
    argv: tuple[str, ...],
    variables: tuple[tuple[str, str], ...],
    workdir: str | None,
    time_limit_s: float | None,
    stdin_first: bool,
    socket_path: Path,
) -> None:
    """Acquire a VM, run a command in it, release it.

    Passes stdin, stdout, stderr and the exit code. Ctrl-C is sent to the command; a second Ctrl-C ends vmpool. Exit
    code 125: vmpool itself failed.
    """
    signals = Signals()

    async def session(client: Client) -> CommandExit:
        stdin = await known_stdin(all_of_it=stdin_first)
        async with client.lease(**asked.arguments()) as vm:
            tell_match(vm)
            async with client.exec(
                vm.lease_id,
                argv,
                environment=dict(variables),
                working_directory=workdir,
                time_limit_s=time_limit_s,
                stdin=stdin,
            ) as command:
                return await _attend(command, signals, streams_stdin=stdin is None)

    sys.exit(_exit_code(call(socket_path, session, failure_code=EXIT_OWN_FAILURE, signals=signals)))


@click.command("exec", cls=GuestCommand)
@click.argument("lease_id", type=LEASE)
@_exec_options
@socket_option
def exec_(
    *,
    lease_id: str,
    argv: tuple[str, ...],
    variables: tuple[tuple[str, str], ...],
    workdir: str | None,
    time_limit_s: float | None,
    stdin_first: bool,
    socket_path: Path,
) -> None:
    """Run a command in a leased VM. Otherwise as `vmpool run`."""
    signals = Signals()

    async def session(client: Client) -> CommandExit:
        stdin = await known_stdin(all_of_it=stdin_first)
        async with client.exec(
            lease_id,
            argv,
            environment=dict(variables),
            working_directory=workdir,
            time_limit_s=time_limit_s,
            stdin=stdin,
        ) as command:
            return await _attend(command, signals, streams_stdin=stdin is None)

    sys.exit(_exit_code(call(socket_path, session, failure_code=EXIT_OWN_FAILURE, signals=signals)))


async def _attend(command: RemoteCommand, signals: Signals, *, streams_stdin: bool) -> CommandExit:
    """Connects a command with this process's stdin, stdout, stderr and signals until the command ends."""
    with signals.forwarded() as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_forward_signals, received, command)
            if streams_stdin:
                nursery.start_soon(forward_stdin, command)
            ended = await _write_output(command)
            nursery.cancel_scope.cancel(reason="the command has ended")
    return ended


async def _forward_signals(received: trio.MemoryReceiveChannel[int], command: RemoteCommand) -> None:
    async for number in received:
        await command.send_signal(number)


async def _write_output(command: RemoteCommand) -> CommandExit:
    """Writes the output until the command ends. Raises OutputError; NobodyReadsError if output had no reader and the
    command did not fail because of that.
    """
    unread: dict[OutputStream, NobodyReadsError] = {}
    with trio.CancelScope() as patience:
        async for event in command.events():
            match event:
                case Output(stream=stream, data=data):
                    if stream in unread:
                        continue
                    try:
                        await write_to(_TARGETS[stream], data)
                    except NobodyReadsError as error:
                        unread[stream] = error
                        await command.send_signal(signal.SIGPIPE)
                        patience.deadline = min(patience.deadline, trio.current_time() + UNREAD_LIMIT_S)
                    except OutputError:
                        await command.send_signal(signal.SIGKILL)
                        raise
                case CommandExit() if event.status == 0 and unread:
                    break
                case CommandExit():
                    return event
    assert unread, "a command's events end with its exit"
    raise next(iter(unread.values()))


def _exit_code(ended: CommandExit) -> int:
    """128 + n for a signal, as in a shell; 124 for the time limit, as in timeout(1). Remarks on lack of memory."""
    if ended.out_of_memory:
        remark(f"{PREFIX}the guest ran out of memory, and its kernel killed a process; ask for more with --memory")
    if ended.timed_out:
        return 124
    if ended.signal is not None:
        return 128 + ended.signal
    assert ended.status is not None
    return ended.status
