"""`vmpool status`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from pool.cli.connection import ask_service
from pool.cli.leasing import render_lease
from pool.cli.options import socket_option
from pool.cli.output import aligned, say
from pool.observe.terminal import visible
from vmpool import CircuitState, ProfileStatus, ServiceStatus

if TYPE_CHECKING:
    from vmpool import Client

_COLUMNS = ("profile", "size", "ready", "producing", "leased", "waiting", "hits", "misses", "producer", "boot")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@socket_option
def status(*, as_json: bool, socket_path: Path) -> None:
    """Show the service and its pools."""

    async def ask(client: Client) -> ServiceStatus:
        return await client.status()

    answer = ask_service(socket_path, ask)
    say(json_module.dumps(attrs.asdict(answer), indent=2) if as_json else _render(answer))


def _render(answer: ServiceStatus) -> str:
    state = "draining" if answer.draining else "running"
    lines = [f"vmpool {answer.version}, pid {answer.pid}, {state} for {answer.uptime_s:.0f} s", ""]
    lines += render_profiles(answer.profiles)
    lines += [visible(line, kept="") for line in _confinement(answer)]
    if answer.fallbacks:
        lines.append(f"{answer.fallbacks} requests with a configuration of their own matched no pool")
    if answer.leases:
        lines += ["", *(render_lease(lease) for lease in answer.leases)]
    return "\n".join(lines)


def _confinement(answer: ServiceStatus) -> list[str]:
    """The missing layers, with the reasons."""
    return [f"not confined by {layer.name}: {layer.detail}" for layer in answer.confinement if not layer.applied]


def render_profiles(profiles: tuple[ProfileStatus, ...]) -> list[str]:
    """A table, and below it the unusual conditions."""
    lines = aligned([_COLUMNS, *map(_row, profiles)])
    for profile in profiles:
        lines += [visible(f"{profile.name}: {remark}", kept="") for remark in _remarks(profile)]
    return lines


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


def _remarks(profile: ProfileStatus) -> list[str]:
    counters = profile.counters
    lines = []
    if profile.drained:
        lines.append(f"drained; `vmpool undrain {profile.name}` ends the drain")
    if profile.max_vms is not None:
        lines.append(f"at most {profile.max_vms} VMs")
    if profile.held_back:
        lines.append(f"held back: {profile.held_back}")
    if profile.shells:
        lines.append(f"{profile.shells} shells wait for a guest")
    if profile.stale:
        lines.append(f"{profile.stale} stale VMs are being replaced")
    if counters.adopted or counters.restored:
        lines.append(f"idle VMs adopted: {counters.adopted}, leases restored: {counters.restored}")
    if counters.evicted:
        lines.append(f"idle VMs evicted: {counters.evicted}")
    if not profile.producer.ready:
        lines.append(f"producer not ready: {profile.producer.detail}")
    if profile.failures_in_a_row:
        lines.append(f"{profile.failures_in_a_row} failed productions in a row, {_next_try(profile)}")
    if profile.last_error:
        lines.append(f"last error: {profile.last_error}")
    return lines


def _next_try(profile: ProfileStatus) -> str:
    match profile.circuit:
        case CircuitState.OPEN:
            return f"circuit open for {profile.retry_in_s:.1f} s"
        case CircuitState.HALF_OPEN:
            return "circuit half open: one VM is being tried"
        case _:
            return f"next try in {profile.retry_in_s:.1f} s"
