"""One process: its start, its end, its adoption. /bin/sh plays QEMU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from tests.waiting import until
from vmm.errors import StopError
from vmm.qemu.process import QemuProcess
from vmm.words.processes import ExitReport, ProcessIdentity


def start(script: str, log: Path, *, pass_fds: tuple[int, ...] = ()) -> QemuProcess:
    return QemuProcess.spawn(["/bin/sh", "-c", script], log=log, pass_fds=pass_fds)


def start_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


async def test_the_report_tells_status_and_last_words(tmp_path: Path) -> None:
    process = start("echo qemu: no such device >&2; exit 3", tmp_path / "log")
    assert await process.wait_exited() == ExitReport(status=3, stderr_tail="qemu: no such device")
    assert await process.wait_exited() == process.exit_report


async def test_the_report_tells_the_signal(tmp_path: Path) -> None:
    process = start("kill -SEGV $$", tmp_path / "log")
    assert await process.wait_exited() == ExitReport(signal=signal.SIGSEGV)


async def test_last_words_are_bounded(tmp_path: Path) -> None:
    process = start("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done", tmp_path / "log")
    report = await process.wait_exited()
    assert len(report.stderr_tail) <= 4096
    assert report.stderr_tail.endswith("line 1999")


async def test_a_log_that_cannot_be_read_does_not_hide_the_end(tmp_path: Path) -> None:
    """As when there are no descriptors left: a process that is reaped but not known to be dead would never end."""
    log = tmp_path / "log"
    process = start("exit 3", log)
    log.unlink()
    log.mkdir()
    assert await process.kill() == process.exit_report
    assert process.exit_report is not None
    assert "Is a directory" in process.exit_report.stderr_tail


async def test_it_inherits_nothing_of_our_environment_but_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets are in it, and the socket on which systemd is told how the service does."""
    ours = {"PATH": "/bin:/usr/bin", "TMPDIR": "/tmp", "AWS_SECRET_ACCESS_KEY": "x", "NOTIFY_SOCKET": "/run/x"}
    monkeypatch.setattr(os, "environ", ours)
    log = tmp_path / "log"
    process = QemuProcess.spawn(["cat", "/proc/self/environ"], log=log)
    await process.wait_exited()
    assert log.read_text().split("\0") == ["PATH=/bin:/usr/bin", ""]


async def test_it_runs_in_a_session_of_its_own_without_our_stdin(tmp_path: Path) -> None:
    process = start("readlink /proc/self/fd/0", tmp_path / "log")
    assert os.getsid(process.pid) == process.pid
    assert await process.wait_exited() == ExitReport(status=0, stderr_tail="/dev/null")


async def test_it_inherits_the_passed_descriptors_and_no_others(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.set_inheritable(ours, True)
    listing = "import os; print(*[fd for fd in range(100) if os.path.exists(f'/proc/self/fd/{fd}')])"
    process = QemuProcess.spawn([sys.executable, "-c", listing], log=tmp_path / "log", pass_fds=(theirs,))
    os.close(ours)
    os.close(theirs)
    assert await process.wait_exited() == ExitReport(status=0, stderr_tail=f"0 1 2 {theirs}")


async def test_a_program_that_cannot_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        QemuProcess.spawn([str(tmp_path / "absent")], log=tmp_path / "log")


async def test_many_may_wait_and_any_of_them_may_be_cancelled(tmp_path: Path) -> None:
    process = start("exec sleep 100", tmp_path / "log")
    reports = []

    async def wait() -> None:
        reports.append(await process.wait_exited())

    async with trio.open_nursery() as nursery:
        impatient = trio.CancelScope()

        async def wait_impatiently() -> None:
            with impatient:
                await wait()

        nursery.start_soon(wait_impatiently)
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        impatient.cancel()
        await trio.testing.wait_all_tasks_blocked()
        process.send_signal(signal.SIGTERM)
    assert reports == [ExitReport(signal=signal.SIGTERM)] * 2


async def test_signals_to_the_dead_are_nothing(tmp_path: Path) -> None:
    process = start("exit 0", tmp_path / "log")
    await process.wait_exited()
    process.send_signal(signal.SIGTERM)
    assert (await process.kill()).status == 0


async def test_kill_is_not_stopped_by_cancellation(tmp_path: Path) -> None:
    process = start("exec sleep 100", tmp_path / "log")
    with trio.CancelScope() as scope:
        scope.cancel()
        assert (await process.kill()).signal == signal.SIGKILL


async def test_a_process_that_does_not_die_is_an_error_with_its_state(tmp_path: Path) -> None:
    process = start("exec sleep 100", tmp_path / "log")
    with pytest.raises(StopError, match=r"still exists 0 s after SIGKILL \(status: State") as caught:
        await process.kill(limit_s=0)
    assert caught.value.pid == process.pid
    await process.kill()


async def test_a_process_of_someone_else_is_adopted_by_pid_and_start_time(tmp_path: Path) -> None:
    # The shell's child becomes init's, as a QEMU does when its service is restarted.
    first = start("sleep 100 & echo $!", tmp_path / "log")
    pid = int((await first.wait_exited()).stderr_tail)
    identity = ProcessIdentity(pid=pid, start_time=start_time(pid))
    with pytest.raises(ProcessLookupError, match="another, younger"):
        QemuProcess.adopt(attrs.evolve(identity, start_time=identity.start_time - 1), log=tmp_path / "log")

    adopted = QemuProcess.adopt(identity, log=tmp_path / "log")
    report = await adopted.kill()
    assert (report.status, report.signal) == (None, None)
    assert str(report).startswith("exit status unknown")


async def test_the_dead_are_not_adopted(tmp_path: Path) -> None:
    process = start("exit 0", tmp_path / "log")
    await process.wait_exited()
    with pytest.raises(ProcessLookupError):
        QemuProcess.adopt(process.identity, log=tmp_path / "log")


async def test_a_process_without_its_main_thread_is_told_from_one_that_lives(tmp_path: Path) -> None:
    """The kernel has not reaped it: its other threads go on."""
    script = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(1e6,)).start(); "
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    process = QemuProcess.spawn([sys.executable, "-c", script], log=tmp_path / "log")
    other = start("exec sleep 100", tmp_path / "other")

    async def is_hollow() -> bool:
        return process.has_lost_its_main_thread()

    await until(is_hollow)
    assert process.exit_report is None
    assert not other.has_lost_its_main_thread()
    assert await process.kill() == ExitReport(signal=signal.SIGKILL)
    assert not process.has_lost_its_main_thread()
    await other.kill()


async def test_let_go_and_taken_up_again_in_the_same_service(tmp_path: Path) -> None:
    process = start("exec sleep 100", tmp_path / "log")
    process.close()
    again = QemuProcess.adopt(process.identity, log=tmp_path / "log")
    assert await again.kill() == ExitReport(signal=signal.SIGKILL)


def test_no_stray_child_when_the_table_of_descriptors_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", full)
    with pytest.raises(OSError, match="Too many"):
        start("exec sleep 100", tmp_path / "log")
    assert subprocess._active == []  # type: ignore[attr-defined]
