"""`vmpool run`, `exec` and `shell`: a command in a VM, with its stdin, output, signals and exit code, or a terminal."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from pool.cli.attend import EXIT_LEFT, attend, attend_at_terminal, exit_code
from pool.cli.command_options import Started, command_options
from pool.cli.connection import call
from pool.cli.guest_command import GuestCommand
from pool.cli.leasing import Asked, acquire_options, tell_match
from pool.cli.names import LEASE, LEASE_OR_PROFILE
from pool.cli.options import EXIT_OWN_FAILURE, socket_option
from pool.cli.signals import Signals
from pool.cli.stdin import known_stdin
from pool.cli.terminal import is_terminal, terminal_like_ours
from pool.cli.words import TEXT
from vmpool import CallError

if TYPE_CHECKING:
    from vmpool import Pool, Vm

_LOGIN: Final = (
    'shell=$(grep "^$(id -un):" /etc/passwd | cut -d: -f7); export SHELL="${shell:-/bin/sh}"; exec "$SHELL" -l'
)
"""For the guest's /bin/sh: becomes the login shell of its user."""


def _stream_options(command: Any) -> Any:
    given = (
        click.option(
            "--interactive", "-i", is_flag=True, expose_value=False, help="No effect: stdin is always passed on."
        ),
        click.option(
            "--tty",
            "-t",
            "terminal",
            is_flag=True,
            help="Give the command a terminal; ours, if there is one, with the escape ~. to leave it.",
        ),
        click.option(
            "--stdin-first",
            is_flag=True,
            help="Read all of stdin, at most 256 KiB, before the command starts. Needed with qemu-ga.",
        ),
    )
    for option in reversed(given):
        command = option(command)
    return command


_standalone_option: Final = click.option(
    "--standalone",
    "own_service",
    is_flag=True,
    help="Start a service for this command alone, which leaves nothing; its VM boots first.",
)


@click.command(cls=GuestCommand)
@acquire_options
@command_options
@_stream_options
@_standalone_option
@socket_option
def run(
    *, asked: Asked, started: Started, own_service: bool, terminal: bool, stdin_first: bool, socket_path: Path
) -> None:
    """Acquire a VM, run a command in it, release it.

    Passes stdin, stdout, stderr and the exit code. Ctrl-C is sent to the command; a second Ctrl-C ends vmpool. Exit
    code 125: vmpool itself failed.

    With -t the command has a terminal, and Ctrl-C is a key: to leave, type ~. at the beginning of a line. ~^Z suspends
    vmpool, and ~~ is a tilde.
    """
    signals = Signals()

    async def session(pool: Pool) -> int:
        execute = await _prepared(started, signals, terminal=terminal, stdin_first=stdin_first)
        async with pool.vm(**asked.arguments()) as vm:
            tell_match(vm.match)
            return await execute(vm)

    sys.exit(call(socket_path, session, failure_code=EXIT_OWN_FAILURE, signals=signals, own_service=own_service))


@click.command("exec", cls=GuestCommand)
@click.argument("lease", type=LEASE)
@command_options
@_stream_options
@socket_option
def exec_(*, lease: str, started: Started, terminal: bool, stdin_first: bool, socket_path: Path) -> None:
    """Run a command in a leased VM. Otherwise as `vmpool run`."""
    signals = Signals()

    async def session(pool: Pool) -> int:
        execute = await _prepared(started, signals, terminal=terminal, stdin_first=stdin_first)
        return await execute(await pool.get(lease))

    sys.exit(call(socket_path, session, failure_code=EXIT_OWN_FAILURE, signals=signals))


@click.command()
@click.argument("target", required=False, type=LEASE_OR_PROFILE, metavar="[LEASE|PROFILE]")
@click.option("--user", "-u", type=TEXT, help="User in the guest, by name or number; default: root.")
@acquire_options
@_standalone_option
@socket_option
def shell(*, target: str | None, user: str | None, asked: Asked, own_service: bool, socket_path: Path) -> None:
    """Work in a VM at its login shell: in one that is leased, or in a new one, which ends with the shell.

    All keys are the guest's. To leave without ending the shell yourself, type ~. at the beginning of a line. ~^Z
    suspends vmpool, and ~~ is a tilde. The exit code is the shell's; 125: vmpool itself failed.
    """
    if target is not None and asked.profile:
        raise click.UsageError("Name the profile once, by --profile or without.")
    started = Started(
        command=_LOGIN,
        environment={},
        cwd=None,
        user=user or "",
        groups=(),
        timeout=None,
        limits={},
        leave_children=False,
    )
    signals = Signals()

    async def session(pool: Pool) -> int:
        execute = await _prepared(started, signals, terminal=True)
        leased = await _leased(pool, target)
        if leased is not None:
            if not asked.nothing:
                raise click.UsageError(f"{target!r} is leased already; options of a new VM have no effect on it.")
            return await execute(leased)
        request = asked if target is None else attrs.evolve(asked, profile=target)
        async with pool.vm(**request.arguments()) as vm:
            tell_match(vm.match)
            return await execute(vm)

    sys.exit(call(socket_path, session, failure_code=EXIT_OWN_FAILURE, signals=signals, own_service=own_service))


async def _leased(pool: Pool, target: str | None) -> Vm | None:
    """None if there is no such lease; then it may be a profile."""
    if target is None:
        return None
    try:
        return await pool.get(target)
    except CallError as error:
        if error.status != "NOT_FOUND":
            raise
        return None


async def _prepared(
    started: Started, signals: Signals, *, terminal: bool, stdin_first: bool = False
) -> Callable[[Vm], Awaitable[int]]:
    """What runs a command in a VM and returns its exit code. What is wrong with stdin is told before a VM is taken."""
    if terminal and stdin_first:
        raise click.UsageError("--tty excludes --stdin-first: a terminal's input comes as it is typed.")
    stdin = None if terminal else await known_stdin(all_of_it=stdin_first)

    async def execute(vm: Vm) -> int:
        async with vm.exec(
            **started.arguments(), stdin=stdin, terminal=terminal_like_ours() if terminal else None
        ) as command:
            if not (terminal and is_terminal()):
                return exit_code(await attend(command, signals, streams_stdin=stdin is None))
            ended = await attend_at_terminal(command, signals)
            return EXIT_LEFT if ended is None else exit_code(ended)

    return execute
