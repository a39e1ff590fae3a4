"""What commands say in their own words. A guest's output goes its own way, as it is; JSON escapes what it quotes."""

from __future__ import annotations

import click

from pool.terminal import visible


def say(text: str, *, to_stderr: bool = False) -> None:
    """Prints a line or several: whatever they quote gives the terminal no orders. Raises OSError."""
    click.echo(visible(text), err=to_stderr)
