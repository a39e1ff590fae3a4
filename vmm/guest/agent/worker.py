"""Processes that do what may wait, or needs a user's rights: reading a disk, above all.

A worker is forked from the agent and executes nothing. Under emulation that still costs as much as starting a small
program, so a worker that has done its work is kept for a while, for the next request of the same user.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import errno
import os
import struct

from . import accounts, values, working

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .loop import Loop, Timer

MAX_WORKERS = 128
"""Each takes a megabyte or two of the guest's memory."""

_MAX_IDLE = 4
_IDLE_NS = 10_000_000_000

_GRACE_NS = 2_000_000_000
"""For removing what a cancelled request has left half made."""

_workers: set[Worker] = set()
_idle: list[Worker] = []


class Worker:
    """One process."""

    def __init__(self, op: str, loop: Loop, key: object) -> None:
        """Raises OSError."""
        if len(_workers) >= MAX_WORKERS:
            raise OSError(errno.EBUSY, f"{MAX_WORKERS} requests for files are under way, the maximum; end some first")
        if op not in working.ONCE:
            # What the agent has loaded, each new worker has.
            working.job(op)
        self.key = key
        self._loop = loop
        self._timer: Timer | None = None
        self._socket, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            self._pid = os.fork()
            if self._pid == 0:
                working.serve(theirs)
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        _workers.add(self)
        loop.watch_child(self._pid, self._on_exit)

    def give(self, request: dict[str, Any], fds: list[int]) -> None:
        """Gives it the one request that it works on, and descriptors: to report, for output, for input. They remain
        the caller's. Raises OSError, then the worker is of no use.
        """
        rights = struct.pack(f"{len(fds)}i", *fds)
        self._socket.sendmsg([values.pack(request)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])

    def release(self) -> None:
        """It has done its request."""
        if not self._pid:
            return
        _idle.append(self)
        self._timer = self._loop.call_later(_IDLE_NS, self._dismiss)
        if len(_idle) > _MAX_IDLE:
            _idle[0]._dismiss()  # noqa: SLF001 - one of our own

    def take(self) -> None:
        """The opposite of `release`."""
        _idle.remove(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Ends the work that it does, which may take a moment to remove what is half made."""
        self._kill(_signal.SIGTERM)
        # The user may have stopped its worker.
        self._kill(_signal.SIGCONT)
        if self._pid:
            self._timer = self._loop.call_later(_GRACE_NS, lambda: self._kill(_signal.SIGKILL))

    def _dismiss(self) -> None:
        self.take()
        self._socket.close()

    def _kill(self, number: int) -> None:
        # Once it is reaped, its number may be another process's.
        if self._pid:
            os.kill(self._pid, number)

    def _on_exit(self, _code: int) -> None:
        self._pid = 0
        _workers.discard(self)
        if self in _idle:
            self.take()
        elif self._timer is not None:
            self._timer.cancel()
        self._socket.close()


def worker_for(op: str, user: str, loop: Loop) -> Worker:
    """An idle worker of this user, or a new one that is ready for this operation. Raises OSError."""
    # Another user than root may not be able to load what another operation needs. Whoever is given another group, or
    # another name, gets another worker.
    key = (user, op if user else "", _stamp(accounts.PASSWD), _stamp(accounts.GROUP))
    for worker in _idle:
        if worker.key == key and op not in working.ONCE:
            worker.take()
            return worker
    return Worker(op, loop, key)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
