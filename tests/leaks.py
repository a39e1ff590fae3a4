"""What a test may have left behind, seen from outside: processes, descriptors, directories."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def nothing_left(directory: Path | None = None) -> Iterator[None]:
    """Fails if the block leaves child processes (zombies too), descriptors, or anything in `directory`."""
    processes = _children()
    descriptors = _descriptors()
    yield
    gc.collect()  # what only a cycle kept open is closed, and told as a ResourceWarning
    new_processes = {pid: what for pid, what in _children().items() if pid not in processes}
    assert new_processes == {}, f"processes left: {new_processes}"
    now = _descriptors()
    new_descriptors = {fd: what for fd, what in now.items() if descriptors.get(fd) != what}
    assert new_descriptors == {}, f"descriptors left: {new_descriptors}"
    if directory is not None:
        assert list(directory.iterdir()) == [], f"files left in {directory}"


def _children() -> dict[int, str]:
    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            found[child.pid] = f"{child.name()} ({child.status()})"
        except psutil.NoSuchProcess:
            continue
    return found


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:  # the descriptor with which this directory was read
            continue
    return found
