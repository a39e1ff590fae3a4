"""QEMUs and directories that an earlier run of the service left behind, because it was killed.

Processes are found by what QEMU's command line says, not by records of ours: a service can be killed between starting a
QEMU and writing down that it did. The name of a directory alone is not enough: a service in a container has the same
default. What the VM's cgroup holds beside them is ended with it: its place is written down
before it is made.
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
    """What is in `vms_directory` and runs on it. Whoever calls this holds the lock that says that nobody else does."""
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
    """None where what is written down of it cannot be read: that is no reason to keep the rest."""
    try:
        return VmGroup.recorded_in(home.cgroups)
    except OSError:
        return VmGroup()


async def end_remains(vm_id: str, *, vms_directory: Path) -> None:
    """`end_orphan` for whatever there is of this one VM. Shielded. Raises StopError."""
    with trio.CancelScope(shield=True):
        for orphan in await trio.to_thread.run_sync(find_orphans, vms_directory):
            if orphan.vm_id == vm_id:
                await end_orphan(orphan)


def _users_of(vms_directory: Path) -> dict[str, list[ProcessIdentity]]:
    """QEMUs whose command line names a VM directory in `vms_directory`, by that VM's id.

    QEMU may run as another user than we, and as another one than the settings say now; only root starts such ones.
    A program can write what it likes into its command line: what is no name of a directory is not taken for one. And
    in a container the same name is another directory.
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
            continue  # it ended while we looked
        started = start_time_of(int(entry.name))
        if started is not None:
            found.setdefault(named[0], []).append(ProcessIdentity(pid=int(entry.name), start_time=started))
    return found


def _vm_named_by(cmdline: bytes, vms_directory: Path) -> tuple[str, str] | None:
    """The id of the VM whose console is handed to QEMU by this command line (see `command_line`), and its place."""
    words = cmdline.split(b"\0")
    marker = b",opaque=" + os.fsencode(vms_directory) + b"/"
    for option, value in itertools.pairwise(words):
        before, found, rest = value.replace(b",,", b",").partition(marker)
        # A word of its own, as QEMU's parser wants it: a shell may have the text of a command line in one of its words.
        if option == b"-add-fd" and found and before.startswith(b"fd="):
            vm_id, _, console = os.fsdecode(rest).partition("/")
            return (vm_id, console.partition("@")[2]) if vm_id not in ("", ".", "..") else None
    return None


def _is_ours(vms_directory: Path, *, place: str, root: Path) -> bool:
    """Whether a QEMU has its console in our directory, and not in a container's of the same path."""
    return place == place_of(vms_directory) if place else _is_the_same(vms_directory, root)


def _is_the_same(directory: Path, root: Path) -> bool:
    """Whether a process with this root directory has ours in the same place: for QEMUs that do not name it."""
    directory = directory.resolve()  # the kernel would follow a link from our root, not from theirs
    ours = directory.stat()
    try:
        theirs = (root / directory.relative_to("/")).stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
