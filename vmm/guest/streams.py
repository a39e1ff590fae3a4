"""Streams of the agent channel that carry bytes or records after the guest's answer."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, Generic, Self, TypeVar

import trio

from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.guest.agent import values, wire
from vmm.guest.connection import Connection
from vmm.guest.requests import fields_of, refusal, with_credit
from vmm.words.commands import WHOLE, Room

_Record = TypeVar("_Record")

_DATA: Final = wire.DATA + wire.STDOUT
_EOF: Final = wire.EOF + wire.STDOUT
_CREDIT: Final = wire.CREDIT + wire.STDIN

_LENGTH: Final = struct.Struct("<I")

MAX_RECORD: Final = wire.MAX_REPLY
"""Bytes of one packed record; the longest honest one has two paths."""


class RemoteStream:
    """A request, the guest's answer, and then bytes. Implements `vmm.contract.streams.ByteStream`.

    The request has "window", the most bytes that either side may have in flight, and the answer confirms it. The guest
    sends DATA and one EOF on STDOUT; if the request takes input, the host does on STDIN. The stream is over when each
    direction that it has is, or with an ERROR, which may come at any time. Data that precedes it is received first.

    One task may send while another receives. Holds at most one window of unread bytes, and one of unsent ones.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        fields: dict[str, Any],
        *,
        takes_input: bool = False,
        room: Room = WHOLE,
    ) -> None:
        """Queues the request. Raises AgentError, with code "BAD_REQUEST" if it cannot be sent.

        `open` also waits for the answer. `aclose` must follow in any case.
        """
        self._connection = connection
        self._name = name
        self._window = self._credit = room.window
        self._piece = min(self._window, wire.MAX_PAYLOAD)
        self._changed = trio.lowlevel.ParkingLot()
        self._answer: dict[str, Any] | None = None
        self._unread = bytearray()
        self._owed_credit = 0
        self._takes_input = takes_input
        self._input_ended = not takes_input
        self._output_ended = False
        self._error: AgentRequestError | None = None
        self._closed = False
        self._stream = connection.open_stream(self)
        try:
            connection.send_value(wire.REQUEST, self._stream, {"op": name, "window": self._window, **fields})
        except (ValueError, TypeError) as error:
            connection.close_stream(self._stream, cancel=False)
            raise AgentRequestError(request=name, code="BAD_REQUEST", message=str(error)) from error

    @classmethod
    async def open(
        cls,
        connection: Connection,
        name: str,
        fields: dict[str, Any],
        *,
        takes_input: bool = False,
        room: Room = WHOLE,
    ) -> Self:
        """Returns once the guest has answered. Raises AgentError; if cancelled, the request is ended in the guest."""
        stream = cls(connection, name, fields, takes_input=takes_input, room=room)
        try:
            await stream._answered()
        except BaseException:
            await stream.aclose()
            raise
        return stream

    @property
    def number(self) -> int:
        """Of the stream, as other requests may refer to it."""
        return self._stream

    @property
    def answer(self) -> dict[str, Any]:
        """The guest's, unchecked but for its window."""
        assert self._answer is not None, "the stream is not open yet"
        return self._answer

    async def _answered(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._answer is None:
            self._check()
            await self._changed.park()

    async def receive(self) -> bytes:
        """See the contract. Empty also after `aclose`."""
        await trio.lowlevel.checkpoint()
        while not self._closed:
            if self._unread:
                return self._take()
            if self._output_ended:
                return b""
            self._check()
            await self._changed.park()
        return b""

    async def send(self, data: bytes) -> None:
        """See the contract. Raises trio.ClosedResourceError after `send_eof` and `aclose`."""
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view:
            if self._input_ended:
                raise trio.ClosedResourceError
            self._check()
            if self._credit == 0:
                await self._changed.park()
                continue
            piece = bytes(view[: min(self._credit, wire.MAX_PAYLOAD)])
            view = view[len(piece) :]
            self._credit -= len(piece)
            self._connection.send_data(self._stream, piece)

    async def send_eof(self) -> None:
        """See the contract."""
        await trio.lowlevel.checkpoint()
        if not self._input_ended:
            self._check()
            self._input_ended = True
            self._connection.send(wire.EOF + wire.STDIN, self._stream)
            if self._output_ended:
                # The guest says nothing more when it has taken the input.
                self._connection.leave_stream(self._stream)

    async def aclose(self) -> None:
        """See the contract. The end is queued before the first await; its effect in the guest is not awaited."""
        if not self._closed:
            self._closed = True
            self._connection.close_stream(self._stream, cancel=not self._over)
            self._input_ended = True
            self._unread.clear()
            self._changed.unpark_all()
        await trio.lowlevel.checkpoint()

    # Called by the reader task

    def on_frame(self, kind: int, payload: bytes) -> None:
        if kind == wire.ERROR:
            self._error = refusal(self._name, payload)
            self._connection.close_stream(self._stream, cancel=False)
        elif kind == wire.REPLY:
            self._take_answer(fields_of(payload))
        elif self._answer is None:
            raise AgentProtocolError(
                f"the guest agent sent a frame of kind {kind:#x} before its answer to {self._name}"
            )
        elif kind == _DATA and not self._output_ended:
            self._unread += payload
            if len(self._unread) + self._owed_credit > self._window:
                raise AgentProtocolError(f"the guest agent sent more in answer to {self._name} than there was room for")
        elif kind == _EOF and not self._output_ended:
            self._output_ended = True
            if self._takes_input and self._input_ended:
                # It may have given credit before it heard of the end of the input.
                self._connection.leave_stream(self._stream)
            elif self._input_ended:
                self._connection.close_stream(self._stream, cancel=False)
        elif kind == _CREDIT:
            self._credit = with_credit(self._credit, payload, window=self._window)
        else:
            raise AgentProtocolError(f"the guest agent sent a frame of kind {kind:#x} in answer to {self._name}")
        self._changed.unpark_all()

    def on_failure(self) -> None:
        self._changed.unpark_all()

    def _take_answer(self, answer: dict[str, Any]) -> None:
        if self._answer is not None:
            raise AgentProtocolError(f"the guest agent answered {self._name} twice")
        if answer.get("window") != self._window:
            raise AgentProtocolError(f"the guest agent answered {self._name} with a window that was not requested")
        self._answer = answer

    @property
    def _over(self) -> bool:
        return self._error is not None or (self._input_ended and self._output_ended)

    def _take(self) -> bytes:
        piece = bytes(self._unread[: self._piece])
        del self._unread[: len(piece)]
        self._owed_credit += len(piece)
        # Credit is given in large pieces; three quarters of the window are still open meanwhile.
        if self._owed_credit >= self._window // 4 and not self._output_ended and self._error is None:
            self._connection.send_credit(wire.STDOUT, self._stream, self._owed_credit)
            self._owed_credit = 0
        return piece

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        # What is over does not depend on the connection any more.
        if not self._over:
            self._connection.check()


class RemoteRecords(Generic[_Record]):
    """Records in a stream: each is a length, u32 little endian, and a packed dict. Implements
    `vmm.contract.streams.RecordSource`.

    A record that is too long, cut short, or that `read` rejects with AgentProtocolError, fails the connection.
    """

    def __init__(self, connection: Connection, stream: RemoteStream, read: Callable[[dict[str, Any]], _Record]) -> None:
        """Takes over the stream."""
        self._connection = connection
        self._stream = stream
        self._read = read
        self._unread = bytearray()

    @property
    def answer(self) -> dict[str, Any]:
        return self._stream.answer

    async def receive(self) -> tuple[_Record, ...]:
        """See the contract."""
        while data := await self._stream.receive():
            with self._connection.judging():
                if records := self._take(data):
                    return records
        if self._unread:
            with self._connection.judging():
                raise AgentProtocolError("the guest agent ended a stream within a record")
        return ()

    async def aclose(self) -> None:
        """See the contract."""
        self._unread.clear()
        await self._stream.aclose()

    def _take(self, data: bytes) -> tuple[_Record, ...]:
        self._unread += data
        records: list[_Record] = []
        start = 0
        while len(self._unread) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._unread, start)
            if length > MAX_RECORD:
                raise AgentProtocolError(
                    f"the guest agent sent a record of {length} bytes; the maximum is {MAX_RECORD}"
                )
            end = start + _LENGTH.size + length
            if len(self._unread) < end:
                break
            records.append(self._read(_unpacked(bytes(self._unread[start + _LENGTH.size : end]))))
            start = end
        del self._unread[:start]
        return tuple(records)


def _unpacked(packed: bytes) -> dict[str, Any]:
    try:
        record = values.unpack(packed)
    except ValueError as error:
        raise AgentProtocolError(f"the guest agent sent an invalid record: {error}") from error
    if not isinstance(record, dict):
        raise AgentProtocolError("the guest agent sent a record that is not a dict")
    return record
