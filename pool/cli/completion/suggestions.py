"""What a service has that could complete a word.

Whoever presses TAB wants neither messages between the words nor to wait: a service that does not answer soon, or
refuses, has nothing to offer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import click
import trio
from click.shell_completion import CompletionItem

from pool.cli.completion.shells import PART
from pool.host.paths import default_socket
from pool.observe.terminal import visible
from vmpool.client import Client, ClientError, Snapshot, open_client

LIMIT_S: Final = 1.0

T = TypeVar("T")
Items = list[CompletionItem[str]]


def leases(ctx: click.Context, incomplete: str, *, then: str = "") -> Items:
    """Those that the caller may see; `then` is to follow, and something else behind it."""
    status = _ask(ctx, Client.status)
    return [
        CompletionItem(
            f"{lease.lease_id}{then}",
            type=PART if then else "plain",
            help=visible(" ".join((lease.vm_id, *(f"{key}={value}" for key, value in lease.labels.items()))), kept=""),
        )
        for lease in (status.leases if status else ())
        if lease.lease_id.startswith(incomplete)
    ]


def profiles(ctx: click.Context, incomplete: str) -> Items:
    status = _ask(ctx, Client.status)
    return [
        CompletionItem(profile.name, help=f"{profile.ready} of {profile.size} VMs ready")
        for profile in (status.profiles if status else ())
        if profile.name.startswith(incomplete)
    ]


def vms(ctx: click.Context, incomplete: str) -> Items:
    snapshot = _ask(ctx, _snapshot)
    return [
        CompletionItem(vm.vm_id, help=f"{vm.state}, of profile {vm.profile}")
        for vm in (snapshot.vms if snapshot else ())
        if vm.vm_id.startswith(incomplete)
    ]


async def _snapshot(client: Client) -> Snapshot | None:
    async with client.watch() as changes:
        async for change in changes:
            if isinstance(change, Snapshot):
                return change
    return None


def _ask(ctx: click.Context, do: Callable[[Client], Awaitable[T]]) -> T | None:
    socket_path: Path = ctx.params.get("socket_path") or default_socket()

    async def session() -> T | None:
        with trio.move_on_after(LIMIT_S):
            async with open_client(socket_path) as client:
                return await do(client)
        return None

    answer = None
    try:
        answer = trio.run(session)
    except* ClientError:
        pass
    return answer
