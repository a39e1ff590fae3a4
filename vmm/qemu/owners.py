"""The owner of a process: a living service holds a pidfd of each of its QEMUs, even if its files are lost."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

_PIDFD: Final = "anon_inode:[pidfd]"
_INIT: Final = 1
"""A service manager may hold a pidfd of any process."""


def owner_of(pids: Collection[int], *, proc: Path = Path("/proc")) -> int | None:
    """The pid of another process that holds a pidfd of one of these; None if no process visible to the service does."""
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) not in (_INIT, os.getpid()) and _holds(entry, pids):
            return int(entry.name)
    return None


def _holds(process: Path, pids: Collection[int]) -> bool:
    try:
        descriptors = list((process / "fd").iterdir())
        return any(_is_of(pids, process, descriptor.name) for descriptor in descriptors)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # it has just ended, or belongs to another user


def _is_of(pids: Collection[int], process: Path, descriptor: str) -> bool:
    """Whether the descriptor is a pidfd of one of these; false if it was just closed."""
    try:
        link = (process / "fd" / descriptor).readlink()
        return str(link) == _PIDFD and _pid_behind(process / "fdinfo" / descriptor) in pids
    except FileNotFoundError:
        return False


def _pid_behind(info: Path) -> int | None:
    """See pidfd_open(2) on /proc/PID/fdinfo."""
    for line in info.read_text(encoding="ascii", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == "Pid":
            return int(value)
    return None
