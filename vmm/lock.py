"""Lock files. The kernel drops a lock with its process, so what a killed one leaves locks nobody out."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from vmm.errors import LockHeldError


def take_lock(path: Path, cleanup: contextlib.ExitStack) -> None:
    """Holds the lock file at `path`, which names our pid, until `cleanup` removes it. Raises LockHeldError, OSError."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _named_in(lock)
            os.close(lock)
            raise LockHeldError(lock=path, pid=pid) from None
        if _is_still(lock, path):
            break
        os.close(lock)  # its last holder removed it between our open and our lock
    cleanup.callback(os.close, lock)
    cleanup.callback(path.unlink, missing_ok=True)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)


def holder(path: Path) -> str | None:
    """The pid that the holder of the lock file wrote, perhaps not yet; None if nobody holds it. Raises OSError."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
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


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
