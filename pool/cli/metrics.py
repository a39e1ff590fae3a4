"""`vmpool metrics`."""

from __future__ import annotations

from pathlib import Path

import click

from pool.cli.connection import call
from pool.cli.options import socket_option
from pool.cli.output import say
from vmpool.client import Client


@click.command()
@socket_option
def metrics(*, socket_path: Path) -> None:
    """Show what the service counts and measures, in Prometheus' text format.

    With `[metrics] listen` in its configuration Prometheus can scrape the same.
    """

    async def ask(client: Client) -> str:
        return await client.metrics()

    say(call(socket_path, ask).rstrip("\n"))
