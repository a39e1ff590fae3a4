"""Whether a file is still the one that was looked at, without reading it."""

from __future__ import annotations

from pathlib import Path

FileIdentity = tuple[int, int, int, int]
"""Device, inode, size, mtime in ns: what changes when a file is replaced or written to."""


def identify(path: Path) -> FileIdentity:
    """One stat call. Raises OSError."""
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
