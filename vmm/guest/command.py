"""A command in the guest, seen from the host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import trio

from vmm.errors import AgentProtocolError, AgentRequestError, NoRoomError
from vmm.guest.agent import wire
from vmm.guest.connection import Connection
from vmm.guest.requests import fields_of, refusal, with_credit
from vmm.untrusted import is_exit, is_number
from vmm.words.commands import CommandExit, CommandSpec, Output, OutputStream, TerminalSize

_MAX_PID: Final = 2**22
"""Linux's maximum on every machine."""


class _Buffer:
    """Unread output of one stream. Stored as bytes, not pieces: a guest may send single bytes."""

    def __init__(self, channel: int, stream: OutputStream) -> None:
        self.channel = channel
        self.stream = stream
        self.unread = bytearray()
        self.owed_credit = 0

    def take(self, most: int) -> Output:
        piece = bytes(self.unread[:most])
        del self.unread[: len(piece)]
        self.owed_credit += len(piece)
        return Output(stream=self.stream, data=piece)


class RemoteCommand:
    """Implements `vmm.contract.Command`. Holds at most one window of unread output for each stream.

    An agent of an earlier version knows only one window size, and does not confirm a smaller one; then that much room
    is needed.
    """

    def __init__(self, connection: Connection, spec: CommandSpec) -> None:
        """Queues the request. Raises AgentError. `started` waits for the answer; `aclose` must follow in any case."""
        self._connection = connection
        self._changed = trio.lowlevel.ParkingLot()
        self._pid: int | None = None
        # The stream read last is at the end.
        self._buffers = [_Buffer(wire.STDOUT, OutputStream.STDOUT), _Buffer(wire.STDERR, OutputStream.STDERR)]
        self._room = spec.room
        self._window = spec.room.window
        self._piece = min(self._window, wire.MAX_PAYLOAD)
        self._stdin_window = self._stdin_credit = max(self._window, len(spec.stdin or b""))
        self._stdin_closed = False
        self._exit: CommandExit | None = None
        self._error: AgentRequestError | NoRoomError | None = None
        self._over = False
        self._closed = False
        self._stream = connection.open_stream(self)
        try:
            connection.send_value(wire.REQUEST, self._stream, _request(spec))
        except (ValueError, TypeError, OverflowError) as error:
            connection.close_stream(self._stream, cancel=False)
            raise AgentRequestError(request="exec", code="BAD_REQUEST", message=str(error)) from error
        if spec.stdin is not None:
            self._give_stdin(spec.stdin)

    @property
    def process_id(self) -> int:
        return 0

    @property
    def pid(self) -> int:
        return self._pid or 0

    async def resize(self, size: TerminalSize) -> None:
        raise AgentRequestError(request="resize", code="UNSUPPORTED", message=f"no terminal can be made {size}")

    async def started(self) -> None:
        """Waits until the command runs. Raises AgentError or NoRoomError, see `vmm.contract.Agent.start_command`."""
        while self._pid is None and self._error is None:
            self._check()
            await self._changed.park()
        if self._error is not None:
            raise self._error

    async def send_stdin(self, data: bytes) -> None:
        """See the contract. Raises AgentError. When cancelled, a part of the data may have been sent."""
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view and not self._stdin_closed:
            self._check()
            if self._stdin_credit == 0:
                await self._changed.park()
                continue
            piece = bytes(view[: min(self._stdin_credit, wire.MAX_PAYLOAD)])
            view = view[len(piece) :]
            self._stdin_credit -= len(piece)
            self._connection.send_data(self._stream, piece)

    async def close_stdin(self) -> None:
        """Closes the command's stdin once everything sent is written. Idempotent. Raises AgentError."""
        await trio.lowlevel.checkpoint()
        if not self._stdin_closed:
            self._check()
            self._stdin_closed = True
            self._connection.send(wire.EOF + wire.STDIN, self._stream)

    async def send_signal(self, number: int) -> None:
        """See the contract. Raises ValueError if `number` is not a signal's, AgentError."""
        await trio.lowlevel.checkpoint()
        if not 1 <= number <= 64:
            raise ValueError(f"signal: {number} is out of range; it must be between 1 and 64")
        if not self._over:
            self._connection.check_backlog()
            self._connection.send_value(wire.SIGNAL, self._stream, number)

    def events(self) -> AsyncIterator[Output | CommandExit]:
        """See the contract. One consumer; ends after the CommandExit, or when the command is closed."""
        return _Events(self)

    async def aclose(self) -> None:
        """Kills the process group if it still runs, and discards its output. Idempotent; never raises AgentError.

        The kill is queued before the first await, so it is sent even under cancellation; its effect is not awaited.
        """
        if not self._closed:
            self._closed = True
            self._stdin_closed = True
            self._connection.close_stream(self._stream, cancel=not self._over)
            for buffer in self._buffers:
                buffer.unread.clear()
            self._changed.unpark_all()
        await trio.lowlevel.checkpoint()

    async def next_event(self) -> Output | CommandExit | None:
        """The next event, None at the end. Raises AgentError."""
        await trio.lowlevel.checkpoint()
        while not self._closed:
            buffer = next((buffer for buffer in self._buffers if buffer.unread), None)
            if buffer is not None:
                self._buffers.sort(key=lambda other: other is buffer)
                output = buffer.take(self._piece)
                self._give_credit(buffer)
                return output
            if self._over:
                if self._error is not None:
                    raise self._error
                report, self._exit = self._exit, None
                return report
            self._check()
            await self._changed.park()
        return None

    # Called by the reader task

    def on_frame(self, kind: int, payload: bytes) -> None:
        buffer = next((buffer for buffer in self._buffers if kind == wire.DATA + buffer.channel), None)
        if buffer is not None:
            buffer.unread += payload
            if len(buffer.unread) + buffer.owed_credit > self._window:
                raise AgentProtocolError("the guest agent sent more output than there was room for")
        elif kind == wire.CREDIT + wire.STDIN:
            self._stdin_credit = with_credit(self._stdin_credit, payload, window=self._stdin_window)
        elif kind == wire.REPLY:
            if self._pid is not None:
                raise AgentProtocolError("the guest agent answered exec twice")
            reply = fields_of(payload)
            self._pid = _pid(reply)
            self._agree(reply.get("window"))
        elif kind == wire.EXITED:
            self._end(exit_report=_exit_report(payload))
        elif kind == wire.ERROR:
            self._end(error=refusal("exec", payload))
        else:
            raise AgentProtocolError(f"the guest agent sent a frame of kind {kind:#x} for a command")
        self._changed.unpark_all()

    def on_failure(self) -> None:
        self._changed.unpark_all()

    def _agree(self, window: object) -> None:
        if self._window in (wire.WINDOW, window):
            return
        if window is not None:
            raise AgentProtocolError("the guest agent answered exec with a window that was not requested")
        streams = 1 + len(self._buffers)
        try:
            self._room.take(streams * (wire.WINDOW - self._window))
        except NoRoomError as error:
            self._end(error=error, cancel=True)
            return
        self._window = wire.WINDOW
        self._stdin_credit += wire.WINDOW - self._stdin_window
        self._stdin_window = wire.WINDOW

    def _end(
        self,
        *,
        exit_report: CommandExit | None = None,
        error: AgentRequestError | NoRoomError | None = None,
        cancel: bool = False,
    ) -> None:
        self._over = True
        self._stdin_closed = True
        self._exit = exit_report
        self._error = error
        self._connection.close_stream(self._stream, cancel=cancel)

    def _give_stdin(self, data: bytes) -> None:
        # At most the initial window of a stream, so this never has to wait.
        self._stdin_credit -= len(data)
        for start in range(0, len(data), wire.MAX_PAYLOAD):
            self._connection.send_data(self._stream, data[start : start + wire.MAX_PAYLOAD])
        self._stdin_closed = True
        self._connection.send(wire.EOF + wire.STDIN, self._stream)

    def _give_credit(self, buffer: _Buffer) -> None:
        # Credit is given in large pieces; three quarters of the window are still open meanwhile.
        if buffer.owed_credit >= self._window // 4 and not self._over:
            self._connection.send_credit(buffer.channel, self._stream, buffer.owed_credit)
            buffer.owed_credit = 0

    def _check(self) -> None:
        # A command that has ended no longer depends on the connection.
        if not self._over:
            self._connection.check()


class _Events(AsyncIterator[Output | CommandExit]):
    # Not an async generator: a caller may leave the loop early without closing it.

    def __init__(self, command: RemoteCommand) -> None:
        self._command = command

    async def __anext__(self) -> Output | CommandExit:
        event = await self._command.next_event()
        if event is None:
            raise StopAsyncIteration
        return event


def _request(spec: CommandSpec) -> dict[str, Any]:
    request = {
        "op": "exec",
        "argv": list(spec.argv),
        "environment": dict(spec.environment),
        "directory": spec.working_directory,
        "time_limit_ns": None if spec.time_limit_s is None else round(spec.time_limit_s * 1e9),
    }
    if spec.room.window != wire.WINDOW:
        request["window"] = spec.room.window
    return request


def _pid(reply: Mapping[str, Any]) -> int:
    pid = reply.get("pid")
    if not is_number(pid, most=_MAX_PID):
        raise AgentProtocolError("the guest agent started a command without reporting a pid")
    return pid


def _exit_report(payload: bytes) -> CommandExit:
    fields = fields_of(payload)
    status, signal = fields.get("status"), fields.get("signal")
    if not is_exit(status, signal):
        raise AgentProtocolError("the guest agent sent an invalid exit report")
    return CommandExit(
        status=status,
        signal=signal,
        timed_out=fields.get("timed_out") is True,
        out_of_memory=fields.get("out_of_memory") is True,
    )
