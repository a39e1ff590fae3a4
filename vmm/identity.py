"""Which file it is: whether it is still the one that was looked at, without reading it, and what is in it; and which of
several directories of one path.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

FileIdentity = tuple[int, int, int, int]
"""Device, inode, size, mtime in ns: what changes when a file is replaced or written to."""


def identify(path: Path) -> FileIdentity:
    """One stat call. Raises OSError."""
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def content_hash(path: Path) -> str:
    """SHA-256 of a file, which is read again only if it is another one by then. Blocks. Raises OSError."""
    return _hash(path, identify(path))


@functools.lru_cache(maxsize=64)
def _hash(path: Path, _identity: FileIdentity) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def place_of(directory: Path) -> str:
    """Tells a directory from those that containers and chroots have under the same path; the same when it is made anew.

    Raises OSError.
    """
    return f"{directory.stat().st_dev}:{Path('/').stat().st_ino}"
