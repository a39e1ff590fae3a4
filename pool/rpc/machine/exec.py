"""One Exec call: a command in a leased VM, with back-pressure in both directions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

import attrs
import trio

from pool.ledger.records import Owner
from pool.rpc.calls import ServerStream, receive, send
from pool.rpc.errors import TimeLimitError
from pool.rpc.leases import lease_id_of
from pool.rpc.machine.commands import command_spec, exec_replies, starting
from pool.rpc.machine.fields import start_of
from pool.rpc.machine.guests import Guest, Guests
from pool.rpc.machine.input import INPUT_KINDS, pass_on_input
from pool.rpc.machine.statuses import COMMANDS
from pool.rpc.stream import guarded
from vmm.contract import Command
from vmm.words.commands import CommandSpec
from vmpool.wire.generated.vmpool import v1 as wire

LATE_END_S: Final = 8
"""How long a guest, which keeps the time limit, may be silent on a command after it. Less than a client waits, so that
the client gets this error."""


@attrs.define(eq=False, kw_only=True)
class ExecCall:
    """`run` answers the call to its end; cancelled, it kills the command."""

    stream: ServerStream
    guests: Guests
    owner: Owner
    _spec: CommandSpec | None = attrs.field(default=None, init=False)
    """Dropped once the command is started: it may have megabytes."""
    _heard: int = attrs.field(default=0, init=False)
    """Events of the command so far."""
    _passing_on: bool = attrs.field(default=False, init=False)
    """The call waits for the client, not for the guest."""

    async def run(self) -> None:
        """Raises InvalidRequestError, RefusedError, VmmError, LeaseLostError if the lease ends meanwhile,
        TimeLimitError if the guest does not report the command's end after its time limit, and GRPCError or NoRoomError
        if the user has too many streams.
        """
        lease_id, self._spec = _read_start(await receive(self.stream))
        with guarded(self.stream).user.guest_stream(given=len(self._spec.stdin or b"")) as room:
            self._spec = attrs.evolve(self._spec, room=room)
            async with self.guests.of(lease_id, owner=self.owner, statuses=COMMANDS) as guest:
                await self._run_in(guest)

    async def _run_in(self, guest: Guest) -> None:
        assert self._spec is not None
        given = self._spec.stdin is not None
        if self._spec.time_limit_s is not None:
            guest.nursery.start_soon(self._watch_time, self._spec.time_limit_s)
        with starting(self._spec, field="start"):
            command = await guest.agent.start_command(self._spec)
        self._spec = None
        async with contextlib.aclosing(command):
            started = wire.ExecStarted(process_id=command.process_id, pid=command.pid)
            await send(self.stream, wire.ExecReply(started=started))
            guest.nursery.start_soon(partial(self._feed, command, given=given))
            await self._tell(command)

    async def _watch_time(self, limit_s: float) -> None:
        await trio.sleep(limit_s)
        silent_s = 0
        while silent_s < LATE_END_S:
            # In steps: after a standstill of the service, the guest's events arrive in the first step.
            heard = self._heard
            await trio.sleep(1)
            silent_s = 0 if self._passing_on or self._heard != heard else silent_s + 1
        raise TimeLimitError(limit_s=limit_s, silent_s=silent_s)

    async def _feed(self, command: Command, *, given: bool) -> None:
        """The end of the requests closes stdin, as `close_stdin` does."""
        await pass_on_input(self.stream, command, given=given)
        await command.close_stdin()

    async def _tell(self, command: Command) -> None:
        """Passes on the output and the exit. Sending waits for the client, which keeps the guest process waiting."""
        events = command.events()
        try:
            async for event in events:
                self._heard += 1
                self._passing_on = True
                for reply in exec_replies(event):
                    await send(self.stream, reply)
                self._passing_on = False
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()


def _read_start(request: wire.ExecRequest | None) -> tuple[str, CommandSpec]:
    start: wire.ExecStart = start_of(request, *INPUT_KINDS)
    return lease_id_of(start.lease_id, field="start.lease_id"), command_spec(start, field="start")
