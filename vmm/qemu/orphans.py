"""QEMUs and directories that an earlier run of the service left behind, because it was killed.

They are found by what QEMU's command line says, not by records of ours: a service can be killed between starting a
QEMU and writing down that it did.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import trio

from vmm.contract import ProcessIdentity
from vmm.qemu.directory import VmDirectory
from vmm.qemu.process import QemuProcess, start_time_of


@attrs.frozen(kw_only=True)
class Orphan:
    """What was found of a VM: its directory, and the processes that use it."""

    vm_id: str
    directory: VmDirectory
    processes: tuple[ProcessIdentity, ...]


def find_orphans(vms_directory: Path) -> list[Orphan]:
    """What is in `vms_directory` and runs on it. Whoever calls this holds the lock that says that nobody else does."""
    if not vms_directory.is_dir():
        return []
    users = _users_of(vms_directory)
    names = {entry.name for entry in vms_directory.iterdir()} | users.keys()
    return [
        Orphan(
            vm_id=name,
            directory=VmDirectory(vms_directory / name),
            processes=tuple(users.get(name, ())),
        )
        for name in sorted(names)
    ]


async def end_orphan(orphan: Orphan) -> None:
    """SIGKILL, verify dead, then remove the directory. Raises StopError, with the directory left in place."""
    for identity in orphan.processes:
        try:
            process = QemuProcess.adopt(identity, log=orphan.directory.qemu_log)
        except ProcessLookupError:
            continue
        await process.kill()
    await trio.to_thread.run_sync(orphan.directory.remove)


async def end_remains(vm_id: str, *, vms_directory: Path) -> None:
    """`end_orphan` for whatever there is of this one VM. Shielded. Raises StopError."""
    with trio.CancelScope(shield=True):
        for orphan in await trio.to_thread.run_sync(find_orphans, vms_directory):
            if orphan.vm_id == vm_id:
                await end_orphan(orphan)


def _users_of(vms_directory: Path) -> dict[str, list[ProcessIdentity]]:
    """Processes of our own user whose command line names a VM directory in `vms_directory`, by that VM's id."""
    marker = os.fsencode(vms_directory) + b"/"
    found: dict[str, list[ProcessIdentity]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if entry.stat().st_uid != os.geteuid():
                continue
            argv = (entry / "cmdline").read_bytes().replace(b",,", b",")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        _, named, rest = argv.partition(b"path=" + marker)
        started = start_time_of(int(entry.name))
        if named and started is not None:
            vm_id = os.fsdecode(rest.partition(b"/")[0])
            found.setdefault(vm_id, []).append(ProcessIdentity(pid=int(entry.name), start_time=started))
    return found
