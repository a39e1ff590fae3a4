"""`vmpool acquire`, `renew` and `release`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click
import trio

from pool.cli.connection import call
from pool.cli.leasing import Asked, acquire_options, tell_match
from pool.cli.names import LEASE
from pool.cli.options import socket_option
from pool.cli.output import deliver, remark
from pool.cli.words import SECONDS, TEXT
from vmpool import CallError, ClientError

if TYPE_CHECKING:
    from vmpool import Pool, Vm

GIVE_BACK_LIMIT_S: Final = 5.0
"""For the release of a lease that nobody knows of; it is not cancelled."""


@click.command()
@acquire_options
@click.option("--key", type=TEXT, help="Idempotency key: the same key returns the same lease until that lease ends.")
@click.option(
    "--ttl", "ttl_s", type=SECONDS, help="Seconds until the lease ends, unless renewed; default: the profile's."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole lease as JSON.")
@socket_option
def acquire(
    *,
    asked: Asked,
    key: str | None,
    ttl_s: float | None,
    as_json: bool,
    socket_path: Path,
) -> None:
    """Acquire a VM and print its lease id. The lease ends with `vmpool release`, or when its time to live is over.

    A lease whose id cannot be printed is released at once, unless it has a --key: another command may know that key.
    """

    async def take(pool: Pool) -> None:
        vm = await pool.acquire(
            **asked.arguments(),
            idempotency_key=key or "",
            ttl=ttl_s,
        )
        try:
            tell_match(vm.match)
            await deliver(json_module.dumps(attrs.asdict(vm.lease), indent=2) if as_json else vm.lease_id)
        except BaseException:
            remark(f"vmpool: {await _give_back(vm) if key is None else _kept(vm, key)}")
            raise

    call(socket_path, take)


async def _give_back(vm: Vm) -> str:
    """Releases a lease whose id could not be printed; returns a remark on it."""
    with trio.move_on_after(GIVE_BACK_LIMIT_S, shield=True):
        try:
            await vm.release()
        except ClientError as error:
            return f"{vm.lease_id} could not be printed or released: {error}"
        return f"{vm.lease_id} could not be printed and was released"
    return f"{vm.lease_id} could not be printed, or released within {GIVE_BACK_LIMIT_S:g} s"


def _kept(vm: Vm, key: str) -> str:
    return f"{vm.lease_id} could not be printed; acquire it again with --key {key}, or release it"


@click.command()
@click.argument("lease", type=LEASE)
@click.option("--ttl", "ttl_s", type=SECONDS, required=True, help="Seconds from now until the lease ends.")
@socket_option
def renew(*, lease: str, ttl_s: float, socket_path: Path) -> None:
    """Set the time to live of a lease, counted from now."""

    async def prolong(pool: Pool) -> None:
        await (await pool.get(lease)).renew(ttl_s)

    call(socket_path, prolong)


@click.command()
@click.argument("leases", nargs=-1, required=True, type=LEASE, metavar="LEASE...")
@socket_option
def release(*, leases: tuple[str, ...], socket_path: Path) -> None:
    """End leases and destroy their VMs. A failure is reported, and the other leases are still ended."""

    async def end(pool: Pool) -> None:
        errors = []
        for lease in leases:
            try:
                await (await pool.get(lease)).release()
            except CallError as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("not released", errors)

    call(socket_path, end)
