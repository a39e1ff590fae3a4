"""A command that qemu-ga runs, seen from the host."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import AsyncIterator
from functools import partial

import trio

from vmm.errors import AgentError, AgentRequestError, AgentUnreachableError, NoRoomError
from vmm.guest.qga import execution
from vmm.guest.qga.channel import QgaChannel
from vmm.guest.qga.execution import FIRST_PAUSE_S, LAST_PAUSE_S, Ended
from vmm.words.commands import CommandExit, CommandSpec, Output, OutputStream, TerminalSize


class QgaCommand:
    """Implements `vmm.contract.Command` as far as qemu-ga can.

    All output comes at the end, bounded by `protocol.MAX_LINE`; if there is no room for it then, it is lost. The only
    stdin is that of the CommandSpec. Signals reach the process, not a group: qemu-ga does not create one.
    """

    def __init__(self, channel: QgaChannel, pid: int, spec: CommandSpec) -> None:
        """Takes over a started process. The caller runs `watch` in the background."""
        self._channel = channel
        self._pid = pid
        self._time_limit_s = spec.time_limit_s
        self._room = spec.room
        self._over = trio.Event()
        self._look = trio.Event()
        self._events: deque[Output | CommandExit] = deque()
        self._error: AgentError | NoRoomError | None = None
        self._timed_out = False
        self._closed = False

    async def watch(self) -> None:
        """Polls qemu-ga until the process has ended, and enforces the time limit."""
        try:
            with self._channel.judging():
                self._end(await self._until_ended())
        except (AgentError, NoRoomError) as error:
            self._error = error
        except trio.Cancelled:
            self._error = AgentUnreachableError("the connection to qemu-ga was closed while the command ran")
            raise
        finally:
            self._over.set()

    @property
    def process_id(self) -> int:
        """0: qemu-ga does not number its commands."""
        return 0

    @property
    def pid(self) -> int:
        return self._pid

    async def resize(self, size: TerminalSize) -> None:  # noqa: ARG002 - has none
        """Raises AgentRequestError with code "UNSUPPORTED": qemu-ga has no terminals."""
        raise AgentRequestError(request="resize", code="UNSUPPORTED", message="qemu-ga gives commands no terminal")

    async def send_stdin(self, data: bytes) -> None:
        """Raises AgentRequestError with code "UNSUPPORTED", unless there is nothing to send.

        This holds even after the command has ended: the caller has to know that its data was not delivered.
        """
        await trio.lowlevel.checkpoint()
        if data:
            raise AgentRequestError(
                request="exec",
                code="UNSUPPORTED",
                message="qemu-ga accepts stdin only when it starts a command; pass it then (vmpool run --stdin-first), "
                'put a file for the command to read, or use agent = "builtin"',
            )

    async def close_stdin(self) -> None:
        """Does nothing: stdin is closed from the start."""
        await trio.lowlevel.checkpoint()

    async def send_signal(self, number: int) -> None:
        """Signals the process. Raises ValueError if `number` is not a signal's, AgentError."""
        await trio.lowlevel.checkpoint()
        if not 1 <= number <= 64:
            raise ValueError(f"signal: {number} is out of range; it must be between 1 and 64")
        if not self._over.is_set():
            await execution.send_signal(self._channel, self._pid, number, request="exec")
            self._look.set()

    def events(self) -> AsyncIterator[Output | CommandExit]:
        """See the contract. One consumer; ends after the CommandExit, or when the command is closed."""
        return _Events(self)

    async def aclose(self) -> None:
        """Kills the process if it still runs. Idempotent; never raises AgentError.

        The kill is queued before the first await, so it is sent even under cancellation; its effect is not awaited.
        """
        if not self._closed:
            self._closed = True
            self._events.clear()
            if not self._over.is_set():
                number = signal.SIGKILL
                kill = partial(execution.send_signal, self._channel, self._pid, number, request="exec")
                self._channel.undo_soon(kill)
                self._over.set()
        await trio.lowlevel.checkpoint()

    async def next_event(self) -> Output | CommandExit | None:
        """The next event, None at the end. Raises AgentError, NoRoomError."""
        await self._over.wait()
        if self._closed:
            return None
        if self._error is not None:
            raise self._error
        return self._events.popleft() if self._events else None

    async def _until_ended(self) -> Ended:
        began = trio.current_time()
        pause_s = FIRST_PAUSE_S
        while (end := await execution.ended(self._channel, self._pid, request="exec")) is None:
            left_s = self._time_left_s(began)
            if left_s <= 0:
                self._timed_out = True
                await execution.send_signal(self._channel, self._pid, signal.SIGKILL, request="exec")
                pause_s = FIRST_PAUSE_S
                left_s = LAST_PAUSE_S
            with trio.move_on_after(min(pause_s, left_s)) as pause:
                await self._look.wait()
            if not pause.cancelled_caught:
                self._look = trio.Event()
                pause_s = FIRST_PAUSE_S
            pause_s = min(pause_s * 2, LAST_PAUSE_S)
        return end

    def _time_left_s(self, began: float) -> float:
        if self._time_limit_s is None or self._timed_out:
            return LAST_PAUSE_S
        return began + self._time_limit_s - trio.current_time()

    def _end(self, end: Ended) -> None:
        """Raises NoRoomError."""
        if self._closed:
            return
        self._room.take(len(end.stdout) + len(end.stderr))
        for stream, data in ((OutputStream.STDOUT, end.stdout), (OutputStream.STDERR, end.stderr)):
            if data:
                self._events.append(Output(stream=stream, data=data))
        if end.cut:
            self._error = AgentRequestError(
                request="exec",
                code="EFBIG",
                message="qemu-ga cut the command's output short; have it write to a file, and get that file",
            )
        timed_out = self._timed_out and end.signal == signal.SIGKILL
        self._events.append(CommandExit(status=end.status, signal=end.signal, timed_out=timed_out))


class _Events(AsyncIterator[Output | CommandExit]):
    # Not an async generator: a caller may leave the loop early without closing it.

    def __init__(self, command: QgaCommand) -> None:
        self._command = command

    async def __anext__(self) -> Output | CommandExit:
        event = await self._command.next_event()
        if event is None:
            raise StopAsyncIteration
        return event
