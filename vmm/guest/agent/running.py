"""Processes that the agent has started: what is known of each, and how it ends."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import time

from .cgroup import Cgroup
from .programs import DEFAULT_ENVIRONMENT
from .spawning import spawn
from .stdin import Stdin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import Loop, Timer
    from .oom import Kills

_SHOWN = 1024
"""Characters of a process's arguments that are shown; a request may have megabytes."""


class Processes:
    """The VM's, and what they are started with: it outlives a session, and on vsock a connection."""

    def __init__(
        self,
        loop: Loop,
        *,
        environment: dict[str, str] | None = None,
        kills: Kills | None = None,
        cgroups: str | None = None,
    ) -> None:
        """`environment` is what each process gets beside its request's. `kills` reports OOM kills, None if they cannot
        be known. Under the mount point `cgroups` each process gets a cgroup; None for no cgroups.
        """
        self.loop = loop
        self.environment = dict(DEFAULT_ENVIRONMENT) if environment is None else environment
        self.kills = kills
        self.cgroups = cgroups
        self.last_number = 0
        self.running: dict[int, Process] = {}
        self.detached: dict[int, Any] = {}
        """Each a `processes.Detached`, in the order of their start; also those that have ended and are kept."""
        self.kept_bytes = 0
        """Memory that their output takes up."""


class Process:
    """One process and what it starts. Ends with `on_exit`, or `abandon`."""

    def __init__(
        self, processes: Processes, request: dict[str, Any], *, attached: bool, on_exit: Callable[[], None]
    ) -> None:
        """Raises SpawnError or another OSError, or ValueError for an invalid request."""
        limit_ns = request.get("time_limit_ns")
        if not (limit_ns is None or isinstance(limit_ns, int)):
            raise ValueError("time_limit_ns must be an int")
        self._loop = processes.loop
        self._processes = processes
        self._kills = processes.kills
        self._on_exit = on_exit
        self._began_ns = time.monotonic_ns()
        self._timed_out = False
        self._timer: Timer | None = None
        self._leave_children = request.get("leave_children") is True
        self.started_ns = time.time_ns()
        self.attached = attached
        self.exit: dict[str, Any] | None = None
        """Set once it has ended, as EXITED has it."""
        self.ended_ns = 0
        """Of CLOCK_MONOTONIC."""
        cgroup = None if processes.cgroups is None else _new_cgroup(processes.cgroups)
        self.spawned = spawn(request, processes.environment, cgroup)
        self.pid = self.spawned.pid
        self._cgroup = self.spawned.cgroup
        self.stdin = Stdin(self._loop, self.spawned.stdin, terminal=self.spawned.terminal)
        self.argv = _shown(request["argv"])
        self.number = self._processes.last_number = self._processes.last_number + 1
        self._processes.running[self.number] = self
        self._loop.watch_child(self.pid, self._ended)
        if limit_ns is not None:
            self._timer = self._loop.call_later(limit_ns, self._on_time_limit)

    def info(self) -> dict[str, Any]:
        spawned = self.spawned
        return {
            "process_id": self.number,
            "pid": self.pid,
            "argv": self.argv,
            "directory": spawned.directory,
            "user": spawned.user,
            "terminal": spawned.terminal,
            "attached": self.attached,
            "started_ns": self.started_ns,
            "exit": self.exit,
        }

    def signal(self, number: int, *, everything: bool = False) -> None:
        """Signals the process group while the process runs, or `everything` that it has started.

        Does nothing afterwards: the pid of a reaped process may belong to another one.
        """
        if self.exit is not None:
            return
        try:
            if everything and self._cgroup is not None:
                self._signal_all(self._cgroup, number)
            else:
                os.killpg(self.pid, number)
        except ProcessLookupError:
            return  # A zombie that is about to be reaped.

    def resize(self, size: Any) -> None:
        """Does nothing without a terminal, or after the end. Raises ValueError for an invalid size."""
        if self.spawned.terminal and self.stdin.fd >= 0:
            from .forking import resize  # noqa: PLC0415 - loaded at first use

            resize(self.stdin.fd, size)

    def abandon(self) -> None:
        """Kills it, and what it has started unless that is to be left; `on_exit` is not called."""
        if self.exit is None:
            self._kill(everything=not self._leave_children)
            self._loop.unwatch_child(self.pid)
            self.stdin.close()
            self._forget()
            if self._cgroup is not None:
                self._cgroup.close()

    def _signal_all(self, cgroup: Cgroup, number: int) -> None:
        if number == _signal.SIGKILL:
            self._kill(everything=True)
            return
        try:
            pids = cgroup.pids()
        except OSError:
            pids = []
        if self.pid not in pids:
            # Root in the guest has unmounted the cgroup, or moved the process.
            os.killpg(self.pid, number)
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _kill(self, *, everything: bool) -> None:
        self.signal(_signal.SIGKILL)
        if everything and self._cgroup is not None:
            _kill_all(self._cgroup)

    def _on_time_limit(self) -> None:
        if self.exit is None:
            self._timed_out = True
            self._kill(everything=True)

    def _ended(self, exit_code: int) -> None:
        timed_out = self._timed_out and exit_code == -_signal.SIGKILL
        how: dict[str, Any] = {"status": exit_code} if exit_code >= 0 else {"signal": -exit_code}
        how["timed_out"] = timed_out
        if self._kills is not None and not timed_out:
            how["out_of_memory"] = self._kills.ended(self.pid, exit_code, began_ns=self._began_ns)
        self.exit = how
        self.ended_ns = time.monotonic_ns()
        self.stdin.close()
        self._forget()
        self._on_exit()
        if self._cgroup is not None:
            self._end_children(self._cgroup)

    def _end_children(self, cgroup: Cgroup) -> None:
        if not cgroup.remove():
            if not self._leave_children:
                _kill_all(cgroup)
            cgroup.close()

    def _forget(self) -> None:
        self._processes.running.pop(self.number, None)
        if self._timer is not None:
            self._timer.cancel()


def _new_cgroup(root: str) -> Cgroup | None:
    """None if no cgroup is available, as in a user's own guest: processes then have only their process groups."""
    try:
        return Cgroup(root)
    except OSError:
        return None


def _kill_all(cgroup: Cgroup) -> None:
    try:
        cgroup.kill()
    except OSError:
        return  # Root in the guest has unmounted it.


def _shown(argv: list[str]) -> list[str]:
    left = _SHOWN
    shown = []
    for word in argv:
        if len(word) > left:
            shown.append(f"{word[:left]}...")
            break
        shown.append(word)
        left -= len(word) + 1
        if left <= 0:
            break
    return shown
