"""What commands say in their own words. A guest's output goes its own way, as it is; JSON escapes what it quotes."""

from __future__ import annotations

import logging
from typing import Final

import click

from pool.terminal import visible

PREFIX: Final = "vmpool: "
"""Of what a command says that went wrong: who says so."""


def say(text: str, *, to_stderr: bool = False) -> None:
    """Prints a line or several: whatever they quote gives the terminal no orders. Raises OSError."""
    click.echo(visible(text), err=to_stderr)


def quoted(text: str) -> str:
    """What another vmpool has said, to be told in our words: they have the prefix already."""
    return "\n".join(line.removeprefix(PREFIX) for line in text.splitlines())


class StderrHandler(logging.Handler):
    """Says what the client logs, as `say` does."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            say(self.format(record), to_stderr=True)
        except Exception:  # noqa: BLE001 - a log that cannot be written costs no lease; logging knows what to do
            self.handleError(record)
