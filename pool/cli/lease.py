"""`vmpool acquire` and `vmpool release`."""

from __future__ import annotations

import json as json_module
from pathlib import Path

import attrs
import click

from pool.cli.acquiring import Asked, acquire_options, tell_match
from pool.cli.connection import call
from pool.cli.options import SECONDS, socket_option
from pool.client import AcquiredVm, Client


@click.command()
@acquire_options
@click.option("--key", default="", help="Idempotency key: the same key gives the same lease while that lives.")
@click.option(
    "--ttl", "ttl_s", type=SECONDS, help="Until the lease ends by itself, unless renewed; default: the profile's."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything, as JSON.")
@socket_option
def acquire(
    *,
    asked: Asked,
    key: str,
    ttl_s: float | None,
    as_json: bool,
    socket_path: Path,
) -> None:
    """Take a VM; prints its lease id. `vmpool release` ends the lease, and so does its time, unless it is renewed."""

    async def take(client: Client) -> AcquiredVm:
        return await client.acquire(
            profile=asked.profile,
            on_empty=asked.on_empty,
            idempotency_key=key,
            wishes=asked.wishes,
            config=asked.config,
            ttl_s=ttl_s,
            timeout_s=asked.wait_s,
        )

    vm = call(socket_path, take)
    tell_match(vm)
    click.echo(json_module.dumps(attrs.asdict(vm), indent=2) if as_json else vm.lease_id)


@click.command()
@click.argument("lease_id")
@click.option("--ttl", "ttl_s", type=SECONDS, required=True, help="From now until the lease ends by itself.")
@socket_option
def renew(*, lease_id: str, ttl_s: float, socket_path: Path) -> None:
    """Let a lease live for a time from now on."""

    async def prolong(client: Client) -> float:
        return await client.renew(lease_id, ttl_s=ttl_s)

    call(socket_path, prolong)


@click.command()
@click.argument("lease_ids", nargs=-1, required=True, metavar="LEASE_ID...")
@socket_option
def release(*, lease_ids: tuple[str, ...], socket_path: Path) -> None:
    """End leases; their VMs are destroyed."""

    async def end(client: Client) -> None:
        for lease_id in lease_ids:
            await client.release(lease_id)

    call(socket_path, end)
