"""What a worker does: it becomes its user, and does one request after another."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import errno
import gc
import os
import struct

from . import accounts, values, wire
from .copying import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Job = Callable[[dict[str, Any], "Host"], None]

_JOBS = {
    "stat": "file_edits.stat_file",
    "edit": "file_edits.edit",
    "list": "file_lists.list_files",
    "read": "file_contents.read",
    "write": "file_contents.write",
    "watch": "file_watches.watch",
    "read_tree": "tree_reading.read_tree",
    "write_tree": "tree_writing.write_tree",
}

ONCE = frozenset({"watch"})
"""Loads `ctypes`, which nothing else needs, and mostly ends by being killed. So it has a worker of its own, which alone
loads it.
"""

_INPUT, _OUTPUT, _REQUESTS, _REPORT = 0, 1, 3, 4
_MAX_FD = 2**31 - 1
_MAX_REQUEST = 1024 * 1024
_CAUGHT = (_signal.SIGCHLD, _signal.SIGINT, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2)
_BUFFER = 32 * 1024


class Host:
    """The other end, seen from a worker. Everything waits while the host does not take it."""

    input = _INPUT
    output = _OUTPUT

    def __init__(self, *, has_output: bool) -> None:
        self._has_output = has_output
        self._records = bytearray()
        self.reports = bytearray()
        """Not written yet. Without output all are written at once, so that whoever has an answer finds this worker
        ready for the next request."""

    def answer(self, fields: dict[str, Any]) -> None:
        """The answer to the request. Once; before it, nothing is sent."""
        self.report(fields)
        if self._has_output:
            self.write_reports()

    def report(self, message: dict[str, Any]) -> None:
        packed = values.pack(message)
        self.reports += wire.COUNT.pack(len(packed)) + packed

    def write_reports(self) -> None:
        write_all(_REPORT, self.reports)
        self.reports.clear()

    def fail(self, code: str, message: str, part: str = "") -> None:
        self.report({"code": code, "message": message[:4096], "part": part})

    def receive(self, size: int = 64 * 1024) -> bytes:
        """Some input, none at its end."""
        return os.read(_INPUT, size)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        write_all(_OUTPUT, data)

    def send_record(self, record: dict[str, Any], *, now: bool = False) -> None:
        """Several are sent in one piece, when they are enough, or `now`."""
        packed = values.pack(record)
        self._records += wire.COUNT.pack(len(packed)) + packed
        if now or len(self._records) >= _BUFFER:
            self.flush()

    def flush(self) -> None:
        self.send(self._records)
        self._records = bytearray()


def serve(requests: _socket.socket) -> NoReturn:
    """Called in the forked process, with its end of the socket on which requests come. It never returns."""
    status = 1
    try:
        # What the agent has is left alone: it is copied when it is touched.
        gc.freeze()
        # The agent has had epolls since its start, so the socket has a higher number than these.
        for fd in (_INPUT, _OUTPUT, _REQUESTS, _REPORT):
            os.dup2(requests.fileno(), fd, inheritable=False)
        os.closerange(_REPORT + 1, _MAX_FD)
        _signal.set_wakeup_fd(-1)
        for number in _CAUGHT:
            _signal.signal(number, _signal.SIG_DFL)
        os.umask(0o022)
        _work(_socket.socket(fileno=_REQUESTS))
        status = 0
    except BrokenPipeError:
        status = 0  # the agent does not listen any more
    finally:
        os._exit(status)


def _work(requests: _socket.socket) -> None:
    new = True
    while received := _next(requests):
        request, has_output = received
        host = Host(has_output=has_output)
        done = _do(request, host, new=new) and request["op"] not in ONCE
        new = False
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        for fd in (_INPUT, _OUTPUT):
            os.dup2(_REQUESTS, fd, inheritable=False)
        # Whatever the request has left open.
        os.closerange(_REPORT + 1, _MAX_FD)
        host.report({"done": done})
        host.write_reports()
        if not done:
            return
        os.dup2(_REQUESTS, _REPORT, inheritable=False)


def _next(requests: _socket.socket) -> tuple[dict[str, Any], bool] | None:
    """The next request, with its descriptors in their places, and whether it has output; None when no more come."""
    data, rights, _, _ = requests.recvmsg(_MAX_REQUEST, _socket.CMSG_SPACE(3 * 4))
    if not data:
        return None
    fds = struct.unpack(f"{len(rights[0][2]) // 4}i", rights[0][2])
    for fd, place in zip(fds, (_REPORT, _OUTPUT, _INPUT), strict=False):
        os.dup2(fd, place, inheritable=False)
        os.close(fd)
    return values.unpack(data), len(fds) > 1


def job(op: str) -> Job:
    """The function for an operation."""
    module, _, name = _JOBS[op].partition(".")
    return getattr(__import__(module, globals(), None, (name,), 1), name)  # type: ignore[no-any-return]


def _do(request: dict[str, Any], host: Host, *, new: bool) -> bool:
    """Returns whether the worker has become its user."""
    ready = not new
    try:
        # Loaded with the agent's rights.
        work = job(request["op"])
        if new:
            become(request["user"])
            ready = True
        work(request, host)
    except BrokenPipeError:
        raise
    except OSError as error:
        code = errno.errorcode.get(error.errno, "EIO") if error.errno else "EIO"
        host.fail(code, _message_of(error), getattr(error, "part", ""))
    except ValueError as error:
        host.fail("BAD_REQUEST", str(error))
    except MemoryError:
        host.fail("ENOMEM", os.strerror(errno.ENOMEM))
    except Exception as error:  # noqa: BLE001 - a fault in here is reported, and ends only this request
        host.fail("EIO", f"{type(error).__name__}: {error}")
    return ready


def become(user: str) -> None:
    """Takes the rights of this user, for good. Raises UnknownAccountError, or another OSError."""
    account = accounts.find_user(user)
    if not user:
        return
    os.setgroups(accounts.groups_of(account))
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)


def _message_of(error: OSError) -> str:
    what = error.strerror or str(error)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, bytes | str)]
    return f"{' -> '.join(names)}: {what}" if names else what
