"""The byte channel to the agent, shared by all requests: one task reads it, one writes it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

import trio

from vmm.errors import AgentError, AgentProtocolError, AgentUnreachableError
from vmm.guest import budget
from vmm.guest.agent import values, wire
from vmm.untrusted import said

_READ_SIZE = 64 * 1024

MAX_BACKLOG = 16 * 2**20
"""Unread bytes for a guest above which no new request is accepted: 64 streams with a full window each."""

_OUTPUT = (wire.DATA + wire.STDOUT, wire.DATA + wire.STDERR)
_SKIPS = (wire.SKIPPED + wire.STDOUT, wire.SKIPPED + wire.STDERR)
_CREDITS = tuple(wire.CREDIT + channel for channel in (wire.STDIN, wire.STDOUT, wire.STDERR))
_NO_CREDIT = wire.COUNT.pack(0)

_FLUSH_S = 0.5
"""Time that closing allows for writing what is queued, such as the kill of a command."""


class Receiver(Protocol):
    """The handler of one stream's frames."""

    def on_frame(self, kind: int, payload: bytes) -> None:
        """Called in the reader task; must not wait. A ValueError fails the connection: the guest broke the protocol."""

    def on_failure(self) -> None:
        """The connection has failed and no more frames will come; `Connection.check` raises the error."""


class Connection:
    """Frames in and out. The write queue is bounded by the streams' windows and by MAX_BACKLOG."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._decoder = wire.Decoder(max_message=wire.MAX_REPLY)
        self._pace = budget.Pace()
        self._pieces = 0  # of an incomplete message
        # Until hello is answered, the frames belong to the streams of an earlier session.
        self._unwanted = budget.Unwanted(streams=budget.MAX_STREAMS)
        self._nonce = os.urandom(wire.NONCE_SIZE)
        self._outgoing = bytearray()
        self._on_its_way = 0
        self._has_outgoing = trio.Event()
        self._written = trio.Event()
        self._said_hello = trio.Event()
        self._receivers: dict[int, Receiver] = {}
        self._last_stream = 0
        self._failure: AgentError | None = None
        self._ended = trio.Event()
        self._scope = trio.CancelScope()

    # Lifecycle

    async def open(self, nursery: trio.Nursery) -> None:
        """Starts the tasks and returns when the agent has answered hello. Raises AgentError.

        The caller sets the deadline. Hello is not repeated on a schedule: QEMU keeps what is written before the guest
        opens its port, and an agent that opens it announces itself, which is answered with another hello.
        """
        self._say_hello()
        nursery.start_soon(self._run, name="agent channel")
        await self._said_hello.wait()
        self.check()

    async def aclose(self) -> None:
        """Writes what is queued, for a moment at most, and closes the stream. Idempotent."""
        with trio.CancelScope(shield=True), trio.move_on_after(_FLUSH_S):
            await self._written.wait()
        self.fail(AgentUnreachableError("the host closed its connection to the guest agent"))
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)
        await trio.lowlevel.checkpoint()

    def check(self) -> None:
        """Raises the error that ended the connection, if one did."""
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args) from self._failure.__cause__

    def check_backlog(self) -> None:
        """Raises AgentError if the connection has ended, or too many bytes already wait for the guest."""
        self.check()
        waiting = self._on_its_way + len(self._outgoing)
        if waiting > MAX_BACKLOG:
            raise AgentUnreachableError(f"the guest agent does not read its channel: {waiting} bytes are waiting")

    async def wait_broken(self) -> AgentProtocolError:
        """See `vmm.contract.Agent`. Only the guest's breach of the protocol counts; another end does not return."""
        await self._ended.wait()
        if not isinstance(self._failure, AgentProtocolError):
            await trio.sleep_forever()
        assert isinstance(self._failure, AgentProtocolError)
        return self._failure

    def fail(self, error: AgentError) -> None:
        """Ends the connection: every pending and later request gets this error. Only the first call has an effect."""
        if self._failure is None:
            self._failure = error
            self._ended.set()
            self._scope.cancel(reason=str(error))
            self._said_hello.set()
            self._written.set()
            for receiver in list(self._receivers.values()):
                receiver.on_failure()
            self._receivers.clear()

    # Streams

    def open_stream(self, receiver: Receiver) -> int:
        """Opens a stream whose frames go to the receiver until `close_stream`. Raises AgentError."""
        self.check_backlog()
        self._last_stream += 1
        self._receivers[self._last_stream] = receiver
        return self._last_stream

    def close_stream(self, stream: int, *, cancel: bool) -> None:
        """Forgets a stream. `cancel` has the agent forget it too; frames still on their way are discarded."""
        if self._receivers.pop(stream, None) is not None and cancel:
            self._unwanted.expect(1)
            self.send(wire.CANCEL, stream)

    def leave_stream(self, stream: int) -> None:
        """Forgets a stream that the agent ends by itself, once it has used the input that it was sent."""
        if self._receivers.pop(stream, None) is not None:
            self._unwanted.expect(1)

    @contextlib.contextmanager
    def judging(self) -> Iterator[None]:
        """Fails the connection on an AgentProtocolError, for an invalid answer as for an invalid frame."""
        try:
            yield
        except AgentProtocolError as error:
            self.fail(error)
            raise

    def send(self, kind: int, stream: int, payload: bytes = b"") -> None:
        """Queues a message; it is written as soon as the writer task runs. Does nothing after a failure."""
        self._queue(wire.encode(kind, stream, payload))

    def send_value(self, kind: int, stream: int, value: dict[str, Any] | int) -> None:
        """Queues a value. Raises ValueError or TypeError if it cannot be sent, having queued nothing."""
        packed = values.pack(value)
        if len(packed) > wire.MAX_REQUEST:
            raise ValueError(f"the request has {len(packed)} bytes; the maximum is {wire.MAX_REQUEST}")
        self._queue(wire.encode(kind, stream, packed))

    def send_data(self, stream: int, data: bytes) -> None:
        self._queue(wire.encode_data(wire.STDIN, stream, data))

    def send_credit(self, channel: int, stream: int, count: int) -> None:
        self.send(wire.CREDIT + channel, stream, wire.COUNT.pack(count))

    # Tasks

    async def _run(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guard, self._read, name="agent reader")
                    nursery.start_soon(self._guard, self._write, name="agent writer")
        finally:
            self.fail(AgentUnreachableError("the task serving the guest agent's channel was cancelled"))

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        # Any error ends the connection and is reported by its requests; the owner's nursery never sees it.
        try:
            await work()
        except AgentError as error:
            self.fail(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.fail(_with_cause(AgentUnreachableError("the guest agent's channel broke"), error))
        except Exception as error:  # noqa: BLE001 - any error that a guest provokes costs only its own channel
            what = said(str(error)) or type(error).__name__
            self.fail(_with_cause(AgentProtocolError(f"the guest agent sent an invalid message: {what}"), error))

    async def _read(self) -> None:
        while True:
            data = await self._stream.receive_some(_READ_SIZE)
            if not data:
                raise AgentUnreachableError("the guest agent's channel was closed by the other end")
            start = 0
            while start < len(data):
                # The rest of one frame is decoded in one go, however long it is.
                end = start + max(budget.SLICE, self._decoder.missing)
                await self._listen(bytes(data[start:end]))
                start = end

    async def _listen(self, piece: bytes) -> None:
        before = self._decoder.frames
        messages = self._decoder.feed(piece)
        frames = self._decoder.frames - before
        self._pieces = 0 if messages else self._pieces + frames
        if self._pieces > budget.MAX_PIECES:
            raise AgentProtocolError(f"the guest agent sent a message of more than {budget.MAX_PIECES} pieces")
        for kind, stream, payload in messages:
            self._on_frame(kind, stream, payload)
        pause_s = self._pace.spend(frames, size=len(piece), now=trio.current_time())
        if pause_s:
            await trio.sleep(pause_s)

    async def _write(self) -> None:
        while True:
            await self._has_outgoing.wait()
            self._has_outgoing = trio.Event()
            data, self._outgoing = self._outgoing, bytearray()
            self._on_its_way = len(data)
            await self._stream.send_all(data)
            self._on_its_way = 0
            if not self._outgoing:
                self._written.set()

    def _queue(self, data: bytes) -> None:
        if self._failure is None:
            self._outgoing += data
            self._has_outgoing.set()
            if self._written.is_set():
                self._written = trio.Event()

    def _say_hello(self) -> None:
        self._queue(wire.MARKER + wire.encode(wire.HELLO, 0, wire.HELLO_BODY.pack(self._nonce, wire.VERSION)))

    def _on_frame(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == wire.HELLO_REPLY:
            self._on_hello_reply(payload)
        elif kind == wire.ANNOUNCE and not self._said_hello.is_set():
            self._discard(kind, payload)
            if self._written.is_set():
                self._say_hello()
        elif kind == wire.SYNCED or not self._said_hello.is_set():
            # A marker, or a frame for an earlier session.
            self._discard(kind, payload)
        elif kind == wire.ANNOUNCE:
            raise AgentUnreachableError("the guest agent restarted: its guest was reset")
        elif kind == wire.BROKEN:
            raise AgentProtocolError(f"the guest agent sent garbage: {said(payload.decode(errors='replace'))}")
        elif kind == wire.ERROR and stream == 0:
            raise AgentProtocolError("the guest agent received garbage: bytes were lost on its channel")
        elif stream > self._last_stream:
            raise AgentProtocolError(f"the guest agent answered request {stream}, which was never sent")
        elif stream not in self._receivers or _says_nothing(kind, payload):
            self._discard(kind, payload)
        else:
            self._receivers[stream].on_frame(kind, payload)

    def _discard(self, kind: int, payload: bytes) -> None:
        size = len(payload) if kind in _OUTPUT else wire.GAP_COST if kind in _SKIPS else 0
        if not self._unwanted.take(size):
            raise AgentProtocolError("the guest agent keeps sending frames that were not requested")

    def _on_hello_reply(self, payload: bytes) -> None:
        if len(payload) != wire.HELLO_BODY.size:
            raise AgentProtocolError("the guest agent sent an invalid answer to hello")
        nonce, version = wire.HELLO_BODY.unpack(payload)
        if nonce != self._nonce:
            if self._said_hello.is_set():
                raise AgentProtocolError(
                    "the guest agent answered a hello from another host; make sure that only vmpool uses its channel"
                )
            self._discard(wire.HELLO_REPLY, payload)
            return
        if version != wire.VERSION:
            raise AgentProtocolError(
                f"the guest agent speaks version {version} of its protocol, this host {wire.VERSION}; rebuild the image"
            )
        if self._said_hello.is_set():
            self._discard(wire.HELLO_REPLY, payload)
        else:
            self._said_hello.set()
            self._unwanted = budget.Unwanted()


def _says_nothing(kind: int, payload: bytes) -> bool:
    return (kind in _OUTPUT and not payload) or (kind in _CREDITS and payload == _NO_CREDIT)


def _with_cause(error: AgentError, cause: BaseException) -> AgentError:
    error.__cause__ = cause
    return error
