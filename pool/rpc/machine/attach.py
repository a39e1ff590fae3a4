"""One Attach call: a process of a leased VM is followed, and sent input."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import attrs

from pool.ledger.records import Owner
from pool.rpc.calls import ServerStream, receive, send
from pool.rpc.errors import InvalidRequestError
from pool.rpc.machine.fields import start_of
from pool.rpc.machine.guests import Guest, Guests
from pool.rpc.machine.input import INPUT_KINDS, pass_on_input
from pool.rpc.machine.process_messages import attach_replies, process_message, process_ref
from pool.rpc.machine.statuses import PROCESSES
from pool.rpc.stream import guarded
from vmm.words.commands import Room
from vmm.words.guest_processes import Positions, ProcessRef
from vmpool.wire.generated.vmpool import v1 as wire


@attrs.frozen(kw_only=True)
class AttachCall:
    """`run` answers the call to its end, which leaves the process alone."""

    stream: ServerStream
    guests: Guests
    owner: Owner

    async def run(self) -> None:
        start: wire.AttachStart = start_of(await receive(self.stream), *INPUT_KINDS)
        lease_id, process = process_ref("start.process", start.process)
        with guarded(self.stream).user.guest_stream() as room:
            async with self.guests.of(lease_id, owner=self.owner, statuses=PROCESSES) as guest:
                await self._follow(guest, process, positions=_positions_of(start), room=room)

    async def _follow(self, guest: Guest, process: ProcessRef, *, positions: Positions | None, room: Room) -> None:
        attached = await guest.agent.processes.attach(process, positions=positions, room=room)
        async with contextlib.aclosing(attached):
            await send(self.stream, wire.AttachReply(process=process_message(attached.info)))
            guest.nursery.start_soon(pass_on_input, self.stream, attached)
            events = attached.events()
            try:
                async for event in events:
                    for reply in attach_replies(event):
                        await send(self.stream, reply)
            finally:
                if isinstance(events, AsyncGenerator):
                    await events.aclose()


def _positions_of(start: wire.AttachStart) -> Positions | None:
    """None: from now on."""
    if not start.from_now:
        return Positions(stdout=start.stdout_from, stderr=start.stderr_from)
    if start.stdout_from or start.stderr_from:
        raise InvalidRequestError(field="start.from_now", reason="was set together with a position; set one of the two")
    return None
