"""What a worker does: it becomes its user, does one request, and ends."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import gc
import os

from . import accounts, values, wire

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

_INPUT, _OUTPUT, _REPORT = 0, 1, 3
_CAUGHT = (_signal.SIGCHLD, _signal.SIGINT, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2)
_BUFFER = 32 * 1024


class Host:
    """The other end, seen from a worker. Everything waits while the host does not take it."""

    input = _INPUT
    output = _OUTPUT

    def __init__(self) -> None:
        self._records = bytearray()

    def answer(self, fields: dict[str, Any]) -> None:
        """The answer to the request. Once; before it, nothing is sent."""
        _report(fields)

    def receive(self, size: int = 64 * 1024) -> bytes:
        """Some input, none at its end."""
        return os.read(_INPUT, size)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        _write(_OUTPUT, data)

    def send_record(self, record: dict[str, Any], *, now: bool = False) -> None:
        """Several are sent in one piece, when they are enough, or `now`."""
        packed = values.pack(record)
        self._records += wire.COUNT.pack(len(packed)) + packed
        if now or len(self._records) >= _BUFFER:
            self.flush()

    def flush(self) -> None:
        self.send(self._records)
        self._records = bytearray()


def load(op: str) -> Job:
    """The function for an operation. What it imports, all later workers have."""
    module, _, name = _JOBS[op].partition(".")
    return getattr(__import__(module, globals(), None, (name,), 1), name)  # type: ignore[no-any-return]


def run(job: Job, request: dict[str, Any], report: int, output: int = -1, input_: int = -1) -> NoReturn:
    """Called in the forked process, with its ends of the pipes. It never returns."""
    status = 1
    try:
        # What the agent has is left alone: it is copied when it is touched.
        gc.freeze()
        _take_descriptors(report, output, input_)
        _signal.set_wakeup_fd(-1)
        for number in _CAUGHT:
            _signal.signal(number, _signal.SIG_DFL)
        os.umask(0o022)
        _do(job, request)
        status = 0
    except BrokenPipeError:
        status = 0  # the agent does not listen any more
    finally:
        os._exit(status)


def _take_descriptors(report: int, output: int, input_: int) -> None:
    # The agent has had an epoll since its start, so the pipes have higher numbers than these.
    os.dup2(report, _REPORT, inheritable=False)
    os.dup2(report if output < 0 else output, _OUTPUT, inheritable=False)
    os.dup2(report if input_ < 0 else input_, _INPUT, inheritable=False)
    os.closerange(_REPORT + 1, 2**31 - 1)


def _do(job: Job, request: dict[str, Any]) -> None:
    try:
        become(request.get("user", ""))
        job(request, Host())
    except BrokenPipeError:
        raise
    except OSError as error:
        code = errno.errorcode.get(error.errno, "EIO") if error.errno else "EIO"
        _fail(code, _message_of(error), getattr(error, "part", ""))
    except ValueError as error:
        _fail("BAD_REQUEST", str(error))
    except MemoryError:
        _fail("ENOMEM", os.strerror(errno.ENOMEM))
    except Exception as error:  # noqa: BLE001 - a fault in here is reported, and ends only this request
        _fail("EIO", f"{type(error).__name__}: {error}")


def become(user: object) -> None:
    """Takes the rights of this user, for good. Raises UnknownAccountError, or another OSError."""
    if not isinstance(user, str):
        raise ValueError("user: must be a str")  # noqa: TRY004 - callers expect one kind of error
    account = accounts.find_user(user)
    if account.uid == os.geteuid() and (user == "" or account.uid != 0):
        return
    os.setgroups(accounts.groups_of(account))
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)


def _message_of(error: OSError) -> str:
    what = error.strerror or str(error)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, bytes | str)]
    return f"{' -> '.join(names)}: {what}" if names else what


def _fail(code: str, message: str, part: str = "") -> None:
    _report({"code": code, "message": message[:4096], "part": part})


def _report(message: dict[str, Any]) -> None:
    packed = values.pack(message)
    _write(_REPORT, wire.COUNT.pack(len(packed)) + packed)


def _write(fd: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
