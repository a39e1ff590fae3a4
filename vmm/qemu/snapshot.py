"""Saving and loading a VM's device state; its memory stays in the file that backs it.

`x-ignore-shared` leaves out RAM that is mapped shared from a file: the template's memory is in that file already, and a
clone maps the same file privately. The state goes through a descriptor passed to QEMU, which may have no access to the
file's directory, and under `-sandbox spawn=deny` cannot use `exec:`. The URI of the descriptor depends on QEMU's
version: see `_passed`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from vmm.errors import SnapshotError
from vmm.qemu.instance import Instance
from vmm.qemu.qmp.client import EventSubscription

SAVE_LIMIT_S: Final = 30.0
LOAD_LIMIT_S: Final = 30.0
"""Device state is 0.4 MB and takes 5 to 10 ms; a disk that needs seconds for it is in trouble, one that needs half a
minute is gone."""

_FD_NAME: Final = "vmpool-state"
_FILES_BY_FDSET: Final = (9, 1, 0)
"""Since this QEMU `fd:` is for pipes and sockets: first by its documentation, from 11 on strictly.
`file:`, which takes an fdset, came with 8.2."""
_ENDED: Final = frozenset({"completed", "failed", "cancelled"})
_CAPABILITIES: Final = [
    {"capability": "x-ignore-shared", "state": True},
    {"capability": "events", "state": True},
]


async def save(instance: Instance, *, state: Path) -> None:
    """Writes the device state of a paused VM to `state`, synced to disk. Afterwards QEMU can only be stopped.

    Raises SnapshotError as soon as QEMU reports a failure, or after SAVE_LIMIT_S; VmExitedError, OSError.
    """
    descriptor = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        await _migrate(instance, "migrate", descriptor=descriptor, limit_s=SAVE_LIMIT_S, what="saving a template")
        await trio.to_thread.run_sync(os.fsync, descriptor)
    finally:
        os.close(descriptor)


async def load(instance: Instance, *, state: Path) -> None:
    """Loads a device state into a QEMU that waits for one. Its vCPUs stay stopped.

    Raises SnapshotError as soon as QEMU reports a failure, or after LOAD_LIMIT_S; VmExitedError, OSError.
    """
    descriptor = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await _migrate(instance, "migrate-incoming", descriptor=descriptor, limit_s=LOAD_LIMIT_S, what="cloning")
    finally:
        os.close(descriptor)


async def _migrate(instance: Instance, command: str, *, descriptor: int, limit_s: float, what: str) -> None:
    with trio.move_on_after(limit_s), instance.subscribe("MIGRATION") as events:
        await instance.execute("migrate-set-capabilities", capabilities=_CAPABILITIES)
        async with _passed(instance, descriptor) as uri:
            await instance.execute(command, uri=uri)
            status = await _end_of_migration(events)
            if status != "completed":
                answer = await instance.execute("query-migrate")
                raise SnapshotError(what=what, reason=f"{status}: {answer.get('error-desc', 'QEMU gives no reason')}")
        return
    raise SnapshotError(what=what, reason=f"not done within {limit_s:g} s")


@asynccontextmanager
async def _passed(instance: Instance, descriptor: int) -> AsyncIterator[str]:
    """The URI of the file within QEMU. After an error QEMU is ended, and its descriptor with it."""
    if instance.qemu_version < _FILES_BY_FDSET:
        await instance.execute("getfd", fds=[descriptor], fdname=_FD_NAME)
        yield f"fd:{_FD_NAME}"
        return
    number = (await instance.execute("add-fd", fds=[descriptor]))["fdset-id"]
    yield f"file:/dev/fdset/{number}"
    await instance.execute("remove-fd", **{"fdset-id": number})


async def _end_of_migration(events: EventSubscription) -> str:
    async for event in events:
        status = str(event.data["status"])
        if status in _ENDED:
            return status
    raise AssertionError("a subscription ends with an error")
