"""What commands say in their own words. A guest's output goes its own way, as it is; JSON escapes what it quotes."""

from __future__ import annotations

import logging

import click

from pool.terminal import visible


def say(text: str, *, to_stderr: bool = False) -> None:
    """Prints a line or several: whatever they quote gives the terminal no orders. Raises OSError."""
    click.echo(visible(text), err=to_stderr)


class StderrHandler(logging.Handler):
    """Says what the client logs, as `say` does."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            say(self.format(record), to_stderr=True)
        except Exception:  # noqa: BLE001 - a log that cannot be written costs no lease; logging knows what to do
            self.handleError(record)
