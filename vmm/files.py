"""Files that others may replace: opened without blocking, and identified.

Opening a FIFO waits for its other end in the kernel, where neither a signal handler nor a time limit can interrupt it.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import stat
from pathlib import Path
from typing import Final

_NO_SURPRISES: Final = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC

FileIdentity = tuple[int, int, int, int]
"""Device, inode, size, mtime in ns: one of them changes when a file is replaced or written to."""


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """`os.open` of a regular file. Raises OSError at once for anything else: a FIFO, a device, a directory, a link."""
    descriptor = os.open(path, flags | _NO_SURPRISES, mode)
    found = os.fstat(descriptor).st_mode
    if stat.S_ISREG(found):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(found):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "Is not a regular file", str(path))


def read_regular(path: Path, *, limit: int) -> bytes:
    """The first `limit` bytes, or all of it. Raises OSError."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read(limit)


def identify(path: Path) -> FileIdentity:
    """One stat call. Raises OSError."""
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def content_hash(path: Path) -> str:
    """SHA-256 of a file, which is read again only if it has changed. Blocks. Raises OSError."""
    return _hash(path, identify(path))


@functools.lru_cache(maxsize=64)
def _hash(path: Path, _identity: FileIdentity) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
