"""The cgroup of one VM: one directory under version 2, one for each controller under version 1."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from vmm.errors import StopError
from vmm.qemu.confinement.limits import Limits
from vmm.qemu.confinement.plan import CgroupPlan, CgroupVersion, Controller

REMOVE_LIMIT_S: Final = 10.0
RETRY_S: Final = 0.005
"""The kernel takes a dead process out of its cgroup a moment after it can be waited for, and tells nobody of it under
version 1."""

GROUP_PREFIX: Final = "vmpool-"

CPU_PERIOD_US: Final = 100_000

_JOIN: Final = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit 126; shift; done; shift; exec "$@"'
"""Has the kernel put the shell into the groups, and the program in its place: the program never runs outside."""

_ENTRANCES: Final = {CgroupVersion.V1: "tasks", CgroupVersion.V2: "cgroup.procs"}
"""The kernel waits for an RCU grace period, some 12 ms, before it moves a process, but not before a thread moves
itself. The shell has one thread. Version 2 lets threads move only within their process's group."""


@attrs.frozen(kw_only=True)
class VmGroup:
    """The directories of one VM's group; none if it has no group."""

    directories: tuple[Path, ...] = ()

    @classmethod
    def recorded_in(cls, record: Path) -> VmGroup:
        """The group that `record` names. Raises OSError."""
        try:
            lines = record.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:
            return cls()
        return cls(directories=tuple(Path(line) for line in lines))

    @classmethod
    def create(cls, plan: CgroupPlan, *, name: str, limits: Limits, record: Path) -> VmGroup:
        """Makes the group. `record`, written first, tells of it if we are killed. Raises OSError, with nothing left."""
        places = dict.fromkeys(plan.places.values())
        group = cls(directories=tuple(place / f"{GROUP_PREFIX}{name}" for place in places))
        if places:
            record.write_text("".join(f"{d}\n" for d in group.directories), encoding="utf-8", errors="surrogateescape")
            group.make(plan, limits=limits)
        return group

    def make(self, plan: CgroupPlan, *, limits: Limits) -> None:
        """Makes the directories, which are below the plan's places, and sets the limits.

        Raises OSError, with nothing left that was made here.
        """
        of_place = {directory.parent: directory for directory in self.directories}
        with contextlib.ExitStack() as undo:
            for directory in self.directories:
                directory.mkdir()
                undo.callback(directory.rmdir)
            for controller, place in plan.places.items():
                for file, value in settings_of(controller, limits, version=plan.version).items():
                    write_setting(of_place[place] / file, value)
            undo.pop_all()

    def command(self, *, version: CgroupVersion | None) -> list[str]:
        """The prefix of a command line that executes the rest in this group."""
        if not self.directories:
            return []
        entrance = _ENTRANCES[version or CgroupVersion.V2]
        return ["/bin/sh", "-c", _JOIN, "sh", *(str(directory / entrance) for directory in self.directories), "--"]

    def discard(self) -> None:
        """Removes a group in which nothing was ever started. Raises OSError."""
        for directory in self.directories:
            _remove(directory)

    async def remove(self) -> None:
        """Kills what is left in the group, and removes it. Idempotent. Raises StopError if something does not die."""
        for directory in self.directories:
            with trio.move_on_after(REMOVE_LIMIT_S):
                while not self._try_to_remove(directory):  # noqa: ASYNC110 - see RETRY_S
                    await trio.sleep(RETRY_S)
                continue
            members = _members(directory)
            raise StopError(
                pid=members[0] if members else 0, limit_s=REMOVE_LIMIT_S, state=f"cgroup {directory} has {members}"
            )

    def _try_to_remove(self, directory: Path) -> bool:
        try:
            _remove(directory)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _kill(_members(directory))
            return False
        return True


def settings_of(controller: Controller, limits: Limits, *, version: CgroupVersion | None) -> Mapping[str, str]:
    """The files of a group that set the limits of one controller."""
    quota = limits.cpus * CPU_PERIOD_US
    match controller, version:
        case Controller.MEMORY, CgroupVersion.V2:
            return {"memory.max": str(limits.memory_bytes)}
        case Controller.MEMORY, _:
            return {"memory.limit_in_bytes": str(limits.memory_bytes)}
        case Controller.CPU, CgroupVersion.V2:
            return {"cpu.max": f"{quota} {CPU_PERIOD_US}"}
        case Controller.CPU, _:
            return {"cpu.cfs_period_us": str(CPU_PERIOD_US), "cpu.cfs_quota_us": str(quota)}
        case Controller.PIDS, _:
            return {"pids.max": str(limits.processes)}


def write_setting(path: Path, value: str) -> None:
    """One write to a file of the kernel's, which is not made if it is not there. Raises OSError naming the file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode("ascii"))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        directory.rmdir()


def _members(directory: Path) -> list[int]:
    try:
        return [int(line) for line in (directory / "cgroup.procs").read_text(encoding="ascii").split()]
    except FileNotFoundError:
        return []


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
