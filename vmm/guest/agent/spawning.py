"""Starts a program in a session of its own: the fast way, for root, or through `forking` for what takes a fork."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

from .programs import PROGRAM, WORKING_DIRECTORY, Program, SpawnError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .cgroup import Cgroup
    from .forking import Terms

STREAMS = 3
"""stdin, stdout and stderr."""


class Spawned:
    """A process, and the agent's ends of its streams."""

    __slots__ = ("cgroup", "directory", "pid", "stderr", "stdin", "stdout", "terminal", "user")

    def __init__(
        self, pid: int, ends: list[int], directory: str, *, user: str, terminal: bool, cgroup: Cgroup | None
    ) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = ends
        """-1 for the stderr of a process with a terminal."""
        self.directory = directory
        self.user = user
        """Empty for root."""
        self.terminal = terminal
        self.cgroup = cgroup
        """None if it could not be entered."""


def spawn(request: dict[str, Any], environment: dict[str, str], cgroup: Cgroup | None) -> Spawned:
    """Starts what the request describes, inside the cgroup, which is closed on failure.

    `environment` is the base to which the request's variables are added. Raises SpawnError or another OSError, or
    ValueError for an invalid request.
    """
    try:
        return _spawn(request, environment, cgroup)
    except BaseException:
        if cgroup is not None:
            cgroup.close()
        raise


def _spawn(request: dict[str, Any], environment: dict[str, str], cgroup: Cgroup | None) -> Spawned:
    get = request.get
    argv, additions, directory = get("argv"), get("environment", {}), get("directory")
    if not (isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv)):
        raise ValueError("argv: must be a list of at least one string")
    if not (isinstance(additions, dict) and (directory is None or isinstance(directory, str))):
        raise ValueError("environment must be a dict and directory a str")
    if get("user") or get("groups") or get("limits") or get("terminal") is not None:
        from .forking import Terms  # noqa: PLC0415 - loaded at first use

        terms = Terms(request)
        program = Program(argv, environment | terms.environment | additions, directory or terms.home)
        return _spawn_on(terms, program, cgroup)
    return _spawn_inside(cgroup, Program(argv, environment | additions, directory or "/"))


def _spawn_inside(cgroup: Cgroup | None, program: Program) -> Spawned:
    ours, theirs = _pipes()
    try:
        entered = _entered(cgroup)
        try:
            pid = _spawn_program(program, theirs)
        finally:
            inside = entered is not None and _left(entered)
        cgroup = entered if inside else None
        return Spawned(pid, _unblocked(ours), program.directory, user="", terminal=False, cgroup=cgroup)
    except BaseException:
        _close(ours)
        raise
    finally:
        _close(theirs)


def _spawn_on(terms: Terms, program: Program, cgroup: Cgroup | None) -> Spawned:
    terminal = terms.size is not None
    ours, theirs = terms.open_terminal() if terminal else _pipes()
    try:
        pid = terms.fork(program, theirs, cgroup)
        return Spawned(pid, _unblocked(ours), program.directory, user=terms.user, terminal=terminal, cgroup=cgroup)
    except BaseException:
        _close(ours)
        raise
    finally:
        _close(theirs)


def _pipes() -> tuple[list[int], list[int]]:
    """Our ends and theirs, of stdin, stdout and stderr."""
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for number in range(STREAMS):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            ours.append(writing if number == 0 else reading)
            theirs.append(reading if number == 0 else writing)
    except OSError:
        _close(ours + theirs)
        raise
    return ours, theirs


def _unblocked(fds: list[int]) -> list[int]:
    for fd in fds:
        if fd >= 0:
            os.set_blocking(fd, False)
    return fds


def _close(fds: list[int]) -> None:
    for fd in set(fds):
        if fd >= 0:
            os.close(fd)


def _entered(cgroup: Cgroup | None) -> Cgroup | None:
    """The agent itself goes in: posix_spawn cannot, and a child starts in its parent's cgroup. Measured as cheap as
    spawning outside, if the mount has `favordynmods`. None if it cannot: the process then has only its process group.
    """
    if cgroup is None:
        return None
    try:
        cgroup.enter()
    except OSError:
        cgroup.close()
        return None
    return cgroup


def _left(cgroup: Cgroup) -> bool:
    """False if the agent is still inside, where `kill` would kill the agent too."""
    try:
        cgroup.leave()
    except OSError:
        cgroup.close()
        return False
    return True


def _spawn_program(program: Program, fds: list[int]) -> int:
    """Raises SpawnError."""
    try:
        # posix_spawn cannot change the directory; the agent is single-threaded, so it changes its own for the moment.
        os.chdir(program.directory)
    except OSError as error:
        raise SpawnError(WORKING_DIRECTORY, f"working directory {program.directory}", error) from error
    try:
        return program.start(
            lambda path: os.posix_spawn(
                path,
                program.argv,
                program.environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)],
                setsid=True,
                setsigmask=[],
                # Python ignores these; programs expect the default action.
                setsigdef=[_signal.SIGPIPE, _signal.SIGXFSZ],
            )
        )
    except OSError as error:
        raise SpawnError(PROGRAM, program.argv[0], error) from error
    finally:
        os.chdir("/")
