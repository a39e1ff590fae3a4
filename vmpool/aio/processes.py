"""Processes that go on without the program that started them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal as signals
from collections.abc import AsyncIterator
from typing import Final

from vmpool.client import methods
from vmpool.client.again import again, may_pass
from vmpool.client.chunks import Chunks, pieces
from vmpool.client.connection import ANSWER_LIMIT_S, Connection
from vmpool.client.convert import command_exit, terminal_size
from vmpool.client.convert_guest import process_info
from vmpool.client.errors import CallError, ClientError, service_fault
from vmpool.client.exchange import Call, Replies
from vmpool.client.opening import Opening, Resource, internal
from vmpool.client.records import CommandExit, KeptOutput, OutputStream, ProcessInfo, ProcessOutput
from vmpool.wire.generated.vmpool import v1 as wire

ABANDON_LIMIT_S: Final = 5.0


class Attachment(Resource):
    """A view of a detached process; its end leaves the process alone.

    If the connection breaks because the service restarts, it goes on from where it was, for up to `reconnect_s`
    seconds, without loss but for what is not kept.
    """

    def __init__(
        self,
        connection: Connection,
        process: wire.ProcessRef,
        *,
        positions: dict[OutputStream, int] | None,
        reconnect_s: float,
    ) -> None:
        self._connection = connection
        self._process = process
        self._positions = positions
        self._reconnect_s = reconnect_s
        self._call: Call | None = None
        self._info: ProcessInfo | None = None
        self._exit: CommandExit | None = None

    @property
    def info(self) -> ProcessInfo:
        """The process as it was when the block began, or the connection was made again."""
        assert self._info is not None
        return self._info

    def events(self) -> AsyncIterator[ProcessOutput | CommandExit]:
        """Output from where it began, then the CommandExit. A slow reader does not keep the process waiting: what is
        not kept any more is skipped, and `lost` counts it. Raises ClientError.
        """
        return Replies(self._next)

    async def wait(self) -> CommandExit:
        """Drops the output; returns how the process ended."""
        async for event in self.events():
            if isinstance(event, CommandExit):
                return event
        raise service_fault("did not report how the process ended")

    async def send_stdin(self, data: bytes) -> None:
        """Waits while the process does not read. What is still on its way when the block ends may be lost;
        `DetachedProcess.send_input` returns when the guest has it.
        """
        if data:
            await self._send(wire.AttachRequest(stdin=data))

    async def close_stdin(self) -> None:
        """No more stdin, for anybody."""
        await self._send(wire.AttachRequest(close_stdin=wire.CloseStdin()))

    async def send_signal(self, number: int) -> None:
        """Signals the process group."""
        await self._send(wire.AttachRequest(signal=number))

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal."""
        await self._send(wire.AttachRequest(resize=terminal_size(rows, columns)))

    @internal
    async def begin(self) -> None:
        """Called by what opens it."""
        await self._end_call()
        positions = self._positions
        call = await self._connection.open(methods.ATTACH)
        try:
            start = wire.AttachStart(process=self._process, from_now=positions is None)
            if positions is not None:
                start.stdout_from = positions[OutputStream.STDOUT]
                start.stderr_from = positions[OutputStream.STDERR]
            await call.send(wire.AttachRequest(start=start))
            first = await call.receive()
            info = process_info(None if first is None else first.process)
        except BaseException:
            await call.aclose()
            raise
        self._call, self._info = call, info
        if positions is None:
            self._positions = {OutputStream.STDOUT: info.stdout_end, OutputStream.STDERR: info.stderr_end}

    @internal
    async def end(self) -> None:
        """Called at the end of what opens it."""
        await self._end_call()

    async def _end_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            await call.aclose()

    async def _next(self) -> ProcessOutput | CommandExit | None:
        while self._exit is None:
            try:
                reply = None if self._call is None else await self._call.receive()
            except ClientError as error:
                if not may_pass(error):
                    raise
                await again(self.begin, within_s=self._reconnect_s, after=error)
                continue
            match reply:
                case None:
                    return None
                case wire.AttachReply(stdout=wire.ProcessOutput() as piece):
                    return self._output(OutputStream.STDOUT, piece)
                case wire.AttachReply(stderr=wire.ProcessOutput() as piece):
                    return self._output(OutputStream.STDERR, piece)
                case wire.AttachReply(exit=wire.ExecExit() as ended):
                    self._exit = command_exit(ended)
                    return self._exit
                case _:
                    continue  # of a newer service
        return None

    def _output(self, stream: OutputStream, piece: wire.ProcessOutput) -> ProcessOutput:
        assert self._positions is not None
        lost = max(piece.position - self._positions[stream], 0)
        self._positions[stream] = piece.position + len(piece.data)
        return ProcessOutput(stream=stream, data=piece.data, position=piece.position, lost=lost)

    async def _send(self, request: wire.AttachRequest) -> None:
        if self._call is not None and self._exit is None:
            await self._call.send(request)


class DetachedProcess:
    """A process of `Vm.start`, which belongs to the lease, not to a program or a connection.

    All methods raise what those of Vm do; CallError NOT_FOUND if the process was forgotten.
    """

    def __init__(self, connection: Connection, lease_id: str, info: ProcessInfo, *, reconnect_s: float) -> None:
        self._connection = connection
        self._info = info
        self._reconnect_s = reconnect_s
        self._ref = wire.ProcessRef(lease_id=lease_id, process_id=info.process_id)

    def __repr__(self) -> str:
        return f"<DetachedProcess {self._info.process_id}{f' {self._info.tag!r}' if self._info.tag else ''}>"

    @property
    def info(self) -> ProcessInfo:
        """As it was when it was started, or found."""
        return self._info

    @property
    def process_id(self) -> int:
        """Of the VM; never used again."""
        return self._info.process_id

    @property
    def pid(self) -> int:
        """In the guest."""
        return self._info.pid

    @property
    def tag(self) -> str:
        """As its caller named it; empty for none."""
        return self._info.tag

    def attach(self, from_: int | tuple[int, int] | None = 0) -> Opening[Attachment]:
        """Follows its output, and may send it input, for the length of a block.

        `from_` is the position of the first byte, of stdout and stderr alike or of each: 0 for all that is kept. None:
        from now on.
        """
        positions = None
        if from_ is not None:
            stdout, stderr = from_ if isinstance(from_, tuple) else (from_, from_)
            positions = {OutputStream.STDOUT: stdout, OutputStream.STDERR: stderr}

        async def begin(ends: contextlib.AsyncExitStack) -> Attachment:
            attachment = Attachment(self._connection, self._ref, positions=positions, reconnect_s=self._reconnect_s)
            ends.push_async_callback(attachment.end)
            await attachment.begin()
            return attachment

        return Opening(begin)

    async def wait(self, timeout: float | None = None) -> CommandExit:
        """Waits for its end, also over a restart of the service. CallTimeoutError, which is a TimeoutError, if it still
        runs after `timeout` seconds.
        """

        async def wait() -> CommandExit:
            request = wire.WaitProcessRequest(process=self._ref)
            reply = await self._connection.ask(
                methods.WAIT_PROCESS, request, timeout_s=math.inf if timeout is None else timeout
            )
            if reply.exit is None:
                raise service_fault("did not report how the process ended")
            return command_exit(reply.exit)

        try:
            return await wait()
        except ClientError as error:
            if not may_pass(error):
                raise
            return await again(wait, within_s=self._reconnect_s, after=error)

    async def output(self) -> KeptOutput:
        """What it has written so far, as far as it is kept: at most the last `keep_bytes` of each stream."""
        kept = {stream: bytearray() for stream in OutputStream}
        async with self.attach() as attachment:
            info = attachment.info
            ends = {OutputStream.STDOUT: info.stdout_end, OutputStream.STDERR: info.stderr_end}
            begins = {OutputStream.STDOUT: info.stdout_kept_from, OutputStream.STDERR: info.stderr_kept_from}
            reached = dict(begins)
            events = attachment.events()
            while any(reached[stream] < ends[stream] for stream in OutputStream):
                event = await anext(events, None)
                if not isinstance(event, ProcessOutput):
                    break
                if event.position > reached[event.stream]:  # it was overwritten while we read
                    kept[event.stream].clear()
                    begins[event.stream] = event.position
                kept[event.stream] += event.data
                reached[event.stream] = event.position + len(event.data)
        return KeptOutput(
            stdout=bytes(kept[OutputStream.STDOUT]),
            stderr=bytes(kept[OutputStream.STDERR]),
            stdout_from=begins[OutputStream.STDOUT],
            stderr_from=begins[OutputStream.STDERR],
        )

    async def send_input(self, data: Chunks, *, close: bool = False) -> None:
        """Writes to its stdin, or its terminal; returns when the guest has taken all bytes. With `close`, stdin is
        closed afterwards. FAILED_PRECONDITION if it is closed. If cancelled, a part may have been written.
        """
        async for piece in pieces(data):
            request = wire.SendInputRequest(process=self._ref, data=piece)
            await self._connection.ask(methods.SEND_INPUT, request, timeout_s=math.inf)
        if close:
            request = wire.SendInputRequest(process=self._ref, close=True)
            await self._connection.ask(methods.SEND_INPUT, request, timeout_s=ANSWER_LIMIT_S)

    async def signal(self, number: int, *, everything: bool = False) -> None:
        """Signals its process group; with `everything`, all that it has started, in whatever group. FAILED_PRECONDITION
        if it has ended.
        """
        request = wire.SignalRequest(process=self._ref, signal=number, everything=everything)
        await self._connection.ask(methods.SIGNAL, request, timeout_s=ANSWER_LIMIT_S)

    async def kill(self) -> None:
        """SIGKILL for all that it has started; nothing if it has ended."""
        try:
            await self.signal(signals.SIGKILL, everything=True)
        except CallError as error:
            if error.status != "FAILED_PRECONDITION":
                raise

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal. FAILED_PRECONDITION if it has none, or has ended."""
        request = wire.ResizeTerminalRequest(process=self._ref, terminal=terminal_size(rows, columns))
        await self._connection.ask(methods.RESIZE_TERMINAL, request, timeout_s=ANSWER_LIMIT_S)

    async def forget(self) -> None:
        """Drops what is kept of it. FAILED_PRECONDITION if it still runs."""
        await self._connection.ask(methods.FORGET, wire.ForgetRequest(process=self._ref), timeout_s=ANSWER_LIMIT_S)

    @internal
    async def abandon(self) -> None:
        """Ends and forgets it, for a caller that will not have it; gives up after ABANDON_LIMIT_S."""
        with contextlib.suppress(ClientError, TimeoutError):
            async with asyncio.timeout(ABANDON_LIMIT_S):
                await self.kill()
                await self.wait()
                await self.forget()
