"""`vmpool resize`, `drain`, `resume`, `evict` and `reset`: for root and the service's own user."""

from __future__ import annotations

from pathlib import Path

import click

from pool.cli.connection import call
from pool.cli.options import socket_option
from pool.cli.words import MAX_UINT32, TEXT
from vmpool.client import Client


@click.command()
@click.argument("profile", type=TEXT)
@click.argument("size", type=click.IntRange(min=0, max=MAX_UINT32))
@socket_option
def resize(*, profile: str, size: int, socket_path: Path) -> None:
    """Give a pool another size, until the service is started anew."""

    async def ask(client: Client) -> None:
        await client.resize(profile, size)

    call(socket_path, ask)


@click.command()
@click.argument("profile", type=TEXT)
@socket_option
def drain(*, profile: str, socket_path: Path) -> None:
    """Hand out and produce no more VMs of a profile: who waits is refused, idle VMs are stopped, leases go on.

    `vmpool undrain` ends it.
    """

    async def ask(client: Client) -> None:
        await client.drain(profile)

    call(socket_path, ask)


@click.command()
@click.argument("profile", type=TEXT)
@socket_option
def undrain(*, profile: str, socket_path: Path) -> None:
    """End a drain: the pool is filled again."""

    async def ask(client: Client) -> None:
        await client.undrain(profile)

    call(socket_path, ask)


@click.command()
@click.argument("vm_id", required=False, type=TEXT)
@click.option("--profile", type=TEXT, help="All idle VMs of this one, replaced a few at a time.")
@socket_option
def evict(*, vm_id: str | None, profile: str | None, socket_path: Path) -> None:
    """Stop one idle VM, or have all idle VMs of a profile replaced. `vmpool watch` shows which VMs there are."""
    if (vm_id is None) == (profile is None):
        raise click.UsageError("Name a VM, or a profile with --profile.")

    async def ask(client: Client) -> None:
        if vm_id is not None:
            await client.evict(vm_id)
        else:
            await client.evict_all(profile or "")

    call(socket_path, ask)


@click.command()
@click.argument("profile", type=TEXT)
@socket_option
def reset(*, profile: str, socket_path: Path) -> None:
    """Forget the failures of a profile's production: it is tried again now, and its circuit is closed."""

    async def ask(client: Client) -> None:
        await client.reset(profile)

    call(socket_path, ask)
