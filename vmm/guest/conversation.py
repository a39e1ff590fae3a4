"""A stream of the agent channel that is about one process, which runs or has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import trio

from vmm.errors import AgentProtocolError, AgentRequestError, NoRoomError
from vmm.guest.agent import wire
from vmm.guest.connection import Connection
from vmm.guest.requests import fields_of, refusal, with_credit
from vmm.untrusted import is_exit, is_number
from vmm.words.commands import CommandExit, Room, TerminalSize

_MAX_PID: Final = 2**22
"""Linux's maximum on every machine."""

MAX_NUMBER: Final = 2**63 - 1
"""Of processes and positions: what the channel's numbers hold."""

_Output_co = TypeVar("_Output_co", covariant=True)


class Buffer(Protocol[_Output_co]):
    """Unread output of one stream."""

    channel: int
    owed_credit: int

    @property
    def held(self) -> int:
        """Bytes of credit that are in use, without those owed."""

    @property
    def readable(self) -> bool: ...

    def add(self, data: bytes) -> None: ...

    def skip(self, count: int) -> None:
        """So many bytes are lost before what is added next. Raises AgentProtocolError."""

    def take(self, most: int) -> _Output_co:
        """The next piece; there is one."""

    def clear(self) -> None: ...


class Conversation(Generic[_Output_co]):
    """Output from the process, stdin and signals to it, and its exit.

    Holds at most one window of unread output for each stream.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        request: Mapping[str, Any],
        buffers: Sequence[Buffer[_Output_co]],
        *,
        room: Room,
        stdin_window: int,
    ) -> None:
        """Queues the request; errors call it by `name`. Raises AgentError.

        `started` waits for the answer; `aclose` must follow in any case.
        """
        self._connection = connection
        self._name = name
        self._changed = trio.lowlevel.ParkingLot()
        # The stream read last is at the end.
        self._buffers = list(buffers)
        self._room = room
        self._window = room.window
        self._piece = min(self._window, wire.MAX_PAYLOAD)
        self._stdin_window = self._stdin_credit = stdin_window
        self._stdin_closed = False
        self._answered = False
        self._exit: CommandExit | None = None
        self._error: AgentRequestError | NoRoomError | None = None
        self._over = False
        self._closed = False
        self._stream = connection.open_stream(self)
        try:
            connection.send_value(wire.REQUEST, self._stream, dict(request))
        except (ValueError, TypeError, OverflowError) as error:
            connection.close_stream(self._stream, cancel=False)
            raise AgentRequestError(request=name, code="BAD_REQUEST", message=str(error)) from error

    @property
    def has_terminal(self) -> bool:
        raise NotImplementedError

    async def started(self) -> None:
        """Waits for the agent's answer. Raises AgentError or NoRoomError."""
        while not self._answered and self._error is None:
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
        """Closes stdin once everything sent is written; a terminal gets an end of file.

        Idempotent. Raises AgentError.
        """
        await trio.lowlevel.checkpoint()
        if not self._stdin_closed:
            self._check()
            self._stdin_closed = True
            self._connection.send(wire.EOF + wire.STDIN, self._stream)

    async def send_signal(self, number: int) -> None:
        """See the contract. Raises ValueError if `number` is not a signal's, AgentError."""
        await trio.lowlevel.checkpoint()
        check_signal(number)
        if not self._over:
            self._connection.check_backlog()
            self._connection.send_value(wire.SIGNAL, self._stream, number)

    async def resize(self, size: TerminalSize) -> None:
        """See the contract."""
        await trio.lowlevel.checkpoint()
        if not self.has_terminal:
            raise AgentRequestError(request="resize", code="ENOTTY", message="the process has no terminal")
        if not self._over:
            self._connection.check_backlog()
            self._connection.send_value(wire.RESIZE, self._stream, size_fields(size))

    async def aclose(self) -> None:
        """See the contract. Idempotent; never raises AgentError.

        The end of the stream is queued before the first await, so it is sent even under cancellation; its effect is not
        awaited.
        """
        if not self._closed:
            self._closed = True
            self._stdin_closed = True
            self._connection.close_stream(self._stream, cancel=not self._over)
            for buffer in self._buffers:
                buffer.clear()
            self._changed.unpark_all()
        await trio.lowlevel.checkpoint()

    async def next_event(self) -> _Output_co | CommandExit | None:
        """The next event, None at the end. Raises AgentError."""
        await trio.lowlevel.checkpoint()
        while not self._closed:
            buffer = next((buffer for buffer in self._buffers if buffer.readable), None)
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
        if kind == wire.ERROR:
            self._end(error=refusal(self._name, payload))
        elif kind == wire.REPLY:
            if self._answered:
                raise AgentProtocolError(f"the guest agent answered {self._name} twice")
            self._take_answer(fields_of(payload))
            self._answered = True
        elif not self._answered:
            raise AgentProtocolError(
                f"the guest agent sent a frame of kind {kind:#x} before its answer to {self._name}"
            )
        elif kind == wire.EXITED:
            self._end(exit_report=exit_of(fields_of(payload)))
        elif kind == wire.CREDIT + wire.STDIN:
            self._stdin_credit = with_credit(self._stdin_credit, payload, window=self._stdin_window)
        else:
            self._take_output(kind, payload)
        self._changed.unpark_all()

    def on_failure(self) -> None:
        self._changed.unpark_all()

    def _take_answer(self, fields: Mapping[str, Any]) -> None:
        """Raises AgentProtocolError."""
        raise NotImplementedError

    def _take_output(self, kind: int, payload: bytes) -> None:
        for buffer in self._buffers:
            if kind == wire.DATA + buffer.channel:
                buffer.add(payload)
            elif kind == wire.SKIPPED + buffer.channel and len(payload) == wire.LONG_COUNT.size:
                buffer.skip(wire.LONG_COUNT.unpack(payload)[0])
            else:
                continue
            if buffer.held + buffer.owed_credit > self._window:
                raise AgentProtocolError("the guest agent sent more output than there was room for")
            return
        raise AgentProtocolError(f"the guest agent sent a frame of kind {kind:#x} in answer to {self._name}")

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

    def _give_credit(self, buffer: Buffer[_Output_co]) -> None:
        # Credit is given in large pieces; three quarters of the window are still open meanwhile.
        if buffer.owed_credit >= self._window // 4 and not self._over:
            self._connection.send_credit(buffer.channel, self._stream, buffer.owed_credit)
            buffer.owed_credit = 0

    def _check(self) -> None:
        # What has ended no longer depends on the connection.
        if not self._over:
            self._connection.check()


def check_signal(number: int) -> None:
    """Raises ValueError if `number` is not a signal's."""
    if not 1 <= number <= 64:
        raise ValueError(f"signal: {number} is out of range; it must be between 1 and 64")


def size_fields(size: TerminalSize) -> dict[str, Any]:
    return {"rows": size.rows, "columns": size.columns}


def pid_of(fields: Mapping[str, Any]) -> int:
    """Raises AgentProtocolError."""
    pid = fields.get("pid")
    if not is_number(pid, most=_MAX_PID):
        raise AgentProtocolError("the guest agent reported a process without a pid")
    return pid


def number_of(fields: Mapping[str, Any]) -> int:
    """The process's number in its VM. Raises AgentProtocolError."""
    number = fields.get("process_id")
    if not is_number(number, most=MAX_NUMBER) or number == 0:
        raise AgentProtocolError("the guest agent reported a process without its number")
    return number


def exit_of(fields: Mapping[str, Any]) -> CommandExit:
    """Raises AgentProtocolError."""
    status, signal = fields.get("status"), fields.get("signal")
    if not is_exit(status, signal):
        raise AgentProtocolError("the guest agent sent an invalid exit report")
    return CommandExit(
        status=status,
        signal=signal,
        timed_out=fields.get("timed_out") is True,
        out_of_memory=fields.get("out_of_memory") is True,
    )
