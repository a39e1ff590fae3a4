"""A cgroup around a command, to end all of it: those too that left its process group and its session."""

from __future__ import annotations

import itertools
import os

ROOT = "/sys/fs/cgroup"
"""Where `init` mounts version 2, without any controller."""

_numbers = itertools.count(1)
_left: list[str] = []
"""Those in which something lived on when its command had ended."""


class Cgroup:
    """What is started between `enter` and `leave` is in it, and whatever that starts.

    The guest's root may unmount or cover it at any moment: each step may fail, whether or not the one before did.
    """

    def __init__(self, root: str) -> None:
        """Raises OSError where the kernel has none, or none is mounted."""
        _remove_empty()
        self._root = root
        self._path = f"{root}/command-{next(_numbers)}"
        os.mkdir(self._path)

    def enter(self) -> None:
        """Raises OSError."""
        # The agent goes in itself: a child begins where its parent is, and there is no moment in between.
        _write(f"{self._path}/cgroup.procs", "0")

    def leave(self) -> None:
        """Raises OSError. The agent is in it still then, and must not `kill` it."""
        _write(f"{self._root}/cgroup.procs", "0")

    def kill(self) -> None:
        """SIGKILL for all that is in it. Raises OSError."""
        _write(f"{self._path}/cgroup.kill", "1")

    def close(self) -> None:
        """Removes it, now or when what lives on in it has ended."""
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
