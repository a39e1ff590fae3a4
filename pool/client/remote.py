"""A command in a leased VM, from the caller's side."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pool.client.connection import Connection
from pool.client.convert import command_event
from pool.client.errors import CallError, ClientError
from pool.client.exchange import ClientStream, receive, send
from pool.client.records import CompletedCommand
from pool.client.replies import Replies
from pool.rpc.generated.vmpool import v1 as wire
from vmm.contract import CommandExit, Output, OutputStream


class RemoteCommand:
    """A running command; `Client.exec` makes it, and kills it at the end of its block if it still runs.

    One task may send while another one receives. What goes wrong is raised by `events` and what is built on it; the
    senders do nothing once the call is over, as writing to a pipe that nobody reads.
    """

    def __init__(self, connection: Connection, stream: ClientStream) -> None:
        self._connection = connection
        self._stream = stream
        self._over = False

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
        """Output in order per stream, then the CommandExit. What is not taken keeps the guest process waiting.

        May be iterated once. Raises ClientError; CallError ABORTED if the lease ended.
        """
        return Replies(self._next)

    async def _next(self) -> Output | CommandExit | None:
        while (reply := await self._connection.call(receive, self._stream)) is not None:
            event = command_event(reply)
            if isinstance(event, CommandExit):
                self._over = True
            if event is not None:
                return event
        self._over = True
        return None

    async def wait(self) -> CommandExit:
        """Receives and drops the output; returns how the command ended."""
        ended = None
        async for event in self.events():
            if isinstance(event, CommandExit):
                ended = event
        return _known(ended)

    async def collect(self) -> CompletedCommand:
        """Receives everything. The output is kept in memory, however much it is."""
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
        raise CallError(status="INTERNAL", message="the service did not say how the command ended; see its log")
    return ended
