"""The byte channel to qemu-ga: one task owns it, sends one request at a time, and resynchronises when in doubt."""

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
"""Time that closing allows for undoing work in the guest, such as killing a command."""

_LINES: Final = 256
_BYTES: Final = 64 * 2**20
"""Bytes read before an answer must be complete. An honest qemu-ga sends a line or two, including answers to an earlier
host; its longest line is a command's output of twice 16 MiB, in base64."""

Undo = Callable[[Any], Awaitable[None]]
"""Undoes the effect of a request whose answer came too late; its argument is the answer's value."""


@attrs.define(eq=False)
class _Request:
    name: str
    """Operation of our contract, for errors."""
    id: int
    line: bytes
    undo: Undo | None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Scope of the owner's work on the request."""
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
                    message=f"qemu-ga's answer is longer than {protocol.MAX_LINE} bytes, with output in base64; "
                    "have the command write to a file, and get that file",
                )
        self.answered.set()


class QgaChannel:
    """Requests to qemu-ga. Any number of tasks may send them; qemu-ga handles one at a time."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._decoder = protocol.Decoder()
        self._pieces: deque[bytes] = deque()
        """Bytes read but not decoded yet."""
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

    # Lifecycle

    async def open(self, nursery: trio.Nursery) -> None:
        """Starts the task, and returns once qemu-ga has answered a sync. Raises AgentError.

        A booting guest answers when it has booted: QEMU keeps what is written before the port is opened.
        """
        nursery.start_soon(self._run, name="qga channel")
        await self._synced.wait()
        self.check()

    async def aclose(self) -> None:
        """Waits a moment for pending undo jobs, and closes the stream. Idempotent."""
        with trio.CancelScope(shield=True), trio.move_on_after(_FLUSH_S):
            while self._undoing and self._failure is None:
                self._undone = trio.Event()
                await self._undone.wait()
        self._fail(AgentUnreachableError("the host closed its connection to qemu-ga"))
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)
        await trio.lowlevel.checkpoint()

    def check(self) -> None:
        """Raises the error that ended the channel, if one did."""
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args) from self._failure.__cause__

    async def wait_broken(self) -> AgentProtocolError:
        """See `vmm.contract.Agent`. Only the guest's breach of the protocol counts; another end does not return."""
        await self._ended.wait()
        if not isinstance(self._failure, AgentProtocolError):
            await trio.sleep_forever()
        assert isinstance(self._failure, AgentProtocolError)
        return self._failure

    @contextlib.contextmanager
    def judging(self) -> Iterator[None]:
        """Fails the channel on an invalid answer, as on an invalid line."""
        try:
            yield
        except AgentProtocolError as error:
            self._fail(error)
            raise

    # Requests

    async def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, request: str, undo: Undo | None = None
    ) -> Any:
        """Executes one of qemu-ga's commands and returns its value; errors name the operation `request`.

        Cancelled before it was sent, the request is dropped. Cancelled later, it is abandoned, and the channel is
        synchronised before the next request; if the answer still comes, `undo` is called with its value. Raises
        AgentError.
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
        """Runs a job until it or the channel ends. The job's AgentError is ignored."""
        self.check()
        assert self._jobs is not None, "open() comes first"
        self._jobs.start_soon(self._run_job, job)

    def undo_soon(self, job: Callable[[], Awaitable[None]]) -> None:
        """Like `start_soon`, but closing the channel waits a moment for the job. Does nothing on a failed channel: the
        effect to undo is gone with its guest, or out of reach."""
        if self._failure is None and self._jobs is not None:
            self._undoing += 1
            self._jobs.start_soon(self._run_undo, job)

    def _abandon(self, request: _Request) -> None:
        if request is self._current:
            request.scope.cancel(reason="the caller no longer waits for the answer")
        elif request.answered.is_set():
            self._undo(request.undo, request.value, failed=request.error is not None)
        else:
            with contextlib.suppress(ValueError):
                self._queue.remove(request)

    def _undo(self, undo: Undo | None, value: Any, *, failed: bool) -> None:
        if undo is not None and not failed:
            self.undo_soon(lambda: undo(value))

    # The owner task

    async def _run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as self._jobs:
                self._jobs.start_soon(self._guard)

    async def _guard(self) -> None:
        # Any error ends the channel and is reported by its requests; the nursery never sees it.
        try:
            await self._serve()
        except AgentError as error:
            self._fail(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            failure = AgentUnreachableError("qemu-ga's channel broke")
            failure.__cause__ = error
            self._fail(failure)
        finally:
            # Before the nursery closes: tasks that unwind at the same time may still start jobs in it.
            self._fail(AgentUnreachableError("the task serving qemu-ga's channel was cancelled"))

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
                # The answer arrived just as the caller was cancelled.
                self._undo(request.undo, request.value, failed=request.error is not None)

    async def _sync(self) -> None:
        """Sends a number and reads until it comes back, which discards everything sent before."""
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
                    pass  # an answer to an earlier host, or to a partial request
            delimited = False

    async def _answer_to(self, request: _Request) -> Reply | Overlong:
        while True:
            match await self._receive():
                case Reply(id=said) as reply if said in (request.id, None):
                    return reply
                case Overlong() as overlong:
                    return overlong
                case Garbage(line=line):
                    raise AgentProtocolError(f"qemu-ga sent an invalid answer: {line!r}")
                case Reply(id=said):
                    raise AgentProtocolError(f"qemu-ga answered request {said} instead of {request.id}")
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
                    raise AgentUnreachableError("qemu-ga's channel was closed by the other end")
                self._pieces.extend(data[start : start + SLICE] for start in range(0, len(data), SLICE))
            piece = self._pieces.popleft()
            lines = piece.count(b"\n") + piece.count(protocol.DELIMITER)
            self._lines_left -= lines
            self._bytes_left -= len(piece)
            if self._lines_left < 0 or self._bytes_left < 0:
                raise AgentProtocolError("qemu-ga keeps sending data that was not requested")
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
        """Ends the channel: every pending and later request gets this error. Only the first call has an effect."""
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
