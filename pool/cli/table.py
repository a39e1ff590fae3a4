"""Tables of untrusted text: neither markup nor control sequences in it take effect."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pool.observe.terminal import visible


def plain_table() -> Table:
    return Table(box=None, show_header=False, pad_edge=False)


def cell(text: str, *, style: str = "") -> Text:
    return Text(visible(text), style=style)


def print_table(table: Table) -> None:
    """Prints on stdout. Raises OSError, where rich would end the process itself."""
    console = Console()
    with console.capture() as captured:
        console.print(table)
    click.echo(captured.get(), nl=False)
