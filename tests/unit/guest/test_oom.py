"""What the kernel's log says of processes that it killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmm.guest.agent import oom

SECOND = 1_000_000_000
LOG = b"""5,0,0,-;Linux version 6.1.0
6,700,9000000,-;python3 invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0
 SUBSYSTEM=cpu
 DEVICE=+cpu:0
3,701,9000100,-;Out of memory: Killed process 71 (python3) total-vm:1058604kB, anon-rss:120000kB, UID:0
3,702,30000000,-;Memory cgroup out of memory: Killed process 72 (a b) total-vm:1kB
4,703,31000000,-;somebody wrote: Killed process 73 (x)
"""


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kmsg"
    path.write_bytes(LOG)
    monkeypatch.setattr(oom, "KMSG", str(path))
    return path


def test_only_what_was_killed_for_memory_and_since_then_counts() -> None:
    assert list(oom.killed_since(0)) == [71, 72]
    assert list(oom.killed_since(20 * SECOND)) == [72]
    assert list(oom.killed_since(40 * SECOND)) == []


@pytest.mark.parametrize(
    ("pid", "exit_code", "began_s", "ended_by_it"),
    [
        (71, -9, 5, True),
        (71, -9, 20, False),
        (70, -9, 5, False),
        (71, -15, 5, False),
        (70, 137, 5, True),
        (71, 0, 5, False),
    ],
)
def test_a_command_was_killed_for_memory(pid: int, exit_code: int, began_s: int, ended_by_it: bool) -> None:
    """By its pid; a shell that says that what it ran was killed only says that, so anything counts."""
    assert oom.ended_by_it(pid, exit_code, began_ns=began_s * SECOND) is ended_by_it


def test_where_there_is_no_log_nothing_is_known(log: Path) -> None:
    log.unlink()
    assert list(oom.killed_since(0)) == []


def test_the_log_ends_where_the_next_record_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel's does, which does not say that it has ended."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(oom, "KMSG", str(pipe))
    both = os.open(pipe, os.O_RDWR)
    os.write(both, LOG)
    assert list(oom.killed_since(0)) == [71, 72]
    os.close(both)
