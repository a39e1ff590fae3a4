"""A command in a leased VM, on the client's side."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from vmpool.client import methods
from vmpool.client.connection import Connection
from vmpool.client.convert import command_event, terminal_size
from vmpool.client.errors import CallError, CallTimeoutError, ClientError, service_fault
from vmpool.client.exchange import Call, Replies
from vmpool.client.opening import Opening, Resource, internal
from vmpool.client.records import CommandExit, CompletedCommand, Output, OutputStream
from vmpool.wire.generated.vmpool import v1 as wire

LATE_END_S: Final = 10.0
"""How long after a command's time limit the service's report of its end is waited for."""

CHUNK_BYTES: Final = 64 * 1024
"""Of what is sent in pieces; one message of the wire."""

STDIN_AT_ONCE_BYTES: Final = 256 * 1024
"""What of stdin fits in the request that starts a command."""


class RemoteCommand(Resource):
    """A running command, which is killed at the end of its block if it still runs. `Process` is another name for it.

    One task may send while another one receives. Errors are raised by `events` and the methods built on it; once the
    call is over, the sending methods do nothing.
    """

    def __init__(self, call: Call, *, time_limit_s: float | None) -> None:
        self._call = call
        self._time_limit_s = time_limit_s or math.inf
        self._limit_at = asyncio.get_running_loop().time() + self._time_limit_s
        self._over = False
        self._process_id = 0
        self._pid = 0

    @property
    def process_id(self) -> int:
        """Of the VM; 0 if the guest's agent does not tell."""
        return self._process_id

    @property
    def pid(self) -> int:
        """In the guest; 0 if its agent does not tell."""
        return self._pid

    @internal
    async def wait_started(self) -> None:
        """Returns when the service reports the start. Raises ClientError."""
        first = await self._receive()
        if first is None or first.started is None:
            raise service_fault("did not start the command")
        self._process_id, self._pid = first.started.process_id, first.started.pid
        self._limit_at = asyncio.get_running_loop().time() + self._time_limit_s

    async def send_stdin(self, data: bytes) -> None:
        """Waits while the guest process does not read."""
        if data:
            await self._send(wire.ExecRequest(stdin=data))

    async def close_stdin(self) -> None:
        """No more stdin."""
        await self._send(wire.ExecRequest(close_stdin=wire.CloseStdin()))

    async def send_signal(self, number: int) -> None:
        """Signals the command's process group."""
        await self._send(wire.ExecRequest(signal=number))

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the size of the command's terminal; nothing if it has none."""
        await self._send(wire.ExecRequest(resize=terminal_size(rows, columns)))

    def events(self) -> AsyncIterator[Output | CommandExit]:
        """Output in order per stream, then the CommandExit. Unread output keeps the guest process waiting.

        May be iterated once. Raises ClientError; CallError ABORTED if the lease ended, DEADLINE_EXCEEDED if the service
        reports no end within LATE_END_S of the command's time limit.
        """
        return Replies(self._next)

    async def wait(self) -> CommandExit:
        """Drops the output; returns how the command ended."""
        ended = None
        async for event in self.events():
            if isinstance(event, CommandExit):
                ended = event
        return _known(ended)

    async def collect(self) -> CompletedCommand[bytes]:
        """Receives all output, in memory and without a limit, and returns it with the exit."""
        output = {stream: bytearray() for stream in OutputStream}

        async def keep(piece: Output) -> None:
            output[piece.stream] += piece.data

        ended = await self.feed(keep)
        return CompletedCommand(
            exit=ended, stdout=bytes(output[OutputStream.STDOUT]), stderr=bytes(output[OutputStream.STDERR])
        )

    @internal
    async def feed(self, take: Callable[[Output], Awaitable[object]]) -> CommandExit:
        """Gives each piece of output to `take`; returns how the command ended."""
        ended = None
        async for event in self.events():
            match event:
                case Output():
                    await take(event)
                case CommandExit():
                    ended = event
        return _known(ended)

    async def _next(self) -> Output | CommandExit | None:
        while (reply := await self._receive()) is not None:
            event = command_event(reply)
            if isinstance(event, CommandExit):
                self._over = True
            if event is not None:
                return event
        self._over = True
        return None

    async def _receive(self) -> wire.ExecReply | None:
        """The next reply. One that has arrived is returned however late it is; the wait for one is bounded."""
        now = asyncio.get_running_loop().time()
        limit_at = max(self._limit_at, now) + LATE_END_S
        patience = asyncio.timeout_at(None if limit_at == math.inf else limit_at)
        try:
            async with patience:
                reply: wire.ExecReply | None = await self._call.receive()
                return reply
        except TimeoutError as error:
            if not patience.expired() or isinstance(error, CallError):
                raise
            raise CallTimeoutError(
                status="DEADLINE_EXCEEDED",
                message=f"no report of the command's end within {LATE_END_S:g} s of its time limit, "
                f"{self._time_limit_s:g} s; its VM may no longer answer: release the lease, and see the service's log",
            ) from None

    async def _send(self, request: wire.ExecRequest) -> None:
        if self._over:
            return
        try:
            await self._call.send(request)
        except ClientError:
            self._over = True


Process = RemoteCommand
"""Its name beside Vm and Pool."""


def execute(
    connection: Connection, start: wire.ExecStart, *, time_limit_s: float | None, stdin: bytes | None
) -> Opening[RemoteCommand]:
    """A running command. `stdin` None: it may be sent while the command runs."""

    async def begin(ends: contextlib.AsyncExitStack) -> RemoteCommand:
        call = await connection.open(methods.EXEC)
        ends.push_async_callback(call.aclose)
        await call.send(wire.ExecRequest(start=start))
        command = RemoteCommand(call, time_limit_s=time_limit_s)
        await command.wait_started()
        if stdin is not None:  # the start cannot express an empty stdin
            await command.close_stdin()
        return command

    return Opening(begin)


def _known(ended: CommandExit | None) -> CommandExit:
    if ended is None:
        raise service_fault("did not report how the command ended")
    return ended
