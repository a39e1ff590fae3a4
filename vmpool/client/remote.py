"""A command in a leased VM, on the client's side."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Final

import trio

from vmpool.client.connection import Connection
from vmpool.client.convert import command_event
from vmpool.client.errors import CallError, ClientError
from vmpool.client.exchange import ClientStream, Replies, receive, send
from vmpool.client.records import CommandExit, CompletedCommand, Output, OutputStream
from vmpool.wire.generated.vmpool import v1 as wire

LATE_END_S: Final = 10.0
"""How long after a command's time limit the service's report of its end is waited for."""


class RemoteCommand:
    """A running command; `Client.exec` makes it, and kills it at the end of its block if it still runs.

    One task may send while another one receives. Errors are raised by `events` and the methods built on it; once the
    call is over, the sending methods do nothing.
    """

    def __init__(self, connection: Connection, stream: ClientStream, *, time_limit_s: float | None) -> None:
        self._connection = connection
        self._stream = stream
        self._time_limit_s = time_limit_s or math.inf
        self._limit_at = trio.current_time() + self._time_limit_s
        self._over = False

    async def wait_started(self) -> None:
        """Returns when the service reports the start. Raises ClientError."""
        first = await self._receive()
        if first is None or first.started is None:
            raise CallError(status="INTERNAL", message="the service did not start the command; see its log")
        self._limit_at = trio.current_time() + self._time_limit_s

    async def send_stdin(self, data: bytes) -> None:
        """Waits while the guest process does not read."""
        if data:
            await self._send(wire.ExecRequest(stdin=data))

    async def close_stdin(self) -> None:
        await self._send(wire.ExecRequest(close_stdin=wire.CloseStdin()))

    async def send_signal(self, number: int) -> None:
        """Signals the command's process group."""
        await self._send(wire.ExecRequest(signal=number))

    def events(self) -> AsyncIterator[Output | CommandExit]:
        """Output in order per stream, then the CommandExit. Unread output keeps the guest process waiting.

        May be iterated once. Raises ClientError; CallError ABORTED if the lease ended, DEADLINE_EXCEEDED if the service
        reports no end within LATE_END_S of the command's time limit.
        """
        return Replies(self._next)

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
        patience = trio.CancelScope(deadline=max(self._limit_at, trio.current_time()) + LATE_END_S)
        with patience:
            reply: wire.ExecReply | None = await self._connection.call(receive, self._stream)
        if patience.cancelled_caught:
            raise CallError(
                status="DEADLINE_EXCEEDED",
                message=f"no report of the command's end within {LATE_END_S:g} s of its time limit, "
                f"{self._time_limit_s:g} s; its VM may no longer answer: release the lease, and see the service's log",
            )
        return reply

    async def wait(self) -> CommandExit:
        """Drops the output; returns how the command ended."""
        ended = None
        async for event in self.events():
            if isinstance(event, CommandExit):
                ended = event
        return _known(ended)

    async def collect(self) -> CompletedCommand:
        """Receives all output, in memory and without a limit, and returns it with the exit."""
        output = {stream: bytearray() for stream in OutputStream}
        ended = None
        async for event in self.events():
            match event:
                case Output(stream=stream, data=data):
                    output[stream] += data
                case CommandExit():
                    ended = event
        return CompletedCommand(
            exit=_known(ended), stdout=bytes(output[OutputStream.STDOUT]), stderr=bytes(output[OutputStream.STDERR])
        )

    async def _send(self, request: wire.ExecRequest) -> None:
        if self._over:
            return
        try:
            await self._connection.call(send, self._stream, request)
        except ClientError:
            self._over = True


def _known(ended: CommandExit | None) -> CommandExit:
    if ended is None:
        raise CallError(status="INTERNAL", message="the service did not report how the command ended; see its log")
    return ended
