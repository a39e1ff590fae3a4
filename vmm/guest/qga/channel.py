"""The byte channel to qemu-ga: one task owns it, has one request on its way at a time, starts anew when in doubt."""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import attrs
import trio

from vmm.errors import AgentError, AgentProtocolError, AgentRequestError, AgentUnreachableError
from vmm.guest.budget import SLICE, Pace
from vmm.guest.qga import protocol
from vmm.guest.qga.protocol import Delimiter, Garbage, Message, Overlong, Reply

_READ_SIZE: Final = 64 * 1024

_FLUSH_S: Final = 0.5
"""How long closing waits for what still has to be undone in the guest, such as a command to be killed."""

_LINES: Final = 256
_BYTES: Final = 64 * 2**20
"""That may come until there is an answer. One or two lines are honest, what was said to somebody else among them; the
longest that qemu-ga says is a command's output of two times 16 MiB, in base64."""

Undo = Callable[[Any], Awaitable[None]]
"""What to do about the value of an answer that nobody waits for any more."""


@attrs.define(eq=False)
class _Request:
    name: str
    """Of our contract's operation, for errors."""
    id: int
    line: bytes
    undo: Undo | None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Of the owner's work on it."""
    answered: trio.Event = attrs.field(factory=trio.Event)
    value: Any = None
    error: AgentError | None = None

    def answer(self, message: Reply | Overlong) -> None:
        match message:
            case Reply(error_class="", value=value):
                self.value = value
            case Reply():
                self.error = protocol.refusal(self.name, message)
            case Overlong():
                self.error = AgentRequestError(
                    request=self.name,
                    code="EFBIG",
                    message=f"qemu-ga's answer has more than {protocol.MAX_LINE} bytes, output in base64 included; "
                    "have the command write to a file, and get that",
                )
        self.answered.set()


class QgaChannel:
    """Requests to qemu-ga. Any number of tasks may make them; qemu-ga does one after the other."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._decoder = protocol.Decoder()
        self._pieces: deque[bytes] = deque()
        """Of what was read, not decoded yet."""
        self._messages: deque[Message] = deque()
        self._pace = Pace()
        self._lines_left = self._bytes_left = 0
        self._queue: deque[_Request] = deque()
        self._current: _Request | None = None
        self._queued = trio.Event()
        self._late: dict[int, Undo] = {}
        self._last_id = 0
        self._synced = trio.Event()
        self._failure: AgentError | None = None
        self._ended = trio.Event()
        self._scope = trio.CancelScope()
        self._jobs: trio.Nursery | None = None
        self._undoing = 0
        self._undone = trio.Event()

    # Life

    async def open(self, nursery: trio.Nursery) -> None:
        """Starts the task, and returns once qemu-ga has answered a sync. Raises AgentError.

        For a booting guest that takes as long as the boot: QEMU keeps what is written before the port is opened.
        """
        nursery.start_soon(self._run, name="qga channel")
        await self._synced.wait()
        self.check()

    async def aclose(self) -> None:
        """Waits a moment for what is being undone, and closes the stream. Idempotent."""
        with trio.CancelScope(shield=True), trio.move_on_after(_FLUSH_S):
            while self._undoing and self._failure is None:
                self._undone = trio.Event()
                await self._undone.wait()
        self._fail(AgentUnreachableError("the connection to qemu-ga was closed on this side"))
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)
        await trio.lowlevel.checkpoint()

    def check(self) -> None:
        """Raises the error that ended the channel, if one did."""
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args) from self._failure.__cause__

    async def wait_broken(self) -> AgentProtocolError:
        """See `vmm.contract.Agent`. A channel that ends for another reason was not broken by the guest."""
        await self._ended.wait()
        if not isinstance(self._failure, AgentProtocolError):
            await trio.sleep_forever()
        assert isinstance(self._failure, AgentProtocolError)
        return self._failure

    @contextlib.contextmanager
    def judging(self) -> Iterator[None]:
        """An answer that is none ends the channel, as a line that is none does."""
        try:
            yield
        except AgentProtocolError as error:
            self._fail(error)
            raise

    # Requests

    async def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, request: str, undo: Undo | None = None
    ) -> Any:
        """Executes one of qemu-ga's commands and returns its value; `request` is what errors call it.

        Cancelled before it was sent, it never is. Cancelled later, it is abandoned, and the channel synced before the
        next one; if an answer comes after all, `undo` is called with its value. Raises AgentError.
        """
        self.check()
        self._last_id += 1
        try:
            line = protocol.encode(command, arguments or {}, request_id=self._last_id)
        except (TypeError, ValueError) as error:
            raise AgentRequestError(request=request, code="BAD_REQUEST", message=str(error)) from error
        waiting = _Request(request, self._last_id, line, undo)
        self._queue.append(waiting)
        self._queued.set()
        try:
            await waiting.answered.wait()
        except BaseException:
            self._abandon(waiting)
            raise
        if waiting.error is not None:
            raise waiting.error
        return waiting.value

    def start_soon(self, job: Callable[[], Awaitable[None]]) -> None:
        """Runs a job until it or the channel ends. A job's AgentError is not told to anybody."""
        self.check()
        assert self._jobs is not None, "open() comes first"
        self._jobs.start_soon(self._run_job, job)

    def undo_soon(self, job: Callable[[], Awaitable[None]]) -> None:
        """As `start_soon`, and closing the channel waits for it a moment. Does nothing on a channel that failed: what
        was to be undone is gone with its guest, or out of reach."""
        if self._failure is None and self._jobs is not None:
            self._undoing += 1
            self._jobs.start_soon(self._run_undo, job)

    def _abandon(self, request: _Request) -> None:
        if request is self._current:
            request.scope.cancel(reason="nobody waits for the answer any more")
        elif request.answered.is_set():
            self._undo(request.undo, request.value, failed=request.error is not None)
        else:
            with contextlib.suppress(ValueError):
                self._queue.remove(request)

    def _undo(self, undo: Undo | None, value: Any, *, failed: bool) -> None:
        if undo is not None and not failed:
            self.undo_soon(lambda: undo(value))

    # The owner

    async def _run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as self._jobs:
                self._jobs.start_soon(self._guard)

    async def _guard(self) -> None:
        # Whatever ends the task ends the channel, and is told to those who wait; the nursery never sees it.
        try:
            await self._serve()
        except AgentError as error:
            self._fail(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            failure = AgentUnreachableError("qemu-ga's channel broke")
            failure.__cause__ = error
            self._fail(failure)
        finally:
            # Before the nursery is closed: who unwinds at the same time still has jobs for it.
            self._fail(AgentUnreachableError("the task that serves qemu-ga's channel was cancelled"))

    async def _serve(self) -> None:
        await self._sync()
        self._synced.set()
        while True:
            while not self._queue:
                self._queued = trio.Event()
                await self._queued.wait()
            request = self._current = self._queue.popleft()
            with request.scope:
                await self._say(request.line)
                request.answer(await self._answer_to(request))
            self._current = None
            if not request.answered.is_set():
                if request.undo is not None:
                    self._late[request.id] = request.undo
                await self._sync()
            elif request.scope.cancel_called:
                # The answer and the caller's end came at the same time.
                self._undo(request.undo, request.value, failed=request.error is not None)

    async def _sync(self) -> None:
        """Says a number and reads until it comes back. Whatever was on its way before has been heard then."""
        number = random.getrandbits(31)
        self._last_id += 1
        await self._say(protocol.encode_sync(number, request_id=self._last_id))
        delimited = False
        while True:
            match await self._receive():
                case Delimiter():
                    delimited = True
                    continue
                case Reply(value=said) if delimited and said == number:
                    self._late.clear()
                    return
                case Reply(id=int(late), error_class=error_class, value=value) if late in self._late:
                    self._undo(self._late.pop(late), value, failed=bool(error_class))
                case _:
                    pass  # said to somebody else, or about the half of a request
            delimited = False

    async def _answer_to(self, request: _Request) -> Reply | Overlong:
        while True:
            match await self._receive():
                case Reply(id=said) as reply if said in (request.id, None):
                    return reply
                case Overlong() as overlong:
                    return overlong
                case Garbage(line=line):
                    raise AgentProtocolError(f"qemu-ga said what is no answer: {line!r}")
                case Reply(id=said):
                    raise AgentProtocolError(f"qemu-ga answered request {said} while it was asked {request.id}")
                case Delimiter():
                    continue

    async def _say(self, line: bytes) -> None:
        self._lines_left, self._bytes_left = _LINES, _BYTES
        await self._stream.send_all(line)

    async def _receive(self) -> Message:
        while not self._messages:
            if not self._pieces:
                data = bytes(await self._stream.receive_some(_READ_SIZE))
                if not data:
                    raise AgentUnreachableError("the other end of qemu-ga's channel was closed")
                self._pieces.extend(data[start : start + SLICE] for start in range(0, len(data), SLICE))
            piece = self._pieces.popleft()
            lines = piece.count(b"\n") + piece.count(protocol.DELIMITER)
            self._lines_left -= lines
            self._bytes_left -= len(piece)
            if self._lines_left < 0 or self._bytes_left < 0:
                raise AgentProtocolError("qemu-ga goes on saying what nobody waits for")
            self._messages.extend(self._decoder.feed(piece))
            pause_s = self._pace.spend(lines, size=len(piece), now=trio.current_time())
            if pause_s:
                await trio.sleep(pause_s)
        return self._messages.popleft()

    async def _run_job(self, job: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(AgentError):
            await job()

    async def _run_undo(self, job: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._run_job(job)
        finally:
            self._undoing -= 1
            self._undone.set()

    def _fail(self, error: AgentError) -> None:
        """Ends the channel: all that waits, and all that comes later, gets this error. The first one counts."""
        if self._failure is not None:
            return
        self._failure = error
        self._ended.set()
        self._scope.cancel(reason=str(error))
        self._synced.set()
        self._undone.set()
        waiting = [*self._queue, *([] if self._current is None else [self._current])]
        self._queue.clear()
        for request in waiting:
            request.error = type(error)(*error.args)
            request.error.__cause__ = error.__cause__
            request.answered.set()
