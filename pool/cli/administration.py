"""`vmpool resize`, `drain`, `undrain`, `evict` and `reset`: for root and the service's own user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pool.cli.connection import ask_service
from pool.cli.names import PROFILE, VM
from pool.cli.options import socket_option
from pool.cli.words import MAX_UINT32

if TYPE_CHECKING:
    from vmpool import Client


@click.command()
@click.argument("profile", type=PROFILE)
@click.argument("size", type=click.IntRange(min=0, max=MAX_UINT32))
@socket_option
def resize(*, profile: str, size: int, socket_path: Path) -> None:
    """Change the size of a pool until the service restarts."""

    async def ask(client: Client) -> None:
        await client.resize(profile, size)

    ask_service(socket_path, ask)


@click.command()
@click.argument("profile", type=PROFILE)
@socket_option
def drain(*, profile: str, socket_path: Path) -> None:
    """Stop handing out and producing VMs of a profile. Waiting requests are refused, idle VMs are stopped, and leases
    continue.

    `vmpool undrain` ends the drain.
    """

    async def ask(client: Client) -> None:
        await client.drain(profile)

    ask_service(socket_path, ask)


@click.command()
@click.argument("profile", type=PROFILE)
@socket_option
def undrain(*, profile: str, socket_path: Path) -> None:
    """End a drain; the pool fills again."""

    async def ask(client: Client) -> None:
        await client.undrain(profile)

    ask_service(socket_path, ask)


@click.command()
@click.argument("vm_id", required=False, type=VM)
@click.option("--profile", type=PROFILE, help="Replace all idle VMs of this profile, a few at a time.")
@socket_option
def evict(*, vm_id: str | None, profile: str | None, socket_path: Path) -> None:
    """Stop one idle VM, or replace all idle VMs of a profile. `vmpool watch` lists the VMs."""
    if (vm_id is None) == (profile is None):
        raise click.UsageError("Name either a VM, or a profile with --profile.")

    async def ask(client: Client) -> None:
        if vm_id is not None:
            await client.evict(vm_id)
        else:
            await client.evict_all(profile or "")

    ask_service(socket_path, ask)


@click.command()
@click.argument("profile", type=PROFILE)
@socket_option
def reset(*, profile: str, socket_path: Path) -> None:
    """Forget a profile's failed productions: the next one starts now, and the circuit is closed."""

    async def ask(client: Client) -> None:
        await client.reset(profile)

    ask_service(socket_path, ask)
