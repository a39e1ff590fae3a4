"""Who has a process is told by the pidfd that he holds of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from vmm.qemu.owners import owner_of

HOLD = "import os, sys; os.pidfd_open(int(sys.argv[1])); print(flush=True); sys.stdin.readline()"


@pytest.fixture
def held() -> Iterator[tuple[int, int]]:
    """The pids of a process and of another one that watches it."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        argv = [sys.executable, "-c", HOLD, str(process.pid)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as watcher:
            assert watcher.stdout is not None
            watcher.stdout.readline()
            yield process.pid, watcher.pid
            watcher.kill()
        process.kill()


def test_who_watches_a_process_has_it(held: tuple[int, int]) -> None:
    pid, watcher = held
    assert owner_of({pid}) == watcher
    assert owner_of({pid, os.getpid()}) == watcher


def test_nobody_has_one_that_nobody_watches(held: tuple[int, int]) -> None:
    _, watcher = held
    assert owner_of({watcher}) is None


def test_we_do_not_count_ourselves(held: tuple[int, int]) -> None:
    _, watcher = held
    descriptor = os.pidfd_open(watcher)
    try:
        assert owner_of({watcher}) is None
    finally:
        os.close(descriptor)
