"""Paths in requests, and what is told of the files there."""

from __future__ import annotations

import errno
import os
import stat
import struct

from . import accounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_names: list[dict[int, str]] = []
"""Of users, and of groups, once they were needed."""


class PartError(OSError):
    """As OSError, of the field `part` of a request."""

    def __init__(self, code: int, message: str, part: str) -> None:
        super().__init__(code, message)
        self.part = part


def path_of(request: dict[str, Any], part: str = "path") -> bytes:
    """An absolute path. Raises PartError."""
    path = request.get(part)
    if not (isinstance(path, bytes) and path.startswith(b"/") and b"\0" not in path):
        raise PartError(errno.EINVAL, f"{part}: must be an absolute path without NUL", part)
    return path


def refuse(code: int, path: bytes, reason: str = "") -> OSError:
    return OSError(code, reason or os.strerror(code), path)


def check_regular(status: os.stat_result, path: bytes) -> None:
    """Raises OSError for anything but a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise refuse(errno.EISDIR, path)
    if not stat.S_ISREG(status.st_mode):
        raise refuse(errno.EINVAL, path, "not a regular file")


def make_parents(path: bytes) -> None:
    """Makes the directories above a path that are missing, with mode 0755."""
    make_directories(os.path.dirname(path))


def make_directories(path: bytes) -> None:
    """Makes a directory, if it is missing, and those above it. Raises OSError if anything else is there."""
    missing = []
    while not os.path.isdir(path):
        if os.path.lexists(path):
            raise refuse(errno.ENOTDIR, path)
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            if not os.path.isdir(directory):
                raise


def describe(path: bytes, status: os.stat_result, *, target: bytes = b"") -> dict[str, Any]:
    """A file as the host takes it: `FileInfo`, with the kind in its mode."""
    users, groups = account_names()
    return {
        "path": path,
        "mode": status.st_mode,
        "size": status.st_size,
        "uid": status.st_uid,
        "gid": status.st_gid,
        "user": users.get(status.st_uid, ""),
        "group": groups.get(status.st_gid, ""),
        "modified_ns": status.st_mtime_ns,
        "target": target,
        "links": status.st_nlink,
        "inode": _signed(status.st_ino),
    }


def describe_path(path: bytes, *, follow: bool = False) -> dict[str, Any]:
    """Raises OSError."""
    status = os.stat(path, follow_symlinks=follow)
    return describe(path, status, target=os.readlink(path) if stat.S_ISLNK(status.st_mode) else b"")


def account_names() -> list[dict[int, str]]:
    if not _names:
        for read in (accounts.user_names, accounts.group_names):
            try:
                _names.append(read())
            except OSError:
                _names.append({})  # not for this user to read
    return _names


def _signed(number: int) -> int:
    return int(struct.unpack("<q", struct.pack("<Q", number))[0])
