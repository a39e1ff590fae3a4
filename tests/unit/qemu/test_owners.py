"""Who has a process is told by the pidfd that he holds of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


# -- descriptors that are closed while we look -------------------------------------------------------------------------

PIDFD = "anon_inode:[pidfd]"


def process(proc: Path, *, pid: int) -> Path:
    """What /proc has of a process without descriptors."""
    for name in ("fd", "fdinfo"):
        (proc / str(pid) / name).mkdir(parents=True)
    return proc / str(pid)


def opens(process: Path, descriptor: str, *, watched: int) -> None:
    (process / "fd" / descriptor).symlink_to(PIDFD)
    (process / "fdinfo" / descriptor).write_text(f"pos:\t0\nPid:\t{watched}\nNSpid:\t{watched}\n")


@pytest.mark.parametrize(("closed", "kept"), [("3", "4"), ("4", "3")])
def test_who_closes_another_descriptor_meanwhile_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str, kept: str
) -> None:
    watcher = process(tmp_path, pid=4711)
    opens(watcher, closed, watched=8)
    opens(watcher, kept, watched=7)
    real = Path.readlink

    def readlink(self: Path) -> Path:
        if self.name == closed:
            self.unlink(missing_ok=True)
        return real(self)

    monkeypatch.setattr(Path, "readlink", readlink)
    assert owner_of({7}, proc=tmp_path) == 4711


@pytest.mark.parametrize(("closed", "kept"), [("3", "4"), ("4", "3")])
def test_who_closes_another_pidfd_meanwhile_has_it(tmp_path: Path, closed: str, kept: str) -> None:
    """After it was known for one."""
    watcher = process(tmp_path, pid=4711)
    opens(watcher, closed, watched=8)
    opens(watcher, kept, watched=7)
    (watcher / "fdinfo" / closed).unlink()
    assert owner_of({7}, proc=tmp_path) == 4711


def test_one_that_ends_meanwhile_has_none(tmp_path: Path) -> None:
    process(tmp_path, pid=4711).joinpath("fd").rmdir()
    opens(process(tmp_path, pid=4712), "3", watched=7)
    assert owner_of({7}, proc=tmp_path) == 4712
    assert owner_of({8}, proc=tmp_path) is None
