"""The agent's sessions: each frame from the host goes to the stream that it is for."""

from __future__ import annotations

import errno
import os

from . import values, wire
from .channel import Channel
from .commands import Command
from .files import Download, Upload
from .loop import Loop
from .preparation import LIMIT_NS, Preparation
from .running import Processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from .system import System

    class Job(Protocol):
        """What a stream is for. It tells the service with `forget` when it has ended by itself."""

        def receive(self, data: bytes) -> None: ...

        def receive_eof(self) -> None: ...

        def add_credit(self, number: int, count: int) -> None: ...

        def signal(self, number: int) -> None: ...

        def cancel(self) -> None:
            """Ends it without another word to the host. Calls `forget`."""


_MAX_STREAMS = 256

_NOT_COUNTED = ("ping", "prepare", "usage")
"""The service's own operations: whatever its caller has open, a guest is seen to be alive and its clock is set."""

_OPERATIONS = {
    "start": "processes.Start",
    "signal": "processes.signal",
    "resize": "processes.set_size",
    "forget": "processes.forget",
    "processes": "following.list_all",
    "attach": "following.attach",
    "input": "following.send_input",
    "stat": "file_requests.start",
    "edit": "file_requests.start",
    "list": "file_requests.start",
    "read": "file_requests.start",
    "write": "file_requests.start",
    "watch": "file_requests.start",
    "read_tree": "file_requests.start",
    "write_tree": "file_requests.start",
    "connect": "ports.connect",
    "accept": "ports.accept",
    "listen": "ports.listen",
    "wait_port": "ports.wait_port",
    "usage": "usage.usage",
}
"""Operations whose modules are loaded when they are first requested, so that a guest that does not use them does not
pay for them: a module and a function of it, which takes the service, the stream and the request. It returns the job, or
None if it has answered, and raises OSError, or ValueError for an invalid request."""


class Service:
    """One agent on one port. A session lasts from one hello to the next, and its streams end with it."""

    def __init__(
        self,
        port: int,
        system: System,
        *,
        preparation_limit_ns: int = LIMIT_NS,
        processes: Processes | None = None,
    ) -> None:
        """An agent that serves one port after another passes its `processes`, with their loop, to each service."""
        self.system = system
        self._preparation_limit_ns = preparation_limit_ns
        self.processes = processes or Processes(Loop())
        self.loop = self.processes.loop
        self.channel = Channel(port, self.loop, self._on_frame, self._on_hangup)
        self._streams: dict[int, Job] = {}
        self.environment = self.processes.environment
        self._in_session = False
        self.hung_up = False
        """The host closed its end, and has sent nothing since."""

    def run(self, *, until_hangup: bool = False) -> None:
        """Serves for ever, or with `until_hangup` until the host hangs up: a port may be reopened, a socket is not."""
        self.channel.start_session(wire.ANNOUNCE, wire.HELLO_BODY.pack(b"", wire.VERSION))
        while True:
            self.channel.run()
            if self.hung_up and until_hangup:
                self._end_session()
                self.channel.close()
                return
            congested = self.channel.congested
            self.loop.pause_sources(paused=congested)
            sending = [] if congested else self._send_pieces()
            self.loop.run_once(wait=not (self.channel.busy or sending))

    def _send_pieces(self) -> list[int]:
        # One piece of each per turn, so that a large file does not delay the output of commands.
        ready: list[tuple[int, Any]] = [
            (stream, job) for stream, job in self._streams.items() if getattr(job, "ready", False)
        ]
        for stream, job in ready:
            try:
                job.run()
            except OSError as error:
                self.fail(stream, error)
        return [stream for stream, _ in ready]

    def _on_hangup(self) -> None:
        self.hung_up = True

    def _on_frame(self, kind: int, stream: int, payload: bytes) -> None:
        self.hung_up = False
        if kind == wire.SYNCED:
            self._end_session()
        elif kind == wire.BROKEN:
            self.channel.send_error(0, "BAD_FRAME", payload.decode())
        elif kind == wire.HELLO:
            self._hello(payload)
        elif self._in_session:
            try:
                self._on_stream_frame(kind, stream, payload)
            except Exception as error:  # noqa: BLE001  (no request, however odd, ends the agent)
                self.fail(stream, error)

    def _hello(self, payload: bytes) -> None:
        if len(payload) < wire.HELLO_BODY.size:
            self.channel.send_error(0, "BAD_REQUEST", "hello is too short")
            return
        nonce, _version = wire.HELLO_BODY.unpack_from(payload)
        self._end_session()
        self._in_session = True
        self.channel.start_session(wire.HELLO_REPLY, wire.HELLO_BODY.pack(nonce, wire.VERSION))

    def _end_session(self) -> None:
        self._in_session = False
        for job in list(self._streams.values()):
            job.cancel()

    def _on_stream_frame(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == wire.REQUEST:
            self._request(stream, payload)
            return
        job = self._streams.get(stream)
        if job is None:
            # The stream ended while this frame was on its way.
            return
        channel = kind & 0x03
        if kind == wire.CANCEL:
            job.cancel()
        elif kind == wire.SIGNAL:
            job.signal(values.unpack(payload))
        elif kind == wire.RESIZE:
            resize = getattr(job, "resize", None)
            if resize is None:
                raise ValueError("the stream has no terminal")
            resize(values.unpack(payload))
        elif kind - channel == wire.DATA:
            job.receive(payload)
        elif kind - channel == wire.EOF:
            job.receive_eof()
        elif kind - channel == wire.CREDIT and len(payload) == wire.COUNT.size:
            job.add_credit(channel, wire.COUNT.unpack(payload)[0])
        else:
            raise ValueError(f"unknown frame of kind {kind:#x}")

    def _request(self, stream: int, payload: bytes) -> None:
        request = values.unpack(payload)
        if not isinstance(request, dict) or stream in self._streams:
            raise ValueError("a request must be a dict on an unused stream")
        op = request.get("op")
        if len(self._streams) >= _MAX_STREAMS and op not in _NOT_COUNTED:
            message = f"{_MAX_STREAMS} commands, files and connections are open, the maximum; end some first"
            raise OSError(errno.EBUSY, message)
        if op == "ping":
            self._answer_ping(stream)
        elif op == "prepare":
            self._prepare(stream, request)
        elif op in ("exec", "exec_with"):
            self._streams[stream] = Command(self.processes, stream, request, self.channel, self.forget)
        elif op == "put":
            self._streams[stream] = Upload(stream, request, self.channel, self.forget)
        elif op == "get":
            self._streams[stream] = Download(stream, request, self.channel, self.forget)
        elif op in _OPERATIONS:
            job = _operation(_OPERATIONS[op])(self, stream, request)
            if job is not None:
                self._streams[stream] = job
        else:
            self.channel.send_error(stream, "UNSUPPORTED", f"this agent (version {wire.VERSION}) does not know {op!r}")

    def _answer_ping(self, stream: int) -> None:
        reply = {
            "version": wire.VERSION,
            "kernel": os.uname().release,
            "wall_clock_ns": self.system.wall_clock_ns(),
            "clock_moved_ns": self.system.clock_moved_ns(),
        }
        self.channel.send_value(wire.REPLY, stream, reply)

    def _prepare(self, stream: int, request: dict[str, Any]) -> None:
        job = self._streams[stream] = Preparation(
            stream,
            request,
            self.system,
            self.loop,
            on_done=self._prepared,
            on_failure=self.fail,
            on_end=self.forget,
            limit_ns=self._preparation_limit_ns,
        )
        job.start()
        # The environment belongs to the VM, so it outlives the session.
        if job.environment:
            self.environment.update(job.environment)

    def _prepared(self, stream: int, reply: dict[str, Any]) -> None:
        self.channel.send_value(wire.REPLY, stream, reply)
        self.forget(stream)

    def job(self, stream: Any) -> Job | None:
        """What a stream is for, if there is such a stream."""
        return self._streams.get(stream)

    def forget(self, stream: int) -> None:
        self._streams.pop(stream, None)

    def fail(self, stream: int, error: Exception) -> None:
        job = self._streams.get(stream)
        if job is not None:
            job.cancel()
        if isinstance(error, OSError):
            code = errno.errorcode.get(error.errno, "EIO") if error.errno else "EIO"
            message = error.strerror or str(error)
        else:
            code, message = "BAD_REQUEST", str(error)
        part = getattr(error, "part", "") or getattr(job, "part", "")
        self.channel.send_error(stream, code, message, part)


def _operation(name: str) -> Callable[[Service, int, dict[str, Any]], Job | None]:
    module, _, function = name.partition(".")
    # As `importlib.import_module`; importing that would cost more.
    return getattr(__import__(module, globals(), None, (function,), 1), function)  # type: ignore[no-any-return]
