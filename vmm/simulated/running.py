"""A program that runs in a simulated guest."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from pathlib import PurePosixPath
from typing import Final

import attrs
import trio

from vmm.errors import AgentRequestError
from vmm.simulated.faults import CommandsFail
from vmm.simulated.machine import Machine
from vmm.simulated.programs import PROGRAMS, GuestProcess, Program
from vmm.words.commands import LIMIT_NAMES, CommandExit, CommandSpec, OutputStream, TerminalSize

_HARMLESS_SIGNALS: Final = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})

_FIRST_PID: Final = 100

_USERS: Final = {"root": 0, "user": 1000, "nobody": 65534}
_HOMES: Final = {"root": "/root", "user": "/home/user"}
_GROUPS: Final = {"root": 0, "tty": 5, "user": 1000, "nogroup": 65534}


class Running:
    """One program, from its start to its exit. The machine runs `run` in the background."""

    def __init__(
        self,
        machine: Machine,
        spec: CommandSpec,
        *,
        request: str,
        write: Callable[[OutputStream, bytes], Awaitable[None]],
    ) -> None:
        """Raises AgentRequestError as the real agent does, calling the request by this name."""
        program, spec = _admit(machine, spec, request=request)
        self._machine = machine
        self._program = program
        self.spec = spec
        """With the environment and the directory that the program sees."""
        machine.last_process += 1
        self.number = machine.last_process
        self.pid = _FIRST_PID + self.number
        self.user = "" if spec.user in ("", "root", "0") else spec.user
        self.started_ns = machine.wall_clock_ns
        self._terminal = spec.terminal is not None
        self._stdin, self._guest_stdin = trio.open_memory_channel[bytes](1)
        self._stdin_closed = False
        self._write = write
        self._process = GuestProcess(
            spec,
            files=machine.visible_files,
            network=machine.network,
            stdin=self._guest_stdin,
            write=self._write_if_running,
        )
        if spec.stdin is not None:
            self._stdin.send_nowait(spec.stdin)
            self._stdin.close()
            self._stdin_closed = True
        self._life = trio.CancelScope()
        self._killed_by: int | None = None
        self.exit: CommandExit | None = None

    @property
    def stdin_closed(self) -> bool:
        return self._stdin_closed

    async def run(self) -> None:
        """Returns without an exit if the machine ends first."""
        with self._guest_stdin, self._life:
            with trio.CancelScope() as limit:
                if self.spec.time_limit_s is not None:
                    limit.deadline = trio.current_time() + self.spec.time_limit_s
                self.exit = CommandExit(status=await self._program(self._process))
            if limit.cancelled_caught:
                await self._machine.guest_runs()
                self.exit = CommandExit(signal=signal.SIGKILL, timed_out=True)
        if self._killed_by is not None and self.exit is None:
            self.exit = CommandExit(signal=self._killed_by)

    async def send_stdin(self, data: bytes) -> bool:
        """Whether somebody will read it. Waits while the program does not. Raises AgentUnreachableError."""
        await self._machine.guest_runs()
        try:
            await self._stdin.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def close_stdin(self) -> None:
        """A terminal stays open: its program sees one end of file."""
        await self._machine.guest_runs()
        if self._terminal:
            await self.send_stdin(b"")
        else:
            self._stdin_closed = True
            self._stdin.close()

    async def send_signal(self, number: int) -> None:
        await self._machine.guest_runs()
        if number not in _HARMLESS_SIGNALS:
            self.kill(number)

    async def resize(self, size: TerminalSize) -> None:
        """Raises AgentRequestError without a terminal."""
        await self._machine.guest_runs()
        if not self._terminal:
            raise AgentRequestError(request="resize", code="ENOTTY", message=f"process {self.number} has no terminal")
        self._process.terminal_size = size

    def kill(self, number: int) -> None:
        if self.exit is None and self._killed_by is None:
            self._killed_by = number
            self._life.cancel(reason=f"the simulated program got signal {number}")

    def close(self) -> None:
        self.kill(signal.SIGKILL)
        self._stdin.close()

    async def _write_if_running(self, stream: OutputStream, data: bytes) -> None:
        await self._machine.guest_runs()
        await self._write(OutputStream.STDOUT if self._terminal else stream, data)


def _admit(machine: Machine, spec: CommandSpec, *, request: str) -> tuple[Program, CommandSpec]:
    for fault in machine.faults:
        if isinstance(fault, CommandsFail):
            raise AgentRequestError(request=request, code=fault.code, message=fault.message, part=fault.part)
    missing = next((name for name in spec.groups if name not in _GROUPS and not name.isdecimal()), None)
    if spec.user and spec.user not in _USERS and not spec.user.isdecimal():
        raise _refusal(request, "EINVAL", f"user: the guest has no user {spec.user!r}", "user")
    if missing is not None:
        raise _refusal(request, "EINVAL", f"groups: the guest has no group {missing!r}", "groups")
    for limit in spec.limits:
        if limit.name not in LIMIT_NAMES:
            raise _refusal(request, "BAD_REQUEST", f"limits: {limit.name!r} is unknown", "")
        if limit.hard is not None and (limit.soft is None or limit.soft > limit.hard):
            raise _refusal(request, "EINVAL", f"{limit.name}: current limit exceeds maximum limit", "limits")
    if (program := PROGRAMS.get(PurePosixPath(spec.argv[0]).name)) is None:
        raise _refusal(request, "ENOENT", f"{spec.argv[0]}: No such file or directory", "program")
    name = next((name for name, uid in _USERS.items() if spec.user in (name, str(uid))), spec.user)
    home = _HOMES.get(name, "/") if spec.user else "/"
    directory = spec.working_directory or home
    if not machine.files.is_directory(directory):
        raise _refusal(
            request, "ENOENT", f"working directory {directory}: No such file or directory", "working_directory"
        )
    environment = dict(machine.environment)
    if spec.user:
        environment |= {"HOME": home, "USER": name, "LOGNAME": name}
    if spec.terminal is not None:
        environment["TERM"] = spec.terminal.term
    return program, attrs.evolve(
        spec, environment=environment | dict(spec.environment), working_directory=directory, user=name
    )


def _refusal(request: str, code: str, message: str, part: str) -> AgentRequestError:
    return AgentRequestError(request=request, code=code, message=message, part=part)
