"""Leftovers of an experiment, seen from outside: processes, descriptors, files."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Final

import attrs
import trio

_GRACE_S: Final = 5.0
"""For processes that have ended but are not yet removed by the kernel, and for those killed with them."""

_PAUSE_S: Final = 0.05


@attrs.frozen(kw_only=True)
class Watch:
    """Begins before an experiment, and ends after it."""

    home: Path
    _processes: frozenset[int]
    _descriptors: frozenset[str]

    @classmethod
    def begin(cls, home: Path) -> Watch:
        return cls(home=home, processes=frozenset(_processes(home)), descriptors=frozenset(_descriptors()))

    async def end(self) -> list[str]:
        """A line for each leftover, which stays. Waits a moment for processes that are ending."""
        found = self._look()
        with trio.move_on_after(_GRACE_S):
            while found:
                await trio.sleep(_PAUSE_S)
                found = self._look()
        return found

    def _look(self) -> list[str]:
        gc.collect()  # closes descriptors that only a reference cycle kept open
        processes = {pid: what for pid, what in _processes(self.home).items() if pid not in self._processes}
        found = [f"process {pid}: {what}" for pid, what in processes.items()]
        found += [f"descriptor {what}" for what in _descriptors() if what not in self._descriptors]
        found += [f"file {path}" for path in sorted(self.home.iterdir())]
        return found


def _processes(home: Path) -> dict[int, str]:
    """Descendants, including zombies, and processes that name our directory, which may have lost their parent."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(entry.name)], commands[int(entry.name)] = parent, command
    ours = os.getpid()
    return {
        pid: commands[pid].strip() or "(zombie)"
        for pid in parents
        if pid != ours and (_descends(pid, ours, parents) or f"{home}/" in commands[pid])
    }


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == ancestor:
            return True
    return False


def _descriptors() -> list[str]:
    """The open descriptors by their targets, as numbers are reused; pipes and sockets by inode."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(f"{entry.name} -> {entry.readlink()}")
        except FileNotFoundError:  # the descriptor with which this directory was read
            continue
    return found
