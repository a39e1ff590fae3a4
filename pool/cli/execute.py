"""`vmpool run` and `vmpool exec`: a command in a VM, with its stdin, output, signals and exit code."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

import click
import trio

from pool.cli.acquiring import Asked, acquire_options, tell_match
from pool.cli.connection import call
from pool.cli.options import EXIT_OWN_FAILURE, SECONDS, OutputError, socket_option
from pool.cli.stdin import forward_stdin, known_stdin
from pool.client import Client, RemoteCommand
from vmm.contract import CommandExit, Output, OutputStream

_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
_TARGETS: Final = {OutputStream.STDOUT: 1, OutputStream.STDERR: 2}

_command_line = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def _parse_environment(_ctx: click.Context, _param: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    environment = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE")
        environment[_as_text(name)] = _as_text(value)
    return environment


def _as_text(word: str) -> str:
    """The wire takes UTF-8 only; what the shell gave us may be any bytes."""
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter(f"{word!r} is not UTF-8") from error
    return word


def _without_dashes(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """click leaves the `--` in place when an argument stands before it."""
    argv = value[1:] if value[:1] == ("--",) else value
    if not argv:
        raise click.MissingParameter(ctx=ctx, param=param)
    return tuple(_as_text(word) for word in argv)


def _exec_options(command: Any) -> Any:
    for option in (
        click.argument(
            "argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...", callback=_without_dashes
        ),
        click.option(
            "--env",
            "-e",
            "environment",
            multiple=True,
            metavar="NAME=VALUE",
            callback=_parse_environment,
            help="For the command.",
        ),
        click.option("--workdir", "-w", default=None, help="Working directory in the guest."),
        click.option("--time-limit", "time_limit_s", type=SECONDS, help="Then SIGKILL."),
        click.option(
            "--stdin-first",
            is_flag=True,
            help="Read stdin to its end, at most 256 KiB, before the command starts: qemu-ga takes it only then.",
        ),
    ):
        command = option(command)
    return command


@click.command(context_settings=_command_line)
@acquire_options
@_exec_options
@socket_option
def run(
    *,
    asked: Asked,
    argv: tuple[str, ...],
    environment: dict[str, str],
    workdir: str | None,
    time_limit_s: float | None,
    stdin_first: bool,
    socket_path: Path,
) -> None:
    """Acquire a VM, run a command in it, release it.

    Passes stdin, stdout, stderr and the exit code; Ctrl-C reaches the command. 125 says that vmpool itself failed.
    """

    async def session(client: Client) -> CommandExit:
        stdin = await known_stdin(all_of_it=stdin_first)
        async with client.lease(
            profile=asked.profile,
            on_empty=asked.on_empty,
            wishes=asked.wishes,
            config=asked.config,
            timeout_s=asked.wait_s,
        ) as vm:
            tell_match(vm)
            async with client.exec(
                vm.lease_id,
                argv,
                environment=environment,
                working_directory=workdir,
                time_limit_s=time_limit_s,
                stdin=stdin,
            ) as command:
                return await _attend(command, streams_stdin=stdin is None)

    sys.exit(_exit_code(call(socket_path, session, failure_code=EXIT_OWN_FAILURE)))


@click.command("exec", context_settings=_command_line)
@click.argument("lease_id")
@_exec_options
@socket_option
def exec_(
    *,
    lease_id: str,
    argv: tuple[str, ...],
    environment: dict[str, str],
    workdir: str | None,
    time_limit_s: float | None,
    stdin_first: bool,
    socket_path: Path,
) -> None:
    """Run a command in a VM that you hold. Otherwise as `vmpool run`."""

    async def session(client: Client) -> CommandExit:
        stdin = await known_stdin(all_of_it=stdin_first)
        async with client.exec(
            lease_id,
            argv,
            environment=environment,
            working_directory=workdir,
            time_limit_s=time_limit_s,
            stdin=stdin,
        ) as command:
            return await _attend(command, streams_stdin=stdin is None)

    sys.exit(_exit_code(call(socket_path, session, failure_code=EXIT_OWN_FAILURE)))


async def _attend(command: RemoteCommand, *, streams_stdin: bool) -> CommandExit:
    """Connects a command with our own stdin, stdout, stderr and signals until it ends."""
    async with trio.open_nursery() as nursery:
        await nursery.start(_forward_signals, command)
        if streams_stdin:
            nursery.start_soon(forward_stdin, command)
        ended = await _write_output(command)
        nursery.cancel_scope.cancel(reason="the command has ended")
    return ended


async def _write_output(command: RemoteCommand) -> CommandExit:
    ended: CommandExit | None = None
    async for event in command.events():
        match event:
            case Output(stream=stream, data=data):
                try:
                    await trio.to_thread.run_sync(_write, _TARGETS[stream], data)
                except BrokenPipeError:
                    await command.send_signal(signal.SIGPIPE)
                except OSError as error:
                    await command.send_signal(signal.SIGKILL)
                    raise OutputError(f"{stream.value} cannot be written to: {error.strerror}") from error
            case CommandExit():
                ended = event
    assert ended is not None, "a command's events end with its exit"
    return ended


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


async def _forward_signals(
    command: RemoteCommand, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(*_FORWARDED) as received:
        task_status.started()
        async for number in received:
            await command.send_signal(number)


def _exit_code(ended: CommandExit) -> int:
    """As a shell says it: 128 + n for a signal; 124 for the time limit, as timeout(1) does."""
    if ended.timed_out:
        return 124
    if ended.signal is not None:
        return 128 + ended.signal
    assert ended.status is not None
    return ended.status
