"""`vmpool mcp`: virtual machines for a model."""

from __future__ import annotations

from pathlib import Path

import click

from pool.cli.names import PROFILE
from pool.cli.options import EXIT_USAGE, failure, socket_option
from pool.cli.words import MAX_UINT32

_HOW_TO_INSTALL = (
    "the MCP server needs {name}, which is not installed: `.venv/bin/pip install -e '.[mcp]'` in the checkout (for a "
    "wheel: the extra `mcp`)"
)


@click.command()
@click.option("--profile", type=PROFILE, help="Of VMs for which the model names none; default: the one named default.")
@click.option(
    "--max-vms",
    type=click.IntRange(min=1, max=MAX_UINT32),
    default=4,
    show_default=True,
    help="How many VMs there may be at a time.",
)
@click.option("--standalone", is_flag=True, help="Start a service of its own, which ends with it.")
@click.option("--allow-forward", is_flag=True, help="Let the model open ports of its VMs on this host's loopback.")
@socket_option
def mcp(*, profile: str | None, max_vms: int, standalone: bool, allow_forward: bool, socket_path: Path) -> None:
    """Serve virtual machines to a model, by the Model Context Protocol over stdin and stdout.

    An MCP client starts this command. Its VMs end with it.
    """
    try:
        from vmpool.frameworks.mcp_server.server import Settings, serve  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise failure(_HOW_TO_INSTALL.format(name=error.name), code=EXIT_USAGE) from error
    serve(
        Settings(
            socket_path=socket_path,
            own_service=standalone,
            profile=profile or "",
            most_vms=max_vms,
            forward=allow_forward,
        )
    )
