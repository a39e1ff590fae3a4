"""Commands that the agent runs for the host."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import fcntl
import os
import time

from . import wire
from .cgroup import Cgroup
from .loop import WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .channel import Channel
    from .loop import Loop, Timer
    from .oom import Kills

DEFAULT_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}

GRACE_NS = 200_000_000
"""A daemon left behind by a command may hold the command's output open for ever. The command's own output is always
delivered in full; output that others write to the same pipes is delivered for this long after the command's end."""

_READ_SIZE = 32 * 1024 - wire.HEADER.size
"""With its header, one write to a virtio port."""

_LEAST_WINDOW = 1024

_FIONREAD = 0x541B


PROGRAM = "program"
WORKING_DIRECTORY = "working_directory"


class SpawnError(OSError):
    """A command cannot be started because of its program or working directory, which `part` names."""

    def __init__(self, part: str, name: str, cause: OSError) -> None:
        super().__init__(cause.errno, f"{name}: {cause.strerror}")
        self.part = part


def spawn(argv: list[str], environment: dict[str, str], directory: str | None, fds: tuple[int, int, int]) -> int:
    """Starts a program in its own session with the three descriptors as stdin, stdout and stderr. Returns its pid.

    Raises SpawnError.
    """
    try:
        # posix_spawn cannot change the directory; the agent is single-threaded, so it changes its own for the moment.
        os.chdir(directory if directory is not None else "/")
    except OSError as error:
        raise SpawnError(WORKING_DIRECTORY, f"working directory {directory}", error) from error
    try:
        return _spawn_in_path(argv, environment, fds)
    finally:
        os.chdir("/")


def _spawn_in_path(argv: list[str], environment: dict[str, str], fds: tuple[int, int, int]) -> int:
    name = argv[0]
    candidates = [name]
    if "/" not in name:
        path = environment.get("PATH", DEFAULT_ENVIRONMENT["PATH"])
        candidates = [f"{directory or '.'}/{name}" for directory in path.split(":")]
    reason: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for candidate in candidates:
        try:
            return os.posix_spawn(
                candidate,
                argv,
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)],
                setsid=True,
                setsigmask=[],
                # Python ignores these; programs expect the default action.
                setsigdef=[_signal.SIGPIPE, _signal.SIGXFSZ],
            )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            reason = error  # unless a later candidate may be executed, as in execvp
        except OSError as error:
            reason = error
            break
    raise SpawnError(PROGRAM, name, reason)


def _enter_cgroup(root: str) -> Cgroup | None:
    """None if no cgroup is available, as in a user's own guest: commands then have only their process groups."""
    try:
        cgroup = Cgroup(root)
    except OSError:
        return None
    try:
        cgroup.enter()
    except OSError:
        cgroup.close()
        return None
    return cgroup


def _leave_cgroup(cgroup: Cgroup) -> Cgroup | None:
    """None if the agent is still inside, where `kill` would kill the agent too."""
    try:
        cgroup.leave()
    except OSError:
        cgroup.close()
        return None
    return cgroup


def _window_of(request: dict[str, Any]) -> int:
    window = request.get("window", wire.WINDOW)
    if not (isinstance(window, int) and _LEAST_WINDOW <= window <= wire.WINDOW):
        raise ValueError(f"window: must be an int from {_LEAST_WINDOW} to {wire.WINDOW}")
    return window


class _Source:
    """An output pipe of a command, and the host's credit for it."""

    __slots__ = ("credit", "fd", "owed")

    def __init__(self, fd: int, credit: int) -> None:
        self.fd = fd  # -1 once closed
        self.credit = credit
        self.owed = 0  # bytes in the pipe when the command ended


class Command:
    """One running command; a stream of the session."""

    def __init__(
        self,
        stream: int,
        request: dict[str, Any],
        loop: Loop,
        channel: Channel,
        on_end: Callable[[int], None],
        *,
        environment: dict[str, str],
        kills: Kills | None = None,
        cgroups: str | None = None,
    ) -> None:
        """`environment` is the base to which the request's variables are added; `kills` reports the kernel's OOM kills;
        `cgroups` is the mount point of the cgroup tree, if any.

        Raises SpawnError or another OSError, or ValueError for an invalid request.
        """
        self._stream = stream
        self._loop = loop
        self._channel = channel
        self._on_end = on_end
        self._kills = kills
        self._exit_code: int | None = None
        self._exit_ns = 0
        self._began_ns = time.monotonic_ns()
        self._timed_out = False
        self._cgroup: Cgroup | None = None
        self._timers: list[Timer] = []
        self._stdin_buffer = bytearray()
        self._stdin_eof = False
        self._stdin_consumed = 0
        argv = request.get("argv")
        additions = request.get("environment", {})
        limit_ns = request.get("time_limit_ns")
        if not (isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv)):
            raise ValueError("argv: must be a list of at least one string")
        if not (isinstance(additions, dict) and (limit_ns is None or isinstance(limit_ns, int))):
            raise ValueError("environment must be a dict and time_limit_ns an int")
        self._window = window = _window_of(request)
        environment = environment | additions
        read_in, self._stdin = os.pipe2(os.O_CLOEXEC)
        out, write_out = os.pipe2(os.O_CLOEXEC)
        err, write_err = os.pipe2(os.O_CLOEXEC)
        self._sources = {wire.STDOUT: _Source(out, window), wire.STDERR: _Source(err, window)}
        try:
            # Only where killing needs it: a cgroup costs two of the kernel's grace periods.
            self._cgroup = None if limit_ns is None or cgroups is None else _enter_cgroup(cgroups)
            try:
                self._pid = spawn(argv, environment, request.get("directory"), (read_in, write_out, write_err))
            finally:
                if self._cgroup is not None:
                    self._cgroup = _leave_cgroup(self._cgroup)
        except BaseException:
            self._close_all()
            raise
        finally:
            for fd in (read_in, write_out, write_err):
                os.close(fd)
        for fd in (self._stdin, out, err):
            os.set_blocking(fd, False)
        loop.watch_child(self._pid, self._on_exit)
        for number in self._sources:
            self._watch(number)
        if limit_ns is not None:
            self._timers.append(loop.call_later(limit_ns, self._on_time_limit))
        channel.send_value(wire.REPLY, stream, {"pid": self._pid, "window": window})

    # From the host

    def receive(self, data: bytes) -> None:
        """Bytes for stdin."""
        if len(self._stdin_buffer) + len(data) > wire.WINDOW:
            raise ValueError("stdin: more bytes than the credit allows")
        self._stdin_buffer += data
        self._write_stdin()

    def receive_eof(self) -> None:
        self._stdin_eof = True
        self._write_stdin()

    def add_credit(self, number: int, count: int) -> None:
        source = self._sources.get(number)
        if source is None:
            raise ValueError(f"channel {number} takes no credit")
        source.credit += count
        self._watch(number)

    def signal(self, number: int) -> None:
        """Signals the process group while the command runs. The pid of a reaped process may belong to another one."""
        if self._exit_code is None:
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:
                return  # A zombie that is about to be reaped.

    def cancel(self) -> None:
        """Kills the command and forgets it: nothing more is sent for this stream."""
        self.signal(_signal.SIGKILL)
        self._loop.unwatch_child(self._pid)
        self._close_all()
        self._on_end(self._stream)

    # Standard input

    def _write_stdin(self) -> None:
        if self._stdin >= 0 and self._stdin_buffer:
            try:
                with memoryview(self._stdin_buffer) as view:
                    written = os.write(self._stdin, view)
                del self._stdin_buffer[:written]
                self._stdin_consumed += written
            except BlockingIOError:
                pass
            except BrokenPipeError:
                self._close_stdin()
        if self._stdin < 0:
            # The reader is gone. Input is discarded but counted, so that the host does not wait for credit for ever.
            self._stdin_consumed += len(self._stdin_buffer)
            self._stdin_buffer.clear()
        elif self._stdin_buffer:
            if not self._loop.watching(self._stdin):
                self._loop.watch(self._stdin, WRITE, lambda _events: self._write_stdin())
        elif self._stdin_eof:
            self._close_stdin()
        else:
            self._loop.unwatch(self._stdin)
        if self._stdin_consumed >= self._window // 4:
            self._channel.send_credit(wire.STDIN, self._stream, self._stdin_consumed)
            self._stdin_consumed = 0

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            self._loop.unwatch(self._stdin)
            os.close(self._stdin)
            self._stdin = -1

    # Standard output and error

    def _watch(self, number: int) -> None:
        source = self._sources[number]
        if source.fd >= 0 and source.credit > 0:
            self._loop.watch_source(source.fd, lambda _events: self._on_readable(number))

    def _on_readable(self, number: int) -> None:
        source = self._sources[number]
        data = os.read(source.fd, min(_READ_SIZE, source.credit))
        if not data:
            self._close_source(source)
            self._finish_if_over()
            return
        source.credit -= len(data)
        source.owed -= len(data)
        self._channel.send_data(number, self._stream, data)
        if source.credit == 0:
            self._loop.unwatch_source(source.fd)
        if self._exit_code is not None:
            self._finish_if_over()

    def _close_source(self, source: _Source) -> None:
        if source.fd >= 0:
            self._loop.unwatch_source(source.fd)
            os.close(source.fd)
            source.fd = -1

    # The end

    def _on_time_limit(self) -> None:
        if self._exit_code is None:
            self._timed_out = True
            self.signal(_signal.SIGKILL)
            if self._cgroup is not None:
                try:
                    self._cgroup.kill()
                except OSError:
                    return  # root in the guest has unmounted the cgroup; the process group was killed

    def _on_exit(self, exit_code: int) -> None:
        self._exit_code = exit_code
        self._exit_ns = time.monotonic_ns()
        for source in self._sources.values():
            if source.fd >= 0:
                owed = fcntl.ioctl(source.fd, _FIONREAD, b"\0\0\0\0")
                source.owed = wire.COUNT.unpack(owed)[0]
        self._timers.append(self._loop.call_later(GRACE_NS, self._finish_if_over))
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        if self._exit_code is None:
            return
        if time.monotonic_ns() - self._exit_ns >= GRACE_NS:
            for source in self._sources.values():
                if source.owed <= 0:
                    self._close_source(source)
        if any(source.fd >= 0 for source in self._sources.values()):
            return
        self._close_all()
        how: dict[str, int] = {"status": self._exit_code} if self._exit_code >= 0 else {"signal": -self._exit_code}
        timed_out = self._timed_out and self._exit_code == -_signal.SIGKILL
        if self._kills is not None and not timed_out:
            how["out_of_memory"] = self._kills.ended(self._pid, self._exit_code, began_ns=self._began_ns)
        self._channel.send_value(wire.EXITED, self._stream, {**how, "timed_out": timed_out})
        self._on_end(self._stream)

    def _close_all(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._cgroup is not None:
            self._cgroup.close()
            self._cgroup = None
        self._close_stdin()
        for source in self._sources.values():
            self._close_source(source)
