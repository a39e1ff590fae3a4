"""What the kernel's log says of processes that it killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from vmm.guest.agent.oom import Kills

SECOND = 1_000_000_000
LOG = b"""5,0,0,-;Linux version 6.1.0
6,700,9000000,-;python3 invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0
 SUBSYSTEM=cpu
 DEVICE=+cpu:0
3,701,9000100,-;Out of memory: Killed process 71 (python3) total-vm:1058604kB, anon-rss:120000kB, UID:0
3,702,30000000,-;Memory cgroup out of memory: Killed process 72 (a b) total-vm:1kB
4,703,31000000,-;somebody wrote: Killed process 73 (x)
4,704,31000000,-;Out of memory: Killed process no number
Out of memory;ut of memory Killed process 74 (x)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "kmsg"
    path.write_bytes(LOG)
    return path


@pytest.fixture
def kills(log: Path) -> Iterator[Kills]:
    with closing(Kills(str(log))) as kills:
        yield kills


@pytest.mark.parametrize(
    ("pid", "exit_code", "began_s", "ended_by_it"),
    [
        (71, -9, 5, True),
        (71, -9, 20, False),
        (72, -9, 20, True),
        (73, -9, 5, False),
        (70, -9, 5, False),
        (71, -15, 5, False),
        (70, 137, 5, True),
        (70, 137, 40, False),
        (71, 0, 5, False),
    ],
)
def test_a_command_was_killed_for_memory(
    kills: Kills, pid: int, exit_code: int, began_s: int, ended_by_it: bool
) -> None:
    """By its pid; a shell that says that what it ran was killed only says that, so anything counts."""
    assert kills.ended(pid, exit_code, began_ns=began_s * SECOND) is ended_by_it


def test_what_was_read_is_remembered_and_what_comes_is_read(kills: Kills, log: Path) -> None:
    assert kills.ended(71, -9, began_ns=0)
    with log.open("ab") as later:
        later.write(b"3,900,50000000,-;Out of memory: Killed process 90 (late) total-vm:1kB\n")
    assert kills.ended(90, -9, began_ns=0)
    assert kills.ended(71, -9, began_ns=0)
    with log.open("ab") as flood:
        flood.write(b"".join(b"3,901,60000000,-;Out of memory: Killed process %d (x)\n" % n for n in range(1000, 9000)))
    assert kills.ended(8999, -9, began_ns=0)
    assert len(kills._seen) == 64


def test_where_there_is_no_log_nothing_is_known(tmp_path: Path) -> None:
    nothing = Kills(str(tmp_path / "nowhere"))
    assert not nothing.ended(71, -9, began_ns=0)
    nothing.close()


def test_of_a_log_that_cannot_be_read_any_more_nothing_is_known(tmp_path: Path) -> None:
    """As a directory it can be opened, and not be read."""
    with closing(Kills(str(tmp_path))) as kills:
        assert not kills.ended(71, -9, began_ns=0)
        assert not kills.ended(137, 137, began_ns=0)


def test_the_log_ends_where_the_next_record_is_not_there_yet(tmp_path: Path) -> None:
    """As the kernel's does, which does not say that it has ended."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    with closing(Kills(str(pipe))) as kills:
        os.write(writer, LOG)
        assert kills.ended(72, -9, began_ns=0)
    os.close(writer)
