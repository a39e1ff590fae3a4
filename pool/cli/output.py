"""What commands say in their own words. A guest's output goes its own way, as it is; JSON escapes what it quotes.

stdout is for results, and one that cannot be written is an error. stderr is for remarks: if it cannot be written to,
nobody is there to be told of that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Final

import click
import trio

from pool.cli.streams import STDOUT, NobodyReadsError
from pool.observe.terminal import visible

PREFIX: Final = "vmpool: "
"""Of what a command says that went wrong: who says so."""


class OutputError(Exception):
    """What a command says, or wants to know, has nowhere to go or to come from."""


def say(text: str) -> None:
    """Prints a line or several: whatever they quote gives the terminal no orders. Raises OSError."""
    click.echo(visible(text))


def remark(text: str) -> None:
    """As `say`, on stderr. Never raises OSError."""
    with contextlib.suppress(OSError):
        click.echo(visible(text), err=True)


async def deliver(text: str) -> None:
    """As `say`, but returns when it is written, and raises as `write_to` does."""
    await write_to(STDOUT, f"{visible(text)}\n".encode(sys.stdout.encoding, "backslashreplace"))


async def write_to(descriptor: int, data: bytes) -> None:
    """Writes all of it to stdout or stderr; cancelled, it leaves the rest. Raises NobodyReadsError, OutputError."""
    try:
        # In a thread: whoever reads may never do so. One that is left behind does not keep the process.
        await trio.to_thread.run_sync(_write, descriptor, data, abandon_on_cancel=True)
    except BrokenPipeError as error:
        raise NobodyReadsError from error
    except OSError as error:
        name = "stdout" if descriptor == STDOUT else "stderr"
        raise OutputError(f"{name} cannot be written to: {error.strerror}") from error


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def quoted(text: str) -> str:
    """What another vmpool has said, to be told in our words: they have the prefix already."""
    return "\n".join(line.removeprefix(PREFIX) for line in text.splitlines())


class StderrHandler(logging.Handler):
    """Says what the client logs, as `remark` does."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            remark(self.format(record))
        except Exception:  # noqa: BLE001 - a log that cannot be written costs no lease; logging knows what to do
            self.handleError(record)
