"""One Attach call: a process of a leased VM is followed, and sent input."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import attrs

from pool.ledger.records import Owner
from pool.rpc.calls import ServerStream, receive, send
from pool.rpc.errors import InvalidRequestError
from pool.rpc.machine.guests import Guest, Guests
from pool.rpc.machine.input import input_kind, pass_on_input
from pool.rpc.machine.process_messages import attach_replies, process_message, process_ref
from pool.rpc.machine.statuses import PROCESSES
from pool.rpc.stream import guarded
from vmm.words.commands import Room
from vmm.words.guest_processes import Positions
from vmpool.wire.generated.vmpool import v1 as wire


@attrs.frozen(kw_only=True)
class AttachCall:
    """`run` answers the call to its end, which leaves the process alone."""

    stream: ServerStream
    guests: Guests
    owner: Owner

    async def run(self) -> None:
        start = _read_start(await receive(self.stream))
        lease_id, _ = process_ref("start.process", start.process)
        with guarded(self.stream).user.guest_stream() as room:
            async with self.guests.of(lease_id, owner=self.owner, statuses=PROCESSES) as guest:
                await self._follow(guest, start, room)

    async def _follow(self, guest: Guest, start: wire.AttachStart, room: Room) -> None:
        _, process = process_ref("start.process", start.process)
        attached = await guest.agent.processes.attach(process, positions=_positions_of(start), room=room)
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


def _read_start(request: wire.AttachRequest | None) -> wire.AttachStart:
    if request is None or input_kind(request) != "start" or request.start is None:
        raise InvalidRequestError(field="start", reason="must be the first message of the call")
    return request.start


def _positions_of(start: wire.AttachStart) -> Positions | None:
    """None: from now on."""
    if not start.from_now:
        return Positions(stdout=start.stdout_from, stderr=start.stderr_from)
    if start.stdout_from or start.stderr_from:
        raise InvalidRequestError(field="start.from_now", reason="was set together with a position; set one of the two")
    return None
