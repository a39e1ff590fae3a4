"""A cgroup around a process, to know and to kill all that it has started, in whatever process group and session."""

from __future__ import annotations

import itertools
import os

ROOT = "/sys/fs/cgroup"
"""Where `init` mounts cgroup version 2."""

_REMOVED_AT_ONCE = 8
"""Attempts at removing what was left, with each new cgroup: a guest may leave any number of daemons behind."""

_numbers = itertools.count(1)
_left: list[str] = []
"""Cgroups in which processes outlived the one that they were made for."""


class Cgroup:
    """Contains a process and all its descendants.

    The guest's root user may unmount or cover the mount at any time, so each step may fail independently of the others.
    """

    def __init__(self, root: str) -> None:
        """Raises OSError if the kernel has no cgroups or none are mounted."""
        _remove_empty()
        self._root = root
        self._path = f"{root}/command-{next(_numbers)}"
        os.mkdir(self._path)

    def enter(self) -> None:
        """Puts the calling process inside, and what it starts from now on. Raises OSError."""
        _write(f"{self._path}/cgroup.procs", "0")

    def leave(self) -> None:
        """Raises OSError. The calling process is then still inside, and must not call `kill`."""
        _write(f"{self._root}/cgroup.procs", "0")

    def pids(self) -> list[int]:
        """The processes inside. Raises OSError."""
        with open(f"{self._path}/cgroup.procs", "rb") as file:
            return [pid for line in file.read().split() if (pid := int(line))]

    def kill(self) -> None:
        """Sends SIGKILL to every process inside. Raises OSError."""
        _write(f"{self._path}/cgroup.kill", "1")

    def remove(self) -> bool:
        """Whether it was empty, and is gone."""
        try:
            os.rmdir(self._path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Removes it, now or once the processes that remain in it have ended."""
        if not self.remove():
            _left.append(self._path)


def _remove_empty() -> None:
    for path in _left[:_REMOVED_AT_ONCE]:
        _left.remove(path)
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError:
            _left.append(path)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
