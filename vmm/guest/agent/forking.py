"""Starts a program as another user, with limits of its own or a terminal: with a fork, and work between it and exec."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import fcntl
import os
import resource
import struct

from . import values
from .accounts import find_group, find_user, groups_of
from .programs import PROGRAM, WORKING_DIRECTORY, SpawnError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .cgroup import Cgroup
    from .programs import Program

_TIOCSCTTY = 0x540E
_TIOCSWINSZ = 0x5414
_SIZE = struct.Struct("<HHHH")

_LIMITS = ("nofile", "cpu", "as", "core", "data", "fsize", "memlock", "nproc", "rss", "stack")

_DEFAULT_SIGNALS = (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2)
"""Ignored by Python, or handled by the agent, whose handlers the child would run until it has executed its program."""

_REPORT_BYTES = 8192
_NAME = 1024
"""Characters of a report's longest parts."""


class Terms:
    """What a request asks for beside a program. All fields are checked."""

    def __init__(self, request: dict[str, Any]) -> None:
        """Raises OSError with `part` for an unknown user or group, ValueError for an invalid request."""
        user, groups = request.get("user", ""), request.get("groups", [])
        if not (isinstance(user, str) and isinstance(groups, list) and all(isinstance(name, str) for name in groups)):
            raise ValueError("user must be a str and groups a list of str")
        account = find_user(user)
        self.uid = account.uid
        self.groups = [find_group(name, part="groups") for name in groups] if groups else groups_of(account)
        """The first is the primary one."""
        self.user = "" if account.uid == 0 else account.name or str(account.uid)
        self.home = "/"
        self.environment: dict[str, str] = {}
        if user:
            name = account.name or str(account.uid)
            self.environment = {"HOME": account.home, "USER": name, "LOGNAME": name}
            # As at a login, a user without a home gets the root.
            self.home = account.home if os.path.isdir(account.home) else "/"
        self.limits = _limits_of(request.get("limits", []))
        self.size: bytes | None = None
        """The terminal's; None for pipes."""
        terminal = request.get("terminal")
        if terminal is not None:
            self.size = _size_of(terminal)
            if not isinstance(terminal.get("term"), str):
                raise ValueError("terminal: term must be a str")
            self.environment["TERM"] = terminal["term"]

    def open_terminal(self) -> tuple[list[int], list[int]]:
        """Our ends and theirs, of stdin, stdout and stderr; -1 is none. Raises OSError."""
        assert self.size is not None
        ours, theirs = os.openpty()
        try:
            fcntl.ioctl(theirs, _TIOCSWINSZ, self.size)
            # Programs also open it by its name. The group is devpts's.
            os.fchown(theirs, self.uid, -1)
            return [os.dup(ours), ours, -1], [theirs] * 3
        except OSError:
            os.close(ours)
            os.close(theirs)
            raise

    def fork(self, program: Program, fds: list[int], cgroup: Cgroup | None) -> int:
        """The pid of the program, which runs when this returns. Raises SpawnError or another OSError, ValueError."""
        report, child_report = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                pid = os.fork()
                if pid == 0:
                    self._be_child(program, fds, cgroup, child_report)
            finally:
                os.close(child_report)
            # Executing the program closes the pipe.
            failure = os.read(report, _REPORT_BYTES)
        finally:
            os.close(report)
        if not failure:
            return pid
        os.waitpid(pid, 0)
        part, name, number, message = values.unpack(failure)
        if not number:
            raise ValueError(message)
        raise SpawnError(part, name, OSError(number, message))

    def _be_child(self, program: Program, fds: list[int], cgroup: Cgroup | None, report: int) -> None:
        """Never returns."""
        part = name = ""
        try:
            for number in _DEFAULT_SIGNALS:
                _signal.signal(number, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
            os.setsid()
            if cgroup is not None:
                _enter(cgroup)
            for target, fd in enumerate(fds):
                os.dup2(fd, target)
            if self.size is not None:
                fcntl.ioctl(0, _TIOCSCTTY, 0)
            # Before the rights go that raising a limit takes.
            part = "limits"
            for limit, number, pair in self.limits:
                name = limit
                _limit(number, pair)
            part, name = "user", self.user
            os.setgroups(self.groups)
            os.setresgid(*self.groups[:1] * 3)
            os.setresuid(self.uid, self.uid, self.uid)
            part, name = WORKING_DIRECTORY, f"working directory {program.directory}"
            os.chdir(program.directory)
            part, name = PROGRAM, program.argv[0]
            program.start(lambda path: os.execve(path, program.argv, program.environment))  # noqa: S606 - no shell needed
        except OSError as error:
            failure: list[Any] = [part, name[:_NAME], error.errno or errno.EIO, error.strerror or str(error)]
            os.write(report, values.pack(failure))
        except BaseException as error:  # noqa: BLE001 - the parent reports it
            os.write(report, values.pack([part, "", 0, str(error)[:_NAME]]))
        os._exit(127)


def _size_of(size: Any) -> bytes:
    """As the kernel takes it. Raises ValueError."""
    rows, columns = (size.get("rows"), size.get("columns")) if isinstance(size, dict) else (None, None)
    if not (isinstance(rows, int) and isinstance(columns, int) and 0 < rows < 65536 and 0 < columns < 65536):
        raise ValueError("terminal: rows and columns must be from 1 to 65535")
    return _SIZE.pack(rows, columns, 0, 0)


def resize(terminal: int, size: Any) -> None:
    """The kernel sends SIGWINCH to the foreground process group. Raises OSError, or ValueError for an invalid size."""
    fcntl.ioctl(terminal, _TIOCSWINSZ, _size_of(size))


def _limits_of(limits: Any) -> list[tuple[str, int, tuple[int, int]]]:
    """Name, number and soft and hard value. Raises ValueError."""
    if not isinstance(limits, list):
        raise ValueError("limits: must be a list")  # noqa: TRY004 - one kind of error
    found = []
    for limit in limits:
        name, soft, hard = (limit.get(key) if isinstance(limit, dict) else 0 for key in ("name", "soft", "hard"))
        if name not in _LIMITS:
            raise ValueError(f"limits: {name!r} is none of {', '.join(_LIMITS)}")
        if not all(value is None or (isinstance(value, int) and value >= 0) for value in (soft, hard)):
            raise ValueError(f"limits: {name}: must be numbers of at least 0, or None for no limit")
        pair = (_value(soft), _value(hard))
        found.append((str(name), getattr(resource, f"RLIMIT_{name.upper()}"), pair))
    return found


def _value(limit: int | None) -> int:
    return resource.RLIM_INFINITY if limit is None else limit


def _enter(cgroup: Cgroup) -> None:
    try:
        cgroup.enter()
    except OSError:
        return  # Root in the guest has unmounted it; the process has its process group.


def _limit(number: int, pair: tuple[int, int]) -> None:
    try:
        resource.setrlimit(number, pair)
    except (ValueError, OverflowError) as error:
        raise OSError(errno.EINVAL, str(error)) from error
