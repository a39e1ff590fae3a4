"""The streams of the agent channel that are not commands: requests with one answer, and files."""

from __future__ import annotations

import re
from typing import Any, Final, Self

import trio

from vmm.errors import AgentProtocolError, AgentRequestError
from vmm.guest.agent import values, wire
from vmm.guest.connection import Connection
from vmm.untrusted import is_number, said

_CODE: Final = r"[A-Z][A-Z0-9_]{1,31}"


def fields_of(payload: bytes) -> dict[str, Any]:
    """The fields of the agent's reply, report or error. Raises AgentProtocolError, or ValueError, if it is invalid."""
    if len(payload) > wire.MAX_REPLY:
        raise AgentProtocolError(f"the guest agent's answer has {len(payload)} bytes; the maximum is {wire.MAX_REPLY}")
    fields = values.unpack(payload)
    if not isinstance(fields, dict):
        raise AgentProtocolError("the guest agent's answer is not a dict")
    return fields


def refusal(request: str, payload: bytes) -> AgentRequestError:
    """The agent's ERROR as an exception. Raises like `fields_of`."""
    fields = fields_of(payload)
    code = fields.get("code")
    if not (isinstance(code, str) and re.fullmatch(_CODE, code)):
        raise AgentProtocolError("the guest agent sent an error without a code")
    return AgentRequestError(
        request=request, code=code, message=said(fields.get("message")), part=said(fields.get("part"))
    )


def with_credit(credit: int, payload: bytes, *, window: int = wire.WINDOW) -> int:
    """The credit of a stream after the agent's CREDIT. Raises AgentProtocolError if that exceeds the bytes sent, since
    data that a guest does not read stays in the host's memory.
    """
    if len(payload) != wire.COUNT.size:
        raise AgentProtocolError("the guest agent sent a CREDIT frame that is not a number")
    credit += int(wire.COUNT.unpack(payload)[0])
    if credit > window:
        raise AgentProtocolError("the guest agent gave more credit than was used")
    return credit


class Request:
    """One request on its own stream. Use it as a context manager: leaving early cancels the request in the guest."""

    def __init__(self, connection: Connection, name: str, fields: dict[str, Any]) -> None:
        """Queues the request. Raises AgentError, with code "BAD_REQUEST" if it cannot be sent."""
        self._connection = connection
        self._name = name
        self._reply: dict[str, Any] | None = None
        self._error: AgentRequestError | None = None
        self._over = False
        self._sending = name == "put"
        self._changed = trio.lowlevel.ParkingLot()
        self._credit = wire.WINDOW
        self._owed_credit = 0
        self._received = bytearray()
        self._limit = 0
        self.stream = connection.open_stream(self)
        try:
            connection.send_value(wire.REQUEST, self.stream, {"op": name, **fields})
        except (ValueError, TypeError) as error:
            connection.close_stream(self.stream, cancel=False)
            raise AgentRequestError(request=name, code="BAD_REQUEST", message=str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close_stream(self.stream, cancel=not self._over)

    async def reply(self) -> dict[str, Any]:
        """Waits for the answer. Raises AgentError."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._reply is None and self._error is None:
            self._connection.check()
            await self._changed.park()
        if self._error is not None:
            raise self._error
        assert self._reply is not None
        return self._reply

    async def send(self, data: bytes) -> None:
        """Sends a file's content as fast as the guest reads it; returns early if the guest refuses it."""
        view = memoryview(data)
        while view and not self._over:
            self._connection.check()
            if self._credit == 0:
                await self._changed.park()
                continue
            piece = bytes(view[: min(self._credit, wire.MAX_PAYLOAD)])
            view = view[len(piece) :]
            self._credit -= len(piece)
            self._connection.send_data(self.stream, piece)
        self._sending = False
        self._connection.send(wire.EOF + wire.STDIN, self.stream)

    async def receive(self, *, limit: int) -> bytes:
        """Waits for a file's content. Raises AgentError, with code "EFBIG" above `limit` bytes, "EIO" if the content is
        shorter than announced.
        """
        self._limit = limit
        while not self._over:
            self._connection.check()
            await self._changed.park()
        if self._error is not None:
            raise self._error
        return bytes(self._received)

    def on_frame(self, kind: int, payload: bytes) -> None:
        if kind == wire.REPLY:
            if self._reply is not None:
                raise AgentProtocolError(f"the guest agent answered {self._name} twice")
            if self._sending:
                raise AgentProtocolError("the guest agent confirmed a file before it was sent")
            self._reply = fields_of(payload)
            if self._name != "get":
                self._end()
        elif kind == wire.ERROR:
            self._error = refusal(self._name, payload)
            self._end()
        elif kind == wire.CREDIT + wire.STDIN:
            self._credit = with_credit(self._credit, payload)
        elif kind == wire.DATA + wire.STDOUT and self._name == "get":
            self._receive(payload)
        elif kind == wire.EOF + wire.STDOUT and self._name == "get":
            self._check_whole()
            self._end()
        else:
            raise AgentProtocolError(f"the guest agent sent a frame of kind {kind:#x} in answer to {self._name}")
        self._changed.unpark_all()

    def on_failure(self) -> None:
        self._changed.unpark_all()

    def _end(self) -> None:
        self._over = True
        self._connection.close_stream(self.stream, cancel=False)

    def _check_whole(self) -> None:
        size = None if self._reply is None else self._reply.get("size")
        if not is_number(size, most=2**63):
            raise AgentProtocolError("the guest agent sent a file without its size")
        # A file in /proc has size 0 and content, and one being written to may have grown.
        if len(self._received) < size:
            message = f"the file ended after {len(self._received)} of {size} bytes: it was truncated; get it again"
            self._error = AgentRequestError(request=self._name, code="EIO", message=message)

    def _receive(self, payload: bytes) -> None:
        self._received += payload
        if len(self._received) > self._limit:
            message = f"the file has more than {self._limit} bytes; ask for a smaller one or raise the limit"
            self._error = AgentRequestError(request=self._name, code="EFBIG", message=message)
            self._received.clear()
            self._connection.close_stream(self.stream, cancel=True)
            self._over = True
            return
        self._owed_credit += len(payload)
        if self._owed_credit >= wire.WINDOW // 4:
            self._connection.send_credit(wire.STDOUT, self.stream, self._owed_credit)
            self._owed_credit = 0
