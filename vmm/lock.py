"""Lock files. The kernel drops a lock with its process, so the file of a killed process locks no other out."""

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
        """Whether the file at the path is the locked one: not if it was removed or replaced.

        Raises OSError.
        """
        return is_still(self._descriptor, self.path)

    def take_again(self) -> None:
        """Locks a new file in place of the removed one. Raises LockHeldError if another process was first; OSError."""
        taken = _take(self.path)
        os.close(self._descriptor)
        self._descriptor = taken

    def give_back(self) -> None:
        """Removes the file, unless it was replaced."""
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
    """The pid that the lock's holder wrote, empty if not yet; None if the lock is free. Raises OSError."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a process that tries to take the lock right now is refused
    except BlockingIOError:
        return _named_in(lock)
    else:
        return None
    finally:
        os.close(lock)


def _named_in(lock: int) -> str:
    return os.pread(lock, 32, 0).decode("ascii", "replace").strip()


def is_still(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at the path now. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
