"""The text output of commands, made safe for terminals. A guest's output is passed on unchanged, and JSON is escaped.

Results go to stdout, and a failed write is an error. Remarks go to stderr, and a failed write is ignored: there is no
other place to report it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

import click
import trio

from pool.cli.streams import STDOUT, NobodyReadsError
from pool.observe.terminal import visible

PREFIX: Final = "vmpool: "
"""Of error messages."""


class OutputError(Exception):
    """stdout, stderr or stdin cannot be used."""


def say(text: str) -> None:
    """Prints text without control sequences. Raises OSError."""
    click.echo(visible(text))


def remark(text: str) -> None:
    """As `say`, on stderr. Never raises OSError."""
    with contextlib.suppress(OSError):
        click.echo(visible(text), err=True)


async def deliver(text: str) -> None:
    """As `say`, but returns when the text is written, and raises as `write_to` does."""
    await write_to(STDOUT, f"{visible(text)}\n".encode(sys.stdout.encoding, "backslashreplace"))


async def write_to(descriptor: int, data: bytes) -> None:
    """Writes all data to stdout or stderr; cancelled, it drops the rest. Raises NobodyReadsError, OutputError."""
    try:
        # In a thread, as the reader may never read. An abandoned thread does not keep the process alive.
        await trio.to_thread.run_sync(_write, descriptor, data, abandon_on_cancel=True)
    except BrokenPipeError as error:
        raise NobodyReadsError from error
    except OSError as error:
        name = "stdout" if descriptor == STDOUT else "stderr"
        raise OutputError(f"cannot write to {name}: {error.strerror}") from error


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns, safe for a terminal; the last column is as wide as it likes."""
    safe = [[visible(text, kept="") for text in row] for row in rows]
    widths = [max(map(len, column)) for column in list(zip(*safe, strict=True))[:-1]]
    return ["  ".join((*map(str.ljust, row, widths), row[-1])).rstrip() for row in safe]


def quoted(text: str) -> str:
    """The output of another vmpool process without its prefix, to be quoted in a message that has the prefix."""
    return "\n".join(line.removeprefix(PREFIX) for line in text.splitlines())


class StderrHandler(logging.Handler):
    """Prints the client's log records as `remark` does."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            remark(self.format(record))
        except Exception:  # noqa: BLE001 - a failed log must not cost a lease
            self.handleError(record)
