"""`vmpool watch`."""

from __future__ import annotations

import json as json_module
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import attrs
import click
import trio

from pool.cli.connection import ask_service
from pool.cli.leasing import render_lease, words_of_change
from pool.cli.options import socket_option
from pool.cli.output import OutputError, deliver
from pool.cli.status import render_profiles
from pool.cli.streams import STDOUT, NobodyReadsError
from pool.observe.terminal import visible
from vmpool import Change, LeaseChange, ProfileChange, Snapshot, VmChange

if TYPE_CHECKING:
    from vmpool import Client


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line; `kind` is its type.")
@socket_option
def watch(*, as_json: bool, socket_path: Path) -> None:
    """Show the pools, then every change of a VM, a lease or a profile as it happens, until Ctrl-C.

    If the terminal cannot keep up, the pools are shown again in place of the missed changes.
    """

    async def show(client: Client) -> None:
        async with client.watch() as changes, trio.open_nursery() as nursery:
            nursery.start_soon(_stop_when_nobody_reads)
            async for change in changes:
                await deliver(_as_json(change) if as_json else as_text(change))
            raise OutputError("the service ended the watch")

    ask_service(socket_path, show)


async def _stop_when_nobody_reads() -> None:
    """Notices at once, not at the next change, that a pipe has no reader left."""
    if stat.S_ISFIFO(os.fstat(STDOUT).st_mode):
        await trio.lowlevel.wait_readable(STDOUT)  # the write end becomes readable when the reader closes the pipe
        raise NobodyReadsError


def _as_json(change: Change) -> str:
    kind = {Snapshot: "snapshot", VmChange: "vm", LeaseChange: "lease", ProfileChange: "profile"}[type(change)]
    return json_module.dumps({"kind": kind, **attrs.asdict(change)})


def as_text(change: Change) -> str:
    match change:
        case Snapshot(profiles=profiles, vms=vms, leases=leases):
            lines = render_profiles(profiles)
            lines += [as_text(vm) for vm in vms]
            lines += [render_lease(lease) for lease in leases]
            return "\n".join(lines)
        case VmChange(vm_id=vm_id, profile=profile, state=state, reason=reason, detail=detail):
            return _line("vm", vm_id, profile, state, reason, detail)
        case LeaseChange():
            return _line(*words_of_change(change))
        case ProfileChange(profile=profile, change=what, detail=detail):
            return _line("profile", profile or "(all)", what, detail)
        case _:
            assert_never(change)


def _line(*words: Any) -> str:
    return "  ".join(visible(word, kept="") for word in words if word)
