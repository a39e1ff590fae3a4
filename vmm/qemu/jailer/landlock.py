"""Landlock: limits a process's access to files, and to processes outside (landlock(7))."""

from __future__ import annotations

import errno
import os

from vmm.qemu.jailer import kernel
from vmm.qemu.jailer.protocol import Files

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15

_FIRST_RIGHTS = (1 << 13) - 1
_LATER_RIGHTS = {2: _REFER, 3: _TRUNCATE, 5: IOCTL_DEVICE}
"""Rights by the version that introduced them."""

_TCP, _TCP_SINCE = 0b11, 4
_SCOPES, _SCOPES_SINCE = 0b11, 6
"""Abstract Unix sockets, and signals."""


def restrict(files: Files, *, readable: list[int], writable: list[int]) -> None:
    """Restricts this process and its descendants to the named files. Raises OSError.

    Open descriptors stay usable. `readable` and `writable` are descriptors that may be reopened.
    """
    version = kernel.landlock_version()
    handled = _FIRST_RIGHTS | sum(rights for since, rights in _LATER_RIGHTS.items() if version >= since)
    ruleset = kernel.landlock_ruleset(
        filesystem=handled,
        network=_TCP if version >= _TCP_SINCE else 0,
        scoped=_SCOPES if version >= _SCOPES_SINCE else 0,
        version=version,
    )
    try:
        for paths, rights in (
            (files["programs"], READ_FILE | READ_DIR | EXECUTE),
            (files["devices"], READ_FILE | WRITE_FILE | IOCTL_DEVICE),
        ):
            for path in paths:
                _allow_path(ruleset, path, rights & handled)
        for descriptor in readable:
            _allow(ruleset, descriptor, READ_FILE)
        for descriptor in writable:
            _allow(ruleset, descriptor, READ_FILE | WRITE_FILE)
        kernel.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, descriptor: int, rights: int) -> None:
    try:
        kernel.landlock_allow(ruleset, descriptor, rights)
    except OSError as error:
        if error.errno != errno.EBADFD:
            raise
        # A file without a path, as from memfd_create(2): Landlock ignores such files and accepts no rule for them.


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a missing or unreachable path needs no rule
    try:
        is_directory = os.path.isdir(f"/proc/self/fd/{descriptor}")
        kernel.landlock_allow(ruleset, descriptor, rights if is_directory else rights & ~READ_DIR)
    finally:
        os.close(descriptor)
