"""QEMUs and directories that an earlier run of the service left behind because it was killed.

Processes are found by QEMU's command line, not by records: a service can be killed between starting a QEMU and
recording it. The name of a directory alone is not enough: a service in a container has the same default. Other
processes in a VM's cgroup are ended with it: the cgroup's place is recorded before the cgroup is made.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import trio

from vmm.backend import Remains
from vmm.places import place_of
from vmm.qemu.confinement.group import VmGroup
from vmm.qemu.directory import VmDirectory
from vmm.qemu.process import QemuProcess, start_time_of
from vmm.words.processes import ProcessIdentity


def find_orphans(vms_directory: Path) -> list[Remains]:
    """The remains of VMs in `vms_directory`. The caller holds the lock that keeps other services out of it."""
    if not vms_directory.is_dir():
        return []
    users = _users_of(vms_directory)
    with os.scandir(vms_directory) as entries:
        names = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)} | users.keys()
    return [
        Remains(
            vm_id=name,
            directory=vms_directory / name,
            processes=tuple(users.get(name, ())),
        )
        for name in sorted(names)
    ]


async def end_orphan(orphan: Remains) -> None:
    """SIGKILL, verify dead, then remove cgroup and directory. Raises StopError, with the directory left in place."""
    home = VmDirectory(orphan.directory)
    for identity in orphan.processes:
        try:
            process = QemuProcess.adopt(identity, log=home.qemu_log)
        except ProcessLookupError:
            continue
        await process.kill()
    await _group_of(home).remove()
    await trio.to_thread.run_sync(home.remove)


def _group_of(home: VmDirectory) -> VmGroup:
    """An empty group if its record cannot be read: the rest is to be removed anyway."""
    try:
        return VmGroup.recorded_in(home.cgroups)
    except OSError:
        return VmGroup()


async def end_remains(vm_id: str, *, vms_directory: Path) -> None:
    """As `end_orphan`, for the remains of this one VM. Shielded. Raises StopError."""
    with trio.CancelScope(shield=True):
        for orphan in await trio.to_thread.run_sync(find_orphans, vms_directory):
            if orphan.vm_id == vm_id:
                await end_orphan(orphan)


def _users_of(vms_directory: Path) -> dict[str, list[ProcessIdentity]]:
    """QEMUs whose command line names a VM directory in `vms_directory`, by that VM's id.

    QEMU may run as another user than the service's, and the settings may have changed; only root starts such QEMUs. A
    program can put anything into its command line: only plain directory names count. In a container the same name is
    another directory.
    """
    ours = os.geteuid()
    found: dict[str, list[ProcessIdentity]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if ours not in (0, entry.stat().st_uid):
                continue
            named = _vm_named_by((entry / "cmdline").read_bytes(), vms_directory)
            if named is None or not _is_ours(vms_directory, place=named[1], root=entry / "root"):
                continue
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        started = start_time_of(int(entry.name))
        if started is not None:
            found.setdefault(named[0], []).append(ProcessIdentity(pid=int(entry.name), start_time=started))
    return found


def _vm_named_by(cmdline: bytes, vms_directory: Path) -> tuple[str, str] | None:
    """The id of the VM whose console this QEMU command line has (see `command_line`), and its place."""
    words = cmdline.split(b"\0")
    marker = b",opaque=" + os.fsencode(vms_directory) + b"/"
    for option, value in itertools.pairwise(words):
        before, found, rest = value.replace(b",,", b",").partition(marker)
        # A whole word: a shell may have the text of a QEMU command line within one of its words.
        if option == b"-add-fd" and found and before.startswith(b"fd="):
            vm_id, _, console = os.fsdecode(rest).partition("/")
            return (vm_id, console.partition("@")[2]) if vm_id not in ("", ".", "..") else None
    return None


def _is_ours(vms_directory: Path, *, place: str, root: Path) -> bool:
    """Whether a QEMU's console is in this directory, not in a container's with the same path."""
    return place == place_of(vms_directory) if place else _is_the_same(vms_directory, root)


def _is_the_same(directory: Path, root: Path) -> bool:
    """Whether a process with this root directory sees the same directory: for QEMUs that do not name its place."""
    directory = directory.resolve()  # the kernel would follow a link from this process's root
    ours = directory.stat()
    try:
        theirs = (root / directory.relative_to("/")).stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
