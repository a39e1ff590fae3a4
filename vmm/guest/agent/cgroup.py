"""A cgroup around a command, to kill all its processes, including those that left its process group and session."""

from __future__ import annotations

import itertools
import os

ROOT = "/sys/fs/cgroup"
"""Where `init` mounts cgroup version 2, without controllers."""

_numbers = itertools.count(1)
_left: list[str] = []
"""Cgroups in which processes outlived their command."""


class Cgroup:
    """Contains every process started between `enter` and `leave`, and all its descendants.

    The guest's root user may unmount or cover the mount at any time, so each step may fail independently of the others.
    """

    def __init__(self, root: str) -> None:
        """Raises OSError if the kernel has no cgroups or none are mounted."""
        _remove_empty()
        self._root = root
        self._path = f"{root}/command-{next(_numbers)}"
        os.mkdir(self._path)

    def enter(self) -> None:
        """Raises OSError."""
        # The agent itself enters: a child starts in its parent's cgroup, so it is never outside.
        _write(f"{self._path}/cgroup.procs", "0")

    def leave(self) -> None:
        """Raises OSError. The agent is then still inside, and must not call `kill`."""
        _write(f"{self._root}/cgroup.procs", "0")

    def kill(self) -> None:
        """Sends SIGKILL to every process inside. Raises OSError."""
        _write(f"{self._path}/cgroup.kill", "1")

    def close(self) -> None:
        """Removes the cgroup, now or once the processes that remain in it have ended."""
        _left.append(self._path)
        _remove_empty()


def _remove_empty() -> None:
    for path in list(_left):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError:
            continue
        _left.remove(path)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
