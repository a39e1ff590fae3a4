"""Landlock: what of the file system is left to a process, and that it reaches nobody outside (landlock(7))."""

from __future__ import annotations

import errno
import os

from vmm.qemu.jailer import kernel
from vmm.qemu.jailer.protocol import Files

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15

_FIRST_RIGHTS = (1 << 13) - 1
_LATER_RIGHTS = {2: _REFER, 3: _TRUNCATE, 5: IOCTL_DEVICE}
"""By the version that they came with."""

_TCP, _TCP_SINCE = 0b11, 4
_SCOPES, _SCOPES_SINCE = 0b11, 6
"""Abstract Unix sockets, and signals."""


def restrict(files: Files, *, readable: list[int], writable: list[int]) -> None:
    """Leaves this process, and all that come of it, what is named, and nothing else. Raises OSError.

    What is open stays open. `readable` and `writable` are descriptors that may be opened anew.
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
        # A file that is nowhere, as memfd_create(2) makes them: those are left alone, and there can be no rule for one.


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there, or out of reach, needs no rule
    try:
        is_directory = os.path.isdir(f"/proc/self/fd/{descriptor}")
        kernel.landlock_allow(ruleset, descriptor, rights if is_directory else rights & ~READ_DIR)
    finally:
        os.close(descriptor)
