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
from vmpool import ClientError, LeaseStatus, Pool, ProcessInfo, Snapshot, connect

LIMIT_S: Final = 1.0

T = TypeVar("T")
Items = list[CompletionItem[str]]


def leases(ctx: click.Context, incomplete: str, *, then: str = "") -> Items:
    """Those that the caller may see, by name if they have one; `then` is to follow, and something else behind it."""
    found = _ask(ctx, Pool.leases) or []
    named = [(word, lease) for lease in found for word in ((lease.name,) if lease.name else ()) + (lease.lease_id,)]
    return [
        CompletionItem(f"{word}{then}", type=PART if then else "plain", help=_about(lease))
        for word, lease in named
        if word.startswith(incomplete)
    ]


def _about(lease: LeaseStatus) -> str:
    return visible(" ".join((lease.vm_id, *(f"{key}={value}" for key, value in lease.labels.items()))), kept="")


def profiles(ctx: click.Context, incomplete: str) -> Items:
    status = _ask(ctx, Pool.status)
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


def processes(ctx: click.Context, incomplete: str) -> Items:
    """Those of `vmpool start`, by tag if they have one."""
    lease = ctx.params.get("lease")
    found = (_ask(ctx, lambda pool: _processes(pool, lease)) if lease else None) or []
    words = [(process.tag or str(process.process_id), process) for process in found if not process.attached]
    return [
        CompletionItem(word, help=visible(" ".join(process.argv), kept=""))
        for word, process in words
        if word.startswith(incomplete)
    ]


def guest_places(ctx: click.Context, incomplete: str) -> Items:
    """LEASE:PATH."""
    lease, colon, path = incomplete.partition(":")
    if "/" in lease:
        return []
    return _paths(ctx, lease, path, before=f"{lease}:") if colon else leases(ctx, incomplete, then=":")


def guest_paths(ctx: click.Context, incomplete: str) -> Items:
    """Of the guest whose lease the line has named."""
    lease = ctx.params.get("lease") or ctx.params.get("place")
    return _paths(ctx, lease, incomplete) if lease else []


def host_paths(_ctx: click.Context, _incomplete: str) -> Items:
    return [CompletionItem("", type="file")]


def _paths(ctx: click.Context, lease: str, path: str, *, before: str = "") -> Items:
    if not path:
        return [CompletionItem(f"{before}/", type=PART)]
    directory, slash, begun = path.rpartition("/")
    if not path.startswith("/"):
        return []
    user = ctx.params.get("user") or ""
    found = _ask(ctx, lambda pool: _listed(pool, lease, directory or "/", user)) or []
    return [
        CompletionItem(f"{before}{directory}{slash}{name}{'/' if is_directory else ''}", type=kind)
        for name, is_directory in sorted(found)
        if name.startswith(begun) and name.isprintable() and (begun or not name.startswith("."))
        for kind in (PART if is_directory else "plain",)
    ]


async def _processes(pool: Pool, lease: str) -> list[ProcessInfo]:
    return await (await pool.get(lease)).processes()


async def _listed(pool: Pool, lease: str, directory: str, user: str) -> list[tuple[str, bool]]:
    files = await (await pool.get(lease)).files.list(directory, user=user)
    return [(file.name, file.is_directory) for file in files]


async def _snapshot(pool: Pool) -> Snapshot | None:
    async with pool.watch() as changes:
        async for change in changes:
            if isinstance(change, Snapshot):
                return change
    return None


def _ask(ctx: click.Context, do: Callable[[Pool], Awaitable[T]]) -> T | None:
    socket_path: Path = ctx.params.get("socket_path") or default_socket()

    async def connected() -> T | None:
        with trio.move_on_after(LIMIT_S):
            async with connect(socket_path) as pool:
                return await do(pool)
        return None

    answer = None
    try:
        answer = trio.run(connected)
    except* ClientError:
        pass
    return answer
