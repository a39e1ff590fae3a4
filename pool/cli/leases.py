"""`vmpool leases`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from pool.cli.connection import call
from pool.cli.options import socket_option
from pool.cli.output import aligned, say
from pool.cli.words import LABEL
from vmpool import LeaseStatus

if TYPE_CHECKING:
    from vmpool import Pool


@click.command()
@click.option(
    "--label",
    "labels",
    multiple=True,
    type=LABEL,
    metavar="KEY=VALUE",
    help="Only leases with this label; can be repeated.",
)
@click.option("--quiet", "-q", is_flag=True, help="Only the ids, for `vmpool release`.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@socket_option
def leases(*, labels: tuple[tuple[str, str], ...], quiet: bool, as_json: bool, socket_path: Path) -> None:
    """List your leases, the oldest first; root sees those of all users."""

    async def ask(pool: Pool) -> list[LeaseStatus]:
        return await pool.leases(dict(labels))

    found = call(socket_path, ask)
    if as_json:
        say(json_module.dumps([attrs.asdict(lease) for lease in found], indent=2))
    elif quiet:
        for lease in found:
            say(lease.lease_id)
    else:
        rows = [("LEASE", "NAME", "VM", "PROFILE", "UID", "AGE", "ENDS", "LABELS"), *map(_row, found)]
        say("\n".join(aligned(rows)))


def _row(lease: LeaseStatus) -> tuple[str, ...]:
    return (
        lease.lease_id,
        lease.name or "-",
        lease.vm_id,
        lease.profile or "-",
        str(lease.owner_uid),
        f"{lease.age_s:.0f} s",
        "with its call" if lease.expires_in_s is None else f"in {lease.expires_in_s:.0f} s",
        " ".join(f"{key}={value}" for key, value in lease.labels.items()),
    )
