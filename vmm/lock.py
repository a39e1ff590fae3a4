"""Lock files. The kernel drops a lock with its process, so what a killed one leaves locks nobody out."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import attrs

from vmm.errors import LockHeldError


@attrs.define(eq=False)
class HeldLock:
    """A lock file that is held; `take_lock` makes it."""

    path: Path
    _descriptor: int

    def is_in_place(self) -> bool:
        """Whether whoever comes to the path finds it locked: not if the file was removed, or replaced.

        Raises OSError.
        """
        return is_still(self._descriptor, self.path)

    def take_again(self) -> None:
        """Puts a file in the place of the one that was removed. Raises LockHeldError if somebody else was there first;
        OSError.
        """
        taken = _take(self.path)
        os.close(self._descriptor)
        self._descriptor = taken

    def give_back(self) -> None:
        """Removes the file, unless it is another's by now."""
        try:
            if self.is_in_place():
                self.path.unlink()
        finally:
            os.close(self._descriptor)


def take_lock(path: Path, cleanup: contextlib.ExitStack) -> HeldLock:
    """Holds the lock file at `path`, which names our pid, until `cleanup` removes it. Raises LockHeldError, OSError."""
    held = HeldLock(path, _take(path))
    cleanup.callback(held.give_back)
    return held


def _take(path: Path) -> int:
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _named_in(lock)
            os.close(lock)
            raise LockHeldError(lock=path, pid=pid) from None
        if is_still(lock, path):
            break
        os.close(lock)  # its last holder removed it between our open and our lock
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
    return lock


def holder(path: Path) -> str | None:
    """The pid that the holder of the lock file wrote, perhaps not yet; None if nobody holds it. Raises OSError."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # who takes the lock in this moment is turned away
    except BlockingIOError:
        return _named_in(lock)
    else:
        return None
    finally:
        os.close(lock)


def _named_in(lock: int) -> str:
    return os.pread(lock, 32, 0).decode("ascii", "replace").strip()


def is_still(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that is at the path now. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
