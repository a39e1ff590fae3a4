"""Requests that may wait, or need a user's rights: each is done by a process of its own.

The process is forked from the agent and executes nothing, so that it costs little. It answers on one pipe, and has its
input and output, if its request has any, on two more.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import os

from . import values, wire
from .loop import READ
from .pipes import Inlet, Outlet, window_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .loop import Timer
    from .service import Service

_WITH_OUTPUT = frozenset({"list", "read", "write", "watch", "read_tree", "write_tree"})
_WITH_INPUT = frozenset({"write", "write_tree"})

_GRACE_NS = 2_000_000_000
"""For removing what a cancelled request has left half made."""

MAX_WORKERS = 128
"""Each takes a megabyte or two of the guest's memory."""


def start(service: Service, stream: int, request: dict[str, Any]) -> Worker:
    """Raises OSError, or ValueError for an invalid request."""
    return Worker(service, stream, request)


class Worker:
    """A request that a process works on; a stream of the session."""

    count = 0

    def __init__(self, service: Service, stream: int, request: dict[str, Any]) -> None:
        """Raises OSError, or ValueError for an invalid request."""
        op = request["op"]
        self._service = service
        self._stream = stream
        self._window = window_of(request)
        self._inlet: Inlet | None = None
        self._outlet: Outlet | None = None
        self._buffer = bytearray()
        self._answered = False
        self._failure: dict[str, str] | None = None
        self._timer: Timer | None = None
        if Worker.count >= MAX_WORKERS:
            raise OSError(errno.EBUSY, f"{MAX_WORKERS} requests for files are under way, the maximum; end some first")
        from . import working  # noqa: PLC0415 - before the fork, so that the next worker has it too

        job = working.load(op)
        fds: list[int] = []
        try:
            fds += os.pipe2(os.O_CLOEXEC)
            if op in _WITH_OUTPUT:
                fds += os.pipe2(os.O_CLOEXEC)
            if op in _WITH_INPUT:
                fds += reversed(os.pipe2(os.O_CLOEXEC))
            pid = os.fork()
            if pid == 0:
                working.run(job, request, *fds[1::2])
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        Worker.count += 1
        for fd in fds[1::2]:
            os.close(fd)
        self._pid = pid  # 0 once it is reaped
        self._report, *others = fds[::2]
        loop, channel = service.loop, service.channel
        os.set_blocking(self._report, False)
        loop.watch(self._report, READ, lambda _events: self._on_report())
        loop.watch_child(pid, self._on_exit)
        if op in _WITH_OUTPUT:
            self._outlet = Outlet(others[0], stream, self._window, loop, channel, on_end=self._finish_if_over)
        if op in _WITH_INPUT:
            self._inlet = Inlet(others[1], stream, self._window, loop, channel)

    # From the host

    def receive(self, data: bytes) -> None:
        self._input().receive(data)

    def receive_eof(self) -> None:
        self._input().receive_eof()

    def add_credit(self, _number: int, count: int) -> None:
        if self._outlet is None:
            raise ValueError("this request has no output")
        self._outlet.add_credit(count)

    def signal(self, _number: int) -> None:
        raise ValueError("this request takes no signals")

    def cancel(self) -> None:
        """Ends the work, which may take a moment to remove what is half made. Nothing more is sent for this stream."""
        self._kill(_signal.SIGTERM)
        # The user may have stopped its worker.
        self._kill(_signal.SIGCONT)
        if self._pid and self._timer is None:
            self._timer = self._service.loop.call_later(_GRACE_NS, lambda: self._kill(_signal.SIGKILL))
        self._close()

    def _input(self) -> Inlet:
        if self._inlet is None:
            raise ValueError("this request takes no input")
        return self._inlet

    # From the worker

    def _on_report(self) -> None:
        data = os.read(self._report, 64 * 1024)
        self._buffer += data
        while (message := _message_in(self._buffer)) is not None:
            if "code" in message:
                self._failure = message
            else:
                self._answer(message)
        if not data:
            self._service.loop.unwatch(self._report)
            os.close(self._report)
            self._report = -1
            self._finish_if_over()

    def _answer(self, fields: dict[str, Any]) -> None:
        self._answered = True
        if self._outlet is None:
            self._service.channel.send_value(wire.REPLY, self._stream, fields)
        else:
            self._service.channel.send_value(wire.REPLY, self._stream, {"window": self._window, **fields})
            self._outlet.start()

    def _finish_if_over(self) -> None:
        if self._report >= 0:
            return
        channel = self._service.channel
        if not self._answered and self._failure is None:
            self._failure = {"code": "EIO", "message": "the process that did this in the guest was killed", "part": ""}
        if self._answered and self._outlet is not None and not self._outlet.closed:
            return
        if self._failure is not None:
            channel.send_error(self._stream, **self._failure)
        elif self._outlet is not None:
            channel.send(wire.EOF + wire.STDOUT, self._stream)
        self._close()

    # The end

    def _on_exit(self, _code: int) -> None:
        Worker.count -= 1
        self._pid = 0
        if self._timer is not None:
            self._timer.cancel()

    def _kill(self, number: int) -> None:
        if self._pid:
            os.kill(self._pid, number)

    def _close(self) -> None:
        if self._report >= 0:
            self._service.loop.unwatch(self._report)
            os.close(self._report)
            self._report = -1
        for end in (self._inlet, self._outlet):
            if end is not None:
                end.close()
        self._service.forget(self._stream)


def _message_in(buffer: bytearray) -> dict[str, Any] | None:
    """Takes the first whole message out of the buffer."""
    size = wire.COUNT.size
    if len(buffer) < size:
        return None
    end = size + wire.COUNT.unpack_from(buffer)[0]
    if len(buffer) < end:
        return None
    message: dict[str, Any] = values.unpack(bytes(buffer[size:end]))
    del buffer[:end]
    return message
