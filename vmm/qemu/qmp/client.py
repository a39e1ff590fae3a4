"""QMP over a trio stream."""

from __future__ import annotations

import array
import random
import reprlib
import socket
from collections import deque
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import attrs
import trio

from vmm.errors import QmpCommandError, QmpConnectionError, QmpError
from vmm.qemu.qmp.messages import Event, Failure, Greeting, Message, Success
from vmm.qemu.qmp.protocol import Allowance, QmpProtocol

READ_BYTES = 4 * 1024
"""Bytes per read: 75 of the smallest events, which take a millisecond. Long answers are rare."""
SEND_LIMIT_S = 10.0
"""A QEMU that takes longer to read one command is hung; its connection is closed."""
TRANSCRIPT_LINES = 20
TRANSCRIPT_LINE_CHARACTERS = 300
MAX_WAITING_EVENTS = 1024

ErrorT = TypeVar("ErrorT", bound=QmpError)


class EventSubscription:
    """Events of the chosen names, from subscription on; use it as a context manager.

    Subscribe, act, then wait: no event is lost in between.
    """

    def __init__(self, client: QmpClient, names: frozenset[str]) -> None:
        self.names = names
        self._client = client
        self._send, self._receive = trio.open_memory_channel[Event](MAX_WAITING_EVENTS)
        self._end = "the subscription is closed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.unsubscribe(self)
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self.next()

    async def next(self) -> Event:
        """The next event. Events received before the connection broke are delivered first, then QmpConnectionError."""
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise self._client.with_transcript(QmpConnectionError(f"no more QMP events: {self._end}")) from None

    def deliver(self, event: Event) -> None:
        """For the client: queues an event if its name is subscribed to."""
        if event.name in self.names:
            try:
                self._send.send_nowait(event)
            except trio.WouldBlock:
                self.end(f"{MAX_WAITING_EVENTS} events are waiting; read them faster or subscribe to fewer names")

    def end(self, reason: str) -> None:
        """For the client: no more events will come."""
        self._end = reason
        self._send.close()


class _PendingCommand:
    """One command on its way from sender to reply."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Success | Failure | None = None

    def settle(self, answer: Success | Failure | None) -> None:
        self.answer = answer
        self.answered.set()


class QmpClient:
    """A QMP connection. Safe for concurrent use; QEMU answers in order, so a slow command delays the later ones."""

    def __init__(self, stream: trio.abc.Stream, *, kept: Collection[str]) -> None:
        """Use `connect`."""
        self._stream = stream
        self._protocol = QmpProtocol(last_id=random.getrandbits(48))
        self._allowance = Allowance()
        self._sending = trio.Lock()
        self._pending: dict[int, _PendingCommand] = {}
        self._subscriptions: list[EventSubscription] = []
        self._transcript: deque[str] = deque(maxlen=TRANSCRIPT_LINES)
        self._greeted = trio.Event()
        self._greeting: Greeting | None = None
        self._failure: str | None = None
        self._broken: QmpConnectionError | None = None
        self._ended = trio.Event()
        self._last: dict[str, Event | None] = dict.fromkeys(kept)

    @classmethod
    async def connect(cls, stream: trio.abc.Stream, *, nursery: trio.Nursery, kept: Collection[str] = ()) -> QmpClient:
        """Waits for QEMU's greeting and negotiates capabilities. `kept`: see `last`.

        Takes over the stream: closes it on error and cancellation, and in `aclose`. The reader lives in `nursery`, ends
        with the connection and never raises into it. Raises QmpConnectionError. No time limit of its own.
        """
        client = cls(stream, kept=kept)
        nursery.start_soon(client._read, name="qmp reader")
        try:
            await client._greeted.wait()
            client._check_open()
            await client.execute("qmp_capabilities")
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return client

    @property
    def greeting(self) -> Greeting:
        """QEMU's greeting."""
        assert self._greeting is not None, "only connect() makes clients"
        return self._greeting

    @property
    def transcript(self) -> tuple[str, ...]:
        """The last lines exchanged, shortened; evidence for errors."""
        return tuple(self._transcript)

    async def execute(self, command: str, /, *, fds: Sequence[int] = (), **arguments: Any) -> Any:
        """Runs a command and returns its value. Pass arguments with a dash as `**{"qom-path": ...}`.

        `fds` are sent with the command (SCM_RIGHTS), for `getfd` and `add-fd`; the caller keeps them and may close them
        afterwards. This needs a socket stream.

        Raises QmpCommandError if QEMU refuses, QmpConnectionError if the connection breaks or is closed before the
        reply. Cancelled before it is sent, the command is not sent; cancelled later, it runs and its reply is ignored.
        The connection stays usable either way.
        """
        if fds and not isinstance(self._stream, trio.SocketStream):
            raise TypeError(f"fds: file descriptors need a socket stream, not a {type(self._stream).__name__}")
        async with self._sending:
            self._check_open()
            command_id, line = self._protocol.command(command, arguments)
            pending = self._pending[command_id] = _PendingCommand()
            self._transcript.append(_shortened("> ", line))
            self._allowance.asked()
            await self._send(line, fds)
        try:
            await pending.answered.wait()
        finally:
            self._pending.pop(command_id, None)
        match pending.answer:
            case Success(value=value):
                return value
            case Failure(error_class=error_class, description=description):
                raise self.with_transcript(
                    QmpCommandError(command=command, error_class=error_class, description=description)
                )
        raise self.with_transcript(QmpConnectionError(f"QMP {command}: no reply: {self._failure}"))

    async def quit(self) -> bool:
        """Asks QEMU to exit, without waiting for a reply, which QEMU may not get to send. Works without the reader too.

        Returns whether QEMU was asked: False if the connection is broken. The exit of the process is the real answer.
        """
        async with self._sending:
            try:
                _, line = self._protocol.command("quit", {})
                self._transcript.append(_shortened("> ", line))
                await self._stream.send_all(line)
            except (QmpConnectionError, trio.BrokenResourceError, trio.ClosedResourceError):
                return False
        return True

    def subscribe(self, *names: str) -> EventSubscription:
        """Collects the events of these names from now on: `with client.subscribe("STOP") as events: ...`."""
        self._check_open()
        subscription = EventSubscription(self, frozenset(names))
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: EventSubscription) -> None:
        """For a subscription that has ended."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def last(self, name: str) -> Event | None:
        """The last event of a kept name since the connection was made, whether it was subscribed to or not."""
        return self._last[name]

    async def wait_ended(self) -> None:
        """Returns once nothing more can come: QEMU is dead, or the connection broke or was closed."""
        await self._ended.wait()

    async def wait_broken(self) -> QmpConnectionError:
        """Returns once QEMU violates the protocol, by invalid messages or by flooding. Does not return for an end."""
        await self._ended.wait()
        if self._broken is None:
            await trio.sleep_forever()
        assert self._broken is not None
        return self._broken

    async def aclose(self) -> None:
        """Closes the connection; pending commands fail with QmpConnectionError. Idempotent."""
        self._fail("vmpool closed it")
        await self._stream.aclose()

    def with_transcript(self, error: ErrorT) -> ErrorT:
        """The error, with the last exchanges as a note."""
        error.add_note("last QMP exchanges:\n" + "\n".join(f"  {line}" for line in self._transcript))
        return error

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self.with_transcript(QmpConnectionError(f"the QMP connection has ended: {self._failure}"))

    async def _send(self, line: bytes, fds: Sequence[int]) -> None:
        # A line is sent whole or not at all: a partial line would corrupt every later command.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SEND_LIMIT_S) as limit:
            try:
                await self._send_with_fds(line, fds) if fds else await self._stream.send_all(line)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._fail(f"sending failed: {error!r}")
        if limit.cancelled_caught:
            self._fail(f"QEMU did not read a command for {SEND_LIMIT_S:g} s")

    async def _send_with_fds(self, line: bytes, fds: Sequence[int]) -> None:
        assert isinstance(self._stream, trio.SocketStream), "checked by execute()"
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())
        sent = await self._stream.socket.sendmsg([line], [rights])
        if sent < len(line):
            await self._stream.send_all(line[sent:])

    async def _read(self) -> None:
        reason = "its reader was cancelled"
        try:
            while data := await self._stream.receive_some(READ_BYTES):
                self._account_for(data)
                for message in self._protocol.receive(data):
                    self._dispatch(message)
            reason = "QEMU closed it"
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            reason = f"receiving failed: {error!r}"
        except QmpConnectionError as error:
            self._broken = error
            reason = str(error)
        finally:
            self._fail(reason)

    def _account_for(self, data: bytes | bytearray) -> None:
        if not self._allowance.spend(data.count(b"\n"), size=len(data), now=trio.current_time()):
            raise QmpConnectionError("QEMU floods its QMP connection with output that was not requested")

    def _dispatch(self, message: Message) -> None:
        self._transcript.append(_shortened("< ", message))
        match message:
            case Greeting():
                self._greeting = message
                self._greeted.set()
            case Event():
                if message.name in self._last:
                    self._last[message.name] = message
                for subscription in self._subscriptions:
                    subscription.deliver(message)
            case Success(id=command_id) | Failure(id=command_id):
                assert command_id is not None, "checked by the protocol"
                if pending := self._pending.get(command_id):
                    pending.settle(message)

    def _fail(self, reason: str) -> None:
        if self._failure is not None:
            return
        self._failure = reason
        self._greeted.set()
        self._ended.set()
        for pending in self._pending.values():
            pending.settle(None)
        for subscription in self._subscriptions:
            subscription.end(reason)


class _Words(reprlib.Repr):
    """Formats a message in bounded time, whatever its size."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = 8
        self.maxstring = self.maxother = TRANSCRIPT_LINE_CHARACTERS

    def message(self, message: Message) -> str:
        fields = ", ".join(f"{name}={self.repr(value)}" for name, value in attrs.asdict(message, recurse=False).items())
        return f"{type(message).__name__}({fields})"


_WORDS = _Words()


def _shortened(prefix: str, what: bytes | Message) -> str:
    most = TRANSCRIPT_LINE_CHARACTERS
    text = what[: most + 1].decode().strip() if isinstance(what, bytes) else _WORDS.message(what)
    return prefix + (text if len(text) <= most else f"{text[:most]}...")
