"""`vmpool start`, `ps`, `logs`, `attach` and `kill`: processes of a leased VM that outlive the command."""

from __future__ import annotations

import json as json_module
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from pool.cli.attend import attend_at_terminal, attend_detached, exit_code, show_output
from pool.cli.command_options import Started, command_options
from pool.cli.connection import call
from pool.cli.guest_command import GuestCommand
from pool.cli.names import LEASE, PROCESS
from pool.cli.options import socket_option
from pool.cli.output import aligned, deliver, say, write_to
from pool.cli.signals import Signals
from pool.cli.streams import STDERR, STDOUT
from pool.cli.terminal import is_terminal, terminal_like_ours
from pool.cli.words import TEXT
from vmpool import CallError, CommandExit, ProcessInfo

if TYPE_CHECKING:
    from vmpool import DetachedProcess, Pool, Vm

MAX_KEPT: Final = 2**20


class _Signal(click.ParamType[int]):
    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """TERM, SIGTERM or 15."""
        if isinstance(value, int):
            return int(value)
        text = str(value).upper()
        if text.isascii() and text.isdigit() and 0 < int(text) <= signal.NSIG:
            return int(text)
        try:
            return int(signal.Signals["SIG" + text.removeprefix("SIG")])
        except KeyError:
            self.fail(f"{value!r} is no signal; TERM and 15 are, for example.", param, ctx)


@click.command(cls=GuestCommand)
@click.argument("lease", type=LEASE)
@command_options
@click.option("--tag", type=TEXT, help="A name for it, which other commands take in place of its id.")
@click.option(
    "--keep",
    "keep_bytes",
    type=click.IntRange(min=1, max=MAX_KEPT),
    help="Bytes of each of stdout and stderr that the guest keeps; default: 1 MiB.",
)
@click.option("--tty", "-t", "terminal", is_flag=True, help="Give it a terminal, for `vmpool attach`.")
@socket_option
def start(
    *, lease: str, started: Started, tag: str | None, keep_bytes: int | None, terminal: bool, socket_path: Path
) -> None:
    """Start a process in a leased VM, and print its id. It belongs to the lease: it goes on when this command, or the
    service, has ended.

    The guest keeps the end of its output for `vmpool logs`, and how it ended for `vmpool ps --all`.
    """

    async def begin(pool: Pool) -> None:
        process = await (await pool.get(lease)).start(
            **started.arguments(),
            tag=tag or "",
            keep_bytes=keep_bytes,
            terminal=terminal_like_ours() if terminal else None,
        )
        await deliver(str(process.process_id))

    call(socket_path, begin)


@click.command()
@click.argument("lease", type=LEASE)
@click.option("--all", "-a", "ended_too", is_flag=True, help="Also those of `vmpool start` that have ended.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@socket_option
def ps(*, lease: str, ended_too: bool, as_json: bool, socket_path: Path) -> None:
    """List the processes of a leased VM that vmpool has started, by whatever command."""

    async def ask(pool: Pool) -> list[ProcessInfo]:
        return await (await pool.get(lease)).processes()

    found = [process for process in call(socket_path, ask) if ended_too or process.exit is None]
    if as_json:
        say(json_module.dumps([attrs.asdict(process) for process in found], indent=2))
        return
    rows = [("ID", "PID", "TAG", "USER", "STATUS", "COMMAND"), *map(_row, found)]
    say("\n".join(aligned(rows)))


def _row(process: ProcessInfo) -> tuple[str, ...]:
    return (
        str(process.process_id),
        str(process.pid),
        process.tag or "-",
        process.user or "root",
        _status(process),
        shlex.join(process.argv),
    )


def _status(process: ProcessInfo) -> str:
    if process.exit is not None:
        return process.exit.describe()
    return "running, attached" if process.attached else "running"


@click.command()
@click.argument("lease", type=LEASE)
@click.argument("process", type=PROCESS)
@click.option("--follow", "-f", is_flag=True, help="Go on with what it writes, until it ends.")
@click.option(
    "--tail", "tail_bytes", type=click.IntRange(min=0, max=MAX_KEPT), help="Only the last so many bytes of each stream."
)
@socket_option
def logs(*, lease: str, process: str, follow: bool, tail_bytes: int | None, socket_path: Path) -> None:
    """Print what a process of `vmpool start` has written, as far as the guest keeps it: its stdout to stdout, its
    stderr to stderr. What is not kept any more is told on stderr.
    """

    async def show(pool: Pool) -> None:
        found = await find(await pool.get(lease), process)
        if follow:
            async with found.attach(_from(found.info, tail_bytes)) as attachment:
                await show_output(attachment.events())
            return
        kept = await found.output()
        await write_to(STDOUT, _tail(kept.stdout, tail_bytes))
        await write_to(STDERR, _tail(kept.stderr, tail_bytes))

    call(socket_path, show)


def _tail(data: bytes, count: int | None) -> bytes:
    return data if count is None else data[max(len(data) - count, 0) :]


def _from(info: ProcessInfo, tail_bytes: int | None) -> tuple[int, int]:
    if tail_bytes is None:
        return 0, 0
    return max(info.stdout_end - tail_bytes, 0), max(info.stderr_end - tail_bytes, 0)


@click.command()
@click.argument("lease", type=LEASE)
@click.argument("process", type=PROCESS)
@click.option("--no-stdin", is_flag=True, help="Only look: pass neither stdin nor signals on.")
@socket_option
def attach(*, lease: str, process: str, no_stdin: bool, socket_path: Path) -> None:
    """Connect with a process of `vmpool start`: what it writes from now on, stdin, signals, and its exit code.

    The end of this command leaves the process alone; so does the end of stdin. At a terminal of the process, type ~. at
    the beginning of a line to leave it. Otherwise the first Ctrl-C is sent to the process, and a second one leaves it.
    """
    signals = Signals()

    async def connect(pool: Pool) -> CommandExit | None:
        found = await find(await pool.get(lease), process)
        async with found.attach(None) as attachment:
            if no_stdin:
                return await show_output(attachment.events())
            if found.info.terminal and is_terminal():
                terminal = terminal_like_ours()
                await attachment.resize(terminal.rows, terminal.columns)
                return await attend_at_terminal(attachment, signals)
            return await attend_detached(attachment, signals)

    ended = call(socket_path, connect, signals=signals)
    if ended is not None:
        sys.exit(exit_code(ended))


@click.command()
@click.argument("lease", type=LEASE)
@click.argument("process", type=PROCESS)
@click.option("--signal", "-s", "number", type=_Signal(), default="TERM", show_default=True, help="By name or number.")
@click.option(
    "--all", "everything", is_flag=True, help="To all that it has started, in whatever group or session they are."
)
@socket_option
def kill(*, lease: str, process: str, number: int, everything: bool, socket_path: Path) -> None:
    """Send a signal to the process group of a process of `vmpool start`. (`vmpool release` ends a lease.)"""

    async def send(pool: Pool) -> None:
        await (await find(await pool.get(lease), process)).signal(number, everything=everything)

    call(socket_path, send)


async def find(vm: Vm, id_or_tag: str) -> DetachedProcess:
    """A number is an id, or else a tag."""
    if id_or_tag.isascii() and id_or_tag.isdigit():
        try:
            return await vm.process(int(id_or_tag))
        except CallError as error:
            if error.status != "NOT_FOUND":
                raise
    return await vm.process(id_or_tag)
