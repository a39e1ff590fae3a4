"""System calls that Python does not have. `ctypes` takes long to load under emulation: import it only where needed."""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


def rename_to_nothing(path: bytes, target: bytes) -> None:
    """Renames. Raises FileExistsError if the target exists, or another OSError."""
    if _libc.renameat2(_AT_FDCWD, path, _AT_FDCWD, target, _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code != errno.EINVAL:
        raise OSError(code, os.strerror(code), path, None, target)
    # This file system does not know the flag.
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    os.rename(path, target)


def inotify() -> int:
    """A new instance. Raises OSError."""
    fd: int = _libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0:
        _raise(b"inotify")
    return fd


def watch(fd: int, path: bytes, mask: int) -> int:
    """A watch's number; for the same file the same one. Raises OSError."""
    number: int = _libc.inotify_add_watch(fd, path, ctypes.c_uint32(mask))
    if number < 0:
        _raise(path)
    return number


def unwatch(fd: int, number: int) -> None:
    """Does nothing if the kernel has removed it already."""
    _libc.inotify_rm_watch(fd, number)


def _raise(path: bytes) -> None:
    code = ctypes.get_errno()
    reason = os.strerror(code)
    if code == errno.ENOSPC:
        reason = "no more watches for this user: see /proc/sys/fs/inotify/max_user_watches"
    raise OSError(code, reason, path)
