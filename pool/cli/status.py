"""`vmpool status`."""

from __future__ import annotations

import json as json_module
from pathlib import Path

import attrs
import click

from pool.cli.connection import call
from pool.cli.options import socket_option
from pool.client import Client, LeaseStatus, ProfileStatus, ServiceStatus

_COLUMNS = ("profile", "size", "ready", "producing", "leased", "waiting", "hits", "misses", "producer", "boot")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@socket_option
def status(*, as_json: bool, socket_path: Path) -> None:
    """Show the service and its pools."""

    async def ask(client: Client) -> ServiceStatus:
        return await client.status()

    answer = call(socket_path, ask)
    click.echo(json_module.dumps(attrs.asdict(answer), indent=2) if as_json else _render(answer))


def _render(answer: ServiceStatus) -> str:
    state = "draining" if answer.draining else "running"
    lines = [f"vmpool {answer.version}, pid {answer.pid}, {state} for {answer.uptime_s:.0f} s", ""]
    rows = [_COLUMNS, *(_row(profile) for profile in answer.profiles)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for profile in answer.profiles:
        lines += _trouble(profile)
    if answer.leases:
        lines.append("")
        lines += [
            f"lease {lease.lease_id}  {lease.vm_id}  uid {lease.owner_uid}  {lease.age_s:.0f} s old, {_rest(lease)}"
            for lease in answer.leases
        ]
    return "\n".join(lines)


def _rest(lease: LeaseStatus) -> str:
    return "held open" if lease.expires_in_s is None else f"{lease.expires_in_s:.0f} s left"


def _row(profile: ProfileStatus) -> tuple[str, ...]:
    producer = profile.producer
    return (
        profile.name,
        str(profile.size),
        str(profile.ready),
        str(profile.producing),
        str(profile.leased),
        str(profile.waiting),
        str(profile.counters.hits),
        str(profile.counters.misses),
        f"{producer.kind}/{producer.accelerator or '?'}",
        f"{profile.last_production_s:.2f} s" if profile.last_production_s else "-",
    )


def _trouble(profile: ProfileStatus) -> list[str]:
    lines = []
    if profile.shells:
        lines.append(f"{profile.name}: {profile.shells} shells wait for a guest")
    if profile.stale:
        lines.append(f"{profile.name}: {profile.stale} stale VMs are being replaced")
    if not profile.producer.ready:
        lines.append(f"{profile.name}: producer not ready: {profile.producer.detail}")
    if profile.failures_in_a_row:
        lines.append(
            f"{profile.name}: {profile.failures_in_a_row} failed productions in a row, "
            f"next try in {profile.retry_in_s:.1f} s"
        )
    if profile.last_error:
        lines.append(f"{profile.name}: last error: {profile.last_error}")
    return lines
