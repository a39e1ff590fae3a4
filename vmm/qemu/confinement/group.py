"""The cgroup of one VM: one directory under version 2, one for each controller under version 1."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from vmm.errors import StopError
from vmm.files import read_regular
from vmm.qemu.confinement.host import find_below_ours
from vmm.qemu.confinement.limits import Limits
from vmm.qemu.confinement.plan import CgroupPlan, CgroupVersion, Controller

REMOVE_LIMIT_S: Final = 10.0
RETRY_S: Final = 0.005
"""The kernel removes a dead process from its cgroup a moment after it can be waited for, without a notice under
version 1."""

GROUP_PREFIX: Final = "vmpool-"

CPU_PERIOD_US: Final = 100_000

_OF_DIRECTORY: Final = "\t"
"""Begins a line of a record that is a setting of the directory above it."""

_MAX_RECORD_BYTES: Final = 64 * 1024
"""A record has a few hundred."""

_ELSEWHERE: Final = 0
"""In cgroup.procs, stands for a process of another pid namespace; to kill() it is the caller's process group."""

_ENTRANCES: Final = {CgroupVersion.V1: "tasks", CgroupVersion.V2: "cgroup.procs"}
"""The kernel waits for an RCU grace period, some 12 ms, before it moves a process, but not before a thread moves
itself. Version 2 lets threads move only within their process's group."""


@attrs.frozen(kw_only=True)
class VmGroup:
    """The directories of one VM's group; empty if it has no group."""

    directories: tuple[Path, ...] = ()
    settings: Mapping[Path, str] = attrs.field(factory=dict)
    """The limits, as written to the directories' files, in this order."""

    @classmethod
    def planned(cls, plan: CgroupPlan, *, name: str, limits: Limits) -> VmGroup:
        """The group to be made."""
        of_place = {place: place / f"{GROUP_PREFIX}{name}" for place in plan.places.values()}
        return cls(
            directories=tuple(of_place.values()),
            settings={
                of_place[place] / file: value
                for controller, place in plan.places.items()
                for file, value in settings_of(controller, limits, version=plan.version).items()
            },
        )

    @classmethod
    def recorded_in(cls, record: Path) -> VmGroup:
        """The group that `record`, in its VM's directory, names. Raises OSError.

        All processes of a group are killed with it, so a directory that is not named as that VM's group, as in a
        damaged record, is ignored.
        """
        try:
            data = read_regular(record, limit=_MAX_RECORD_BYTES)
        except FileNotFoundError:
            return cls()
        lines = data.decode(encoding="utf-8", errors="surrogateescape").splitlines()
        name = f"{GROUP_PREFIX}{record.parent.name}"
        directories: list[Path] = []
        settings: dict[Path, str] = {}
        for line in lines:
            if line.startswith(_OF_DIRECTORY):
                file, _, value = line.removeprefix(_OF_DIRECTORY).partition(" ")
                if directories and file in _LIMIT_FILES and value.isascii():
                    settings[directories[-1] / file] = value
            elif line.startswith("/") and "\0" not in line and Path(line).name == name:
                directories.append(Path(line))
        return cls(directories=tuple(directories), settings=settings)

    def record(self, record: Path) -> None:
        """Records the group for `recorded_in`: a directory a line, and below it its settings. Raises OSError."""
        lines = []
        for directory in self.directories:
            lines.append(str(directory))
            lines += [
                f"{_OF_DIRECTORY}{file.name} {value}"
                for file, value in self.settings.items()
                if file.parent == directory
            ]
        text = "".join(f"{line}\n" for line in lines)
        descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)

    @classmethod
    def create(cls, plan: CgroupPlan, *, name: str, limits: Limits, record: Path) -> VmGroup:
        """Makes the group; `record` is written first, in case the service is killed. On OSError nothing is left."""
        group = cls.planned(plan, name=name, limits=limits)
        if group.directories:
            group.record(record)
            group.make()
        return group

    def make(self) -> None:
        """Makes the directories, and sets the limits. Raises OSError, with nothing left that was made here."""
        with contextlib.ExitStack() as undo:
            for directory in self.directories:
                directory.mkdir()
                undo.callback(directory.rmdir)
            self.restrict()
            undo.pop_all()

    def restrict(self) -> None:
        """Sets the limits, perhaps again: under version 2 they are lost together with a controller. Raises OSError."""
        for file, value in self.settings.items():
            write_setting(file, value)

    def entrances(self, *, version: CgroupVersion | None) -> list[str]:
        """The files to which a process with one thread writes 0 to be in this group."""
        return [str(directory / _ENTRANCES[version or CgroupVersion.V2]) for directory in self.directories]

    def discard(self) -> None:
        """Removes a group in which nothing was ever started. Raises OSError."""
        for directory in self.directories:
            _remove(directory)

    async def remove(self) -> None:
        """Kills the processes left in the group, and removes it. Idempotent.

        Raises StopError if a process does not die, OSError if the group is out of reach.
        """
        for directory in itertools.chain.from_iterable(map(_within_reach, self.directories)):
            with trio.move_on_after(REMOVE_LIMIT_S):
                while not self._try_to_remove(directory):  # noqa: ASYNC110 - see RETRY_S
                    await trio.sleep(RETRY_S)
                continue
            members = _members(directory)
            state = f"cgroup {directory} has {members}"
            if _ELSEWHERE in members:
                state += (
                    f"; {_ELSEWHERE} stands for a process of another pid namespace, which cannot be killed from here"
                )
            raise StopError(pid=max(members, default=0), limit_s=REMOVE_LIMIT_S, state=state)

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


_LIMIT_FILES: Final = frozenset(
    file
    for controller in Controller
    for version in CgroupVersion
    for file in settings_of(controller, Limits(memory_bytes=0, cpus=0, processes=0), version=version)
)


def write_setting(path: Path, value: str) -> None:
    """One write to an existing file of the kernel. Raises OSError naming the file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode("ascii"))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def _within_reach(directory: Path) -> tuple[Path, ...]:
    """The group's directory; empty if it was removed.

    A group whose mount is gone still exists, though its path is no longer a cgroup. Raises OSError.
    """
    if directory.is_dir():
        return (directory,)
    if (next(place for place in directory.parents if place.is_dir()) / "cgroup.procs").exists():
        return ()
    found = find_below_ours(directory.name)
    if not found:
        raise OSError(errno.ENOENT, "the cgroup's mount is gone, and no other mount shows the cgroup", str(directory))
    return found


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
        if pid == _ELSEWHERE:
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
