"""Waiting until a guest has come to rest: its vCPUs are idle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import trio

SAMPLE_S: Final = 0.05
QUIET_SAMPLES: Final = 3
QUIET_SHARE: Final = 0.10
"""A guest at rest uses a few percent of a sample, for its timer tick."""

SETTLE_LIMIT_S: Final = 10.0
"""A guest that does not come to rest has work of its own; it is saved as it is."""


_BUSY_STATES: Final = frozenset("RD")
"""Running or ready to, waiting for a disk; see proc_pid_stat(5)."""


async def wait_until_idle(pid: int) -> bool:
    """Returns True once QEMU was idle in a few samples in a row, False after SETTLE_LIMIT_S.

    The evidence is the process's CPU time: under TCG and KVM alike a busy vCPU takes all that it gets. On a host that
    is short of CPUs it may get none, so no thread may be waiting for a CPU either. A process that ends counts as at
    rest; its user notices the end.
    """
    quiet = 0
    with trio.move_on_after(SETTLE_LIMIT_S):
        used = _cpu_seconds(pid)
        while quiet < QUIET_SAMPLES:
            await trio.sleep(SAMPLE_S)
            before, used = used, _cpu_seconds(pid)
            rests = used - before <= SAMPLE_S * QUIET_SHARE and not _is_busy(pid)
            quiet = quiet + 1 if rests else 0
        return True
    return False


def _cpu_seconds(pid: int) -> float:
    """utime + stime of a process, all its threads; 0 when it is gone."""
    fields = _stat(Path(f"/proc/{pid}"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _is_busy(pid: int) -> bool:
    """Whether a thread of the process runs or is ready to run."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return False
    return any(fields[0] in _BUSY_STATES for fields in map(_stat, threads) if fields)


def _stat(place: Path) -> list[str]:
    """The fields after the name in the `stat` of a process or thread; empty when it is gone."""
    try:
        stat = (place / "stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return stat.rpartition(")")[2].split()
