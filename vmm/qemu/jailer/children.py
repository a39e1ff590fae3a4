"""Unreported children: processes started by a jailer that was killed before it could answer."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

from vmm.qemu.process import command_line_of


def name_of(pid: int) -> str:
    """The kernel's name for a process, also a zombie's; empty if there is no process of that pid."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return ""


def end_all(*, name: str, argvs: Collection[list[str]]) -> None:
    """Kills and reaps our children with one of these command lines, and reaps zombies of that name.

    A script has its interpreter before its own command line, and may execute another program with the same arguments. A
    jailer's child that has not executed its program yet has the jailer's name and command line; no other child does.
    """
    for pid in _children():
        argv = command_line_of(pid)
        if any(_is_of(argv, each) for each in argvs) or (not argv and name_of(pid) == name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED)


def _is_of(argv: list[str], started: list[str]) -> bool:
    options = started[1:]
    # A trial has no arguments, and neither has a zombie.
    return bool(argv) and (argv == started or (bool(options) and argv[-len(options) :] == options))


def _children() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                yield pid
