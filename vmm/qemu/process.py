"""One QEMU process: started by us or by an earlier run of the service, watched by pidfd."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from vmm.errors import StopError
from vmm.logs import new_log, read_tail
from vmm.words.processes import ExitReport, ProcessIdentity

KILL_LIMIT_S = 10.0
"""A process that outlives SIGKILL by this is stuck in the kernel."""


_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "QEMU_MODULE_DIR")
"""Variables with which QEMU and the programs that start it are found, and find their files."""


def qemu_environment() -> dict[str, str]:
    """The part of the environment that QEMU gets. The rest may hold secrets, which an escaped guest could read."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


class QemuProcess:
    """A QEMU process and its log. Its owner waits for its end or kills it, which closes its pidfd.

    Children and adopted processes are treated alike, but only a child's exit status is known.
    """

    def __init__(self, identity: ProcessIdentity, *, pidfd: int, log: Path) -> None:
        self.identity = identity
        self._pidfd = pidfd
        self._log = log
        self._waiting = trio.Lock()
        self._exit: ExitReport | None = None

    @classmethod
    def spawn(cls, argv: Sequence[str], *, log: Path, pass_fds: Sequence[int] = ()) -> QemuProcess:
        """Starts QEMU in a session of its own, so that the terminal's Ctrl-C does not reach it.

        `log` must not exist and gets stdout and stderr; `pass_fds` keep their numbers in QEMU and stay the caller's.
        Raises OSError. Returns once the program is executing, in about 2 ms; not a checkpoint, so that no
        cancellation comes between the start and the owner's knowledge of it.
        """
        with new_log(log) as log_fd:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                pass_fds=pass_fds,
                cwd="/",
                env=qemu_environment(),
                start_new_session=True,
            )
        try:
            start_time = start_time_of(child.pid)
            assert start_time is not None, "a child stays in /proc until it is reaped"
            pidfd = os.pidfd_open(child.pid)
        except BaseException:
            child.kill()
            child.wait()
            raise
        child.returncode = 0  # reaped through its pidfd: Popen's destructor must not do it or warn
        return cls(ProcessIdentity(pid=child.pid, start_time=start_time), pidfd=pidfd, log=log)

    @classmethod
    def started(cls, pid: int, *, pidfd: int, log: Path) -> QemuProcess:
        """Takes over a child of this process, and its pidfd."""
        start_time = start_time_of(pid)
        assert start_time is not None, "a child stays in /proc until it is reaped"
        return cls(ProcessIdentity(pid=pid, start_time=start_time), pidfd=pidfd, log=log)

    @classmethod
    def adopt(cls, identity: ProcessIdentity, *, log: Path) -> QemuProcess:
        """Watches a running process. Raises ProcessLookupError if it is gone or its pid is reused, another OSError if
        that cannot be found out.
        """
        pidfd = os.pidfd_open(identity.pid)
        try:
            # In this order: a process with the pid and the right start time now had the pid before, too.
            started = start_time_of(identity.pid)
        except BaseException:
            os.close(pidfd)
            raise
        if started != identity.start_time:
            os.close(pidfd)
            raise ProcessLookupError(f"pid {identity.pid} belongs to another, younger process")
        return cls(identity, pidfd=pidfd, log=log)

    @property
    def pid(self) -> int:
        return self.identity.pid

    @property
    def exit_report(self) -> ExitReport | None:
        """How the process ended; None until `wait_exited` or `kill` has returned."""
        return self._exit

    async def wait_exited(self) -> ExitReport:
        """Waits for the end, reaps, and closes the pidfd. Any number of tasks may wait, cancelled or not."""
        async with self._waiting:
            if self._exit is None:
                await trio.lowlevel.wait_readable(self._pidfd)
                self._exit = self._reap()
            return self._exit

    def has_lost_its_main_thread(self) -> bool:
        """Whether only other threads are left, so that QEMU no longer answers.

        A system call that its sandbox forbids kills QEMU, except `execveat`, `setns` and `unshare`: for these the
        kernel ends only the calling thread.
        """
        return self._exit is None and _state_of(self.pid).startswith("State: Z")

    def send_signal(self, number: signal.Signals) -> None:
        """Signals the process; does nothing if it is dead."""
        if self._exit is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def kill(self, *, limit_s: float = KILL_LIMIT_S) -> ExitReport:
        """SIGKILL, then verifies that the process is dead. Shielded from cancellation.

        Raises StopError if it still exists after `limit_s`.
        """
        report: ExitReport | None = None
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limit_s):
            self.send_signal(signal.SIGKILL)
            report = await self.wait_exited()
        if report is not None:
            return report
        raise StopError(pid=self.pid, limit_s=limit_s, state=_describe_state(self.pid))

    def close(self) -> None:
        """Closes the pidfd of a process that goes on without the service. No task may be waiting for it."""
        if self._exit is None:
            self._exit = ExitReport()
            os.close(self._pidfd)

    def _reap(self) -> ExitReport:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            result = None
        os.close(self._pidfd)
        said = read_tail(self._log)
        if result is None:
            return ExitReport(stderr_tail=said)
        if result.si_code == os.CLD_EXITED:
            return ExitReport(status=result.si_status, stderr_tail=said)
        return ExitReport(signal=result.si_status, stderr_tail=said)


def start_time_of(pid: int) -> int | None:
    """The start time of a process, as in ProcessIdentity; None if no process has that pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])  # the name before ")" may hold anything; field 3 comes next


def command_line_of(pid: int) -> list[str]:
    """The argv of a process; empty if no living process has that pid."""
    try:
        return [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _state_of(pid: int) -> str:
    """The main thread's state from /proc/pid/status; empty if no process has that pid."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return " ".join(next((line for line in lines if line.startswith("State:")), "").split())
    return ""


def _describe_state(pid: int) -> str:
    """The state of a process that does not die, from /proc."""
    facts = []
    if state := _state_of(pid):
        facts.append(f"status: {state}")
    with contextlib.suppress(OSError):
        facts.append(f"wchan: {' '.join(Path(f'/proc/{pid}/wchan').read_text().split())}")
    return "; ".join(facts) or "not in /proc"
