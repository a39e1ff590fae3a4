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
            pid = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            os.close(lock)
            raise LockHeldError(lock=path, pid=pid) from None
        if _is_still(lock, path):
            break
        os.close(lock)  # its last holder removed it between our open and our lock
    cleanup.callback(os.close, lock)
    cleanup.callback(path.unlink, missing_ok=True)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
