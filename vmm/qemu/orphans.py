"""QEMUs and directories that an earlier run of the service left behind, because it was killed.

Processes are found by what QEMU's command line says, not by records of ours: a service can be killed between starting a
QEMU and writing down that it did. What the VM's cgroup holds beside them is ended with it: its place is written down
before it is made.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import trio

from vmm.contract import ProcessIdentity
from vmm.qemu.confinement.group import VmGroup
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
    with os.scandir(vms_directory) as entries:
        names = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)} | users.keys()
    return [
        Orphan(
            vm_id=name,
            directory=VmDirectory(vms_directory / name),
            processes=tuple(users.get(name, ())),
        )
        for name in sorted(names)
    ]


async def end_orphan(orphan: Orphan) -> None:
    """SIGKILL, verify dead, then remove cgroup and directory. Raises StopError, with the directory left in place."""
    for identity in orphan.processes:
        try:
            process = QemuProcess.adopt(identity, log=orphan.directory.qemu_log)
        except ProcessLookupError:
            continue
        await process.kill()
    await VmGroup.recorded_in(orphan.directory.cgroups).remove()
    await trio.to_thread.run_sync(orphan.directory.remove)


async def end_remains(vm_id: str, *, vms_directory: Path) -> None:
    """`end_orphan` for whatever there is of this one VM. Shielded. Raises StopError."""
    with trio.CancelScope(shield=True):
        for orphan in await trio.to_thread.run_sync(find_orphans, vms_directory):
            if orphan.vm_id == vm_id:
                await end_orphan(orphan)


def _users_of(vms_directory: Path) -> dict[str, list[ProcessIdentity]]:
    """Processes whose command line names a VM directory in `vms_directory`, by that VM's id.

    QEMU may run as another user than we, and as another one than the settings say now; only root starts such ones.
    A program can write what it likes into its command line: what is no name of a directory is not taken for one.
    """
    marker = b"opaque=" + os.fsencode(vms_directory) + b"/"
    ours = os.geteuid()
    found: dict[str, list[ProcessIdentity]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if ours not in (0, entry.stat().st_uid):
                continue
            argv = (entry / "cmdline").read_bytes().replace(b",,", b",")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        _, _, rest = argv.partition(marker)
        vm_id = os.fsdecode(rest.partition(b"/")[0])
        started = start_time_of(int(entry.name))
        if vm_id not in ("", ".", "..") and "\0" not in vm_id and started is not None:
            found.setdefault(vm_id, []).append(ProcessIdentity(pid=int(entry.name), start_time=started))
    return found
