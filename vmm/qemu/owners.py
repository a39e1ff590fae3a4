"""Who has a process: a service that lives holds a pidfd of each of its QEMUs, whatever becomes of its files."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

_PIDFD: Final = "anon_inode:[pidfd]"
_INIT: Final = 1
"""A service manager may watch everybody."""


def owner_of(pids: Collection[int], *, proc: Path = Path("/proc")) -> int | None:
    """The pid of another process that holds a pidfd of one of these; None if none does, as far as we may look."""
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) not in (_INIT, os.getpid()) and _holds(entry, pids):
            return int(entry.name)
    return None


def _holds(process: Path, pids: Collection[int]) -> bool:
    try:
        descriptors = list((process / "fd").iterdir())
        return any(_is_of(pids, process, descriptor.name) for descriptor in descriptors)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # it ended while we looked, or is none of ours


def _is_of(pids: Collection[int], process: Path, descriptor: str) -> bool:
    """Whether it is a pidfd of one of these. It may be closed by now: that says nothing of the others."""
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
