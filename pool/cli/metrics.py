"""`vmpool metrics`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from pool.cli.connection import ask_service, call
from pool.cli.names import LEASE
from pool.cli.options import socket_option
from pool.cli.output import aligned, say
from vmpool import VmMetrics

if TYPE_CHECKING:
    from vmpool import Client, Pool


@click.command()
@click.argument("lease", required=False, type=LEASE)
@click.option("--json", "as_json", is_flag=True, help="Those of a VM as JSON.")
@socket_option
def metrics(*, lease: str | None, as_json: bool, socket_path: Path) -> None:
    """Show what a leased VM uses: CPU, memory, processes, disk. Without a lease: the service's metrics, in Prometheus'
    text format.

    With `[metrics] listen` in the service's configuration, Prometheus can scrape them.
    """
    if lease is None:
        if as_json:
            raise click.UsageError("--json is for the metrics of a VM; name a lease.")

        async def ask(client: Client) -> str:
            return await client.metrics()

        say(ask_service(socket_path, ask).rstrip("\n"))
        return

    async def ask_vm(pool: Pool) -> VmMetrics:
        return await (await pool.get(lease)).metrics()

    used = call(socket_path, ask_vm)
    say(json_module.dumps(attrs.asdict(used), indent=2) if as_json else _render(used))


def _render(used: VmMetrics) -> str:
    memory = used.memory_total_bytes - used.memory_available_bytes
    disk = used.disk_total_bytes - used.disk_available_bytes
    return "\n".join(
        aligned(
            [
                ("CPU", f"{used.cpu_share:.1%} of {used.cpus_online} CPUs, load {used.load_1m:.2f}"),
                ("memory", f"{_mib(memory)} of {_mib(used.memory_total_bytes)} used"),
                ("disk", f"{_mib(disk)} of {_mib(used.disk_total_bytes)} used"),
                ("processes", str(used.processes)),
                ("up for", f"{used.uptime_s:.0f} s"),
            ]
        )
    )


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
