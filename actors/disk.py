"""The journal's file operations, one method each, so that a test can stop between any two.

They block. The journal's files are small and on tmpfs, where an operation takes tens of microseconds; a thread would
take longer and lose the order that the journal depends on (a record is gone before its VM is touched).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol

from vmm.files import open_regular, read_regular


class Disk(Protocol):
    """Every method raises OSError."""

    def write(self, path: Path, data: bytes) -> None:
        """Creates or truncates the file, writes the data, and waits until it is on disk (fsync).

        After an error the file may exist, with any part of the data.
        """

    def rename(self, source: Path, target: Path) -> None:
        """Replaces a file by another one of the same directory; readers see the old or the new one."""

    def unlink(self, path: Path) -> None: ...

    def sync_directory(self, directory: Path) -> None:
        """Waits until the directory's entries are on disk: files made, renamed and removed."""

    def exists(self, path: Path) -> bool:
        """Whether the file or directory exists."""

    def read(self, path: Path, *, limit: int) -> bytes:
        """The first `limit` bytes of a file, or all of it."""

    def directories(self, parent: Path) -> list[str]:
        """The names of the directories in a directory."""


class HostDisk:
    """The host's file system."""

    def write(self, path: Path, data: bytes) -> None:
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_directory(self, directory: Path) -> None:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def read(self, path: Path, *, limit: int) -> bytes:
        return read_regular(path, limit=limit)

    def directories(self, parent: Path) -> list[str]:
        return [entry.name for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]


_MODE: Final = 0o600
