"""`vmpool console`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pool.cli.connection import call
from pool.cli.names import LEASE_OR_VM
from pool.cli.options import socket_option
from pool.cli.output import say
from vmpool import CallError

if TYPE_CHECKING:
    from vmpool import Pool


@click.command()
@click.argument("target", type=LEASE_OR_VM, metavar="LEASE|VM")
@socket_option
def console(*, target: str, socket_path: Path) -> None:
    """Print the end of what a guest wrote to its console, at most 64 KiB: the kernel's messages, mostly.

    The console of a VM that is not leased is for root and the service's own user; `vmpool watch` lists the VMs.
    """

    async def ask(pool: Pool) -> str:
        try:
            vm = await pool.get(target)
        except CallError as error:
            if error.status != "NOT_FOUND":
                raise
            return await pool.console(target)
        return await vm.console()

    say(call(socket_path, ask).rstrip("\n"))
