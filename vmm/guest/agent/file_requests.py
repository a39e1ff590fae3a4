"""Requests for files: workers do them, and their data passes through the agent."""

from __future__ import annotations

import os

from . import values, wire
from .commands import window_of
from .loop import READ
from .pipes import Inlet, Outlet
from .worker import worker_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .service import Service
    from .worker import Worker

_WITH_OUTPUT = frozenset({"list", "read", "write", "watch", "read_tree", "write_tree"})
_WITH_INPUT = frozenset({"write", "write_tree"})


def start(service: Service, stream: int, request: dict[str, Any]) -> FileRequest:
    """Raises OSError, or ValueError for an invalid request."""
    return FileRequest(service, stream, request)


class FileRequest:
    """A request that a worker does; a stream of the session.

    The worker reports on one pipe: an answer, an error, or both, and at the end whether it can be used again. A request
    may have output and input, on two more.
    """

    def __init__(self, service: Service, stream: int, request: dict[str, Any]) -> None:
        """Raises OSError, or ValueError for an invalid request."""
        op, user = request["op"], request.setdefault("user", "")
        if not isinstance(user, str):
            raise ValueError("user: must be a str")  # noqa: TRY004 - callers expect one kind of error
        self._service = service
        self._stream = stream
        self._window = window_of(request)
        self._inlet: Inlet | None = None
        self._outlet: Outlet | None = None
        self._buffer = bytearray()
        self._answered = False
        self._done = False
        self._failure: dict[str, str] | None = None
        loop, channel = service.loop, service.channel
        self._worker: Worker | None = worker_for(op, user, loop)
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for has_pipe, to_worker in ((True, False), (op in _WITH_OUTPUT, False), (op in _WITH_INPUT, True)):
                if has_pipe:
                    read, write = os.pipe2(os.O_CLOEXEC)
                    ours.append(write if to_worker else read)
                    theirs.append(read if to_worker else write)
            self._worker.give(request, theirs)
        except BaseException:
            self._worker.end()
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self._report = ours[0]  # -1 once closed
        os.set_blocking(self._report, False)
        loop.watch(self._report, READ, lambda _events: self._on_report())
        if op in _WITH_OUTPUT:
            self._outlet = Outlet(ours[1], stream, self._window, loop, channel, on_end=self._finish_if_over)
        if op in _WITH_INPUT:
            self._inlet = Inlet(ours[2], stream, self._window, loop, channel)

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
        """Ends the work. Nothing more is sent for this stream."""
        if self._worker is not None:
            self._worker.end()
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
            elif "done" in message:
                self._done = True
                if message["done"] and self._worker is not None:
                    self._worker.release()
                    self._worker = None
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
        if not self._done and self._failure is None:
            self._failure = {"code": "EIO", "message": "the process that did this in the guest was killed", "part": ""}
        if self._answered and self._outlet is not None and not self._outlet.closed:
            return
        if self._failure is not None:
            channel.send_error(self._stream, **self._failure)
        elif self._outlet is not None:
            channel.send(wire.EOF + wire.STDOUT, self._stream)
        self._close()

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
