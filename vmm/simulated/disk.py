"""A disk without hardware: it fails and crashes where a test says, and loses unsynced data.

It knows two kinds of crash. When the process is killed, nothing is lost: the kernel keeps all completed steps. When the
power fails, a file has its content of the last sync, perhaps with a part of later writes; a name refers to its file of
the directory's last sync, or to any later one.
"""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import attrs


class Step(enum.Enum):
    """The single steps of a disk's operations."""

    CREATE = "create"
    WRITE_HALF = "write the first half"
    WRITE_REST = "write the rest"
    SYNC_FILE = "sync a file"
    RENAME = "rename"
    UNLINK = "unlink"
    SYNC_DIRECTORY = "sync a directory"


class DiskFault(enum.Enum):
    """The fault that happens instead of a step."""

    NO_SPACE = errno.ENOSPC
    IO_ERROR = errno.EIO
    CRASH = 0
    """The process ends here."""


class CrashedError(BaseException):
    """The process that uses the disk is dead: no code of it goes on."""


DiskFaultPlan = Callable[[int, Step], DiskFault | None]
"""What happens at the n-th step, counted from 0."""


def no_disk_faults(_number: int, _step: Step) -> DiskFault | None:
    """The plan without faults."""
    return None


@attrs.define(eq=False)
class _File:
    contents: bytes = b""
    safe: bytes = b""
    """As of its last sync."""

    def after_power_loss(self, random: Random) -> bytes:
        if self.contents == self.safe:
            return self.safe
        return random.choice([self.safe, self.contents[: random.randint(0, len(self.contents))], self.contents])


@attrs.define(eq=False)
class _Directory:
    names: dict[str, _File] = attrs.field(factory=dict)
    safe: dict[str, _File] = attrs.field(factory=dict)
    """As of its last sync."""
    since: dict[str, list[_File | None]] = attrs.field(factory=dict)
    """The files of names changed since then; None for a removed name."""

    def give(self, name: str, file: _File | None) -> None:
        if file is None:
            del self.names[name]
        else:
            self.names[name] = file
        self.since.setdefault(name, []).append(file)


class SimulatedDisk:
    """Files in directories. Implements `actors.disk.Disk`. A directory exists from its first use on."""

    def __init__(self, *, faults: DiskFaultPlan = no_disk_faults) -> None:
        self.faults = faults
        self.steps = 0
        """How many steps were begun."""
        self._directories: dict[Path, _Directory] = {}
        self._lost: set[Path] = set()
        self._crashed = False

    def write(self, path: Path, data: bytes) -> None:
        self._step(Step.CREATE, path)
        directory = self._directory(path.parent)
        if path.name not in directory.names:
            directory.give(path.name, _File())
        file = directory.names[path.name]
        file.contents = b""
        self._step(Step.WRITE_HALF, path)
        file.contents = data[: len(data) // 2]
        self._step(Step.WRITE_REST, path)
        file.contents = data
        self._sync_file(path, file)

    def rename(self, source: Path, target: Path) -> None:
        self._step(Step.RENAME, source)
        directory = self._directory(source.parent)
        directory.give(target.name, self._find(source))
        directory.give(source.name, None)

    def unlink(self, path: Path) -> None:
        self._step(Step.UNLINK, path)
        self._find(path)
        self._directory(path.parent).give(path.name, None)

    def sync_directory(self, directory: Path) -> None:
        self._step(Step.SYNC_DIRECTORY, directory)
        found = self._directory(directory)
        found.safe = dict(found.names)
        found.since.clear()

    def read(self, path: Path, *, limit: int) -> bytes:
        return self._find(path).contents[:limit]

    def exists(self, path: Path) -> bool:
        if path in self._directories:
            return True
        return path.parent in self._directories and path.name in self._directories[path.parent].names

    def directories(self, parent: Path) -> list[str]:
        return [directory.name for directory in self._directories if directory.parent == parent]

    # -- for tests -----------------------------------------------------------------------------------------------

    def make_directory(self, directory: Path) -> None:
        """As the launch of a VM does."""
        self._lost.discard(directory)
        self._directory(directory)

    def remove_directory(self, directory: Path) -> None:
        """As the end of a VM does."""
        self._directories.pop(directory, None)

    def lose_directory(self, directory: Path) -> None:
        """Removes a directory behind the service's back: later operations in it fail."""
        self.remove_directory(directory)
        self._lost.add(directory)

    def put(self, path: Path, data: bytes) -> None:
        """Puts a synced file there, as another program would."""
        directory = self._directory(path.parent)
        directory.names[path.name] = directory.safe[path.name] = _File(contents=data, safe=data)

    def after_kill(self) -> SimulatedDisk:
        """The disk for the next process after this one is killed; later steps of this one have no effect on it."""
        return self._next(
            {
                path: {name: file.contents for name, file in directory.names.items()}
                for path, directory in self._directories.items()
            }
        )

    def after_power_loss(self, random: Random) -> SimulatedDisk:
        """The disk after a power failure; `random` chooses among the possible contents."""
        found: dict[Path, dict[str, bytes]] = {}
        for path, directory in self._directories.items():
            found[path] = {}
            for name in sorted(directory.safe.keys() | directory.since.keys()):
                file = random.choice([directory.safe.get(name), *directory.since.get(name, ())])
                if file is not None:
                    found[path][name] = file.after_power_loss(random)
        return self._next(found)

    def _next(self, contents: dict[Path, dict[str, bytes]]) -> SimulatedDisk:
        disk = SimulatedDisk()
        for path, files in contents.items():
            disk.make_directory(path)
            for name, data in files.items():
                disk.put(path / name, data)
        return disk

    # -- steps ---------------------------------------------------------------------------------------------------

    def _step(self, step: Step, path: Path) -> None:
        if self._crashed:
            raise CrashedError
        fault = self.faults(self.steps, step)
        self.steps += 1
        if fault is DiskFault.CRASH:
            self._crashed = True
            raise CrashedError
        if fault is not None:
            raise OSError(fault.value, os.strerror(fault.value), str(path))

    def _sync_file(self, path: Path, file: _File) -> None:
        self._step(Step.SYNC_FILE, path)
        file.safe = file.contents

    def _directory(self, path: Path) -> _Directory:
        if path in self._lost:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return self._directories.setdefault(path, _Directory())

    def _find(self, path: Path) -> _File:
        try:
            return self._directories[path.parent].names[path.name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
