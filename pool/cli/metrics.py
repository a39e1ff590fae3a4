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
    """Show the service's metrics in Prometheus' text format.

    With `[metrics] listen` in the service's configuration, Prometheus can scrape them.
    """

    async def ask(client: Client) -> str:
        return await client.metrics()

    say(call(socket_path, ask).rstrip("\n"))
