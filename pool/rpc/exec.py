"""One Exec call: a command in a leased VM, with back-pressure in both directions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Final

import attrs
import trio

from pool.core.coordinator import Coordinator
from pool.ledger.records import Owner
from pool.rpc.calls import ServerStream, receive, send
from pool.rpc.convert import command_spec, exec_kind, exec_replies, signal_number
from pool.rpc.errors import InvalidRequestError, LeaseLostError, TimeLimitError
from pool.rpc.leases import lease_id_of
from pool.rpc.stream import guarded
from vmm.contract import Command, Vm
from vmm.errors import AgentProtocolError, AgentRequestError, AgentUnreachableError, VmExitedError
from vmm.words.commands import CommandSpec
from vmm.words.facts import Obstacle
from vmpool.wire.generated.vmpool import v1 as wire

FATE_LIMIT_S: Final = 2.0
"""How long to wait for the end of the lease of a VM that went silent. A dead VM's ends within two task switches."""

REACH_LIMIT_S: Final = 5.0
"""How long to wait for the guest of a restored lease to answer."""

LATE_END_S: Final = 8
"""How long a guest, which keeps the time limit, may be silent on a command after it. Less than a client waits, so that
the client gets this error."""


@attrs.define(eq=False, kw_only=True)
class ExecCall:
    """`run` answers the call to its end; cancelled, it kills the command."""

    stream: ServerStream
    coordinator: Coordinator
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
        if the user runs too many commands.
        """
        lease_id, self._spec = _read_start(await receive(self.stream))
        vm = await self.coordinator.wait_vm_of(lease_id, owner=self.owner, limit_s=REACH_LIMIT_S)
        with guarded(self.stream).user.exec(given=len(self._spec.stdin or b"")) as room:
            self._spec = attrs.evolve(self._spec, room=room)
            await self._run_in(vm, lease_id)

    async def _run_in(self, vm: Vm, lease_id: str) -> None:
        assert self._spec is not None
        given = self._spec.stdin is not None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_lease, lease_id)
                if self._spec.time_limit_s is not None:
                    nursery.start_soon(self._watch_time, self._spec.time_limit_s)
                command = await _start(vm, self._spec)
                self._spec = None
                try:
                    await send(self.stream, wire.ExecReply(started=wire.ExecStarted()))
                    nursery.start_soon(partial(self._feed, command, given=given))
                    await self._tell(command)
                finally:
                    await command.aclose()
                nursery.cancel_scope.cancel(reason="the command has ended")
        except* (AgentProtocolError, AgentUnreachableError, VmExitedError) as silence:
            # Usually the VM has died or is lost, and its lease is about to end, which is the better error.
            with trio.move_on_after(FATE_LIMIT_S):
                raise LeaseLostError(await self.coordinator.wait_lease_ended(lease_id, owner=self.owner)) from silence
            raise

    async def _watch_lease(self, lease_id: str) -> None:
        raise LeaseLostError(await self.coordinator.wait_lease_ended(lease_id, owner=self.owner))

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
        """Passes requests on. The end of the requests closes stdin, as `close_stdin` does.

        `given`: stdin came with the start.
        """
        closed = False
        while (request := await receive(self.stream)) is not None:
            match exec_kind(request):
                case "stdin":
                    if given:
                        raise InvalidRequestError(
                            field="stdin", reason="was already sent in start.stdin; use one of the two"
                        )
                    if closed:
                        raise InvalidRequestError(field="stdin", reason="came after close_stdin; send it before")
                    await command.send_stdin(request.stdin)
                case "close_stdin":
                    closed = True
                    await command.close_stdin()
                case "signal":
                    await command.send_signal(signal_number(request.signal))
                case _:
                    raise InvalidRequestError(field="start", reason="was already sent; use one call for each command")
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
    if request is None or exec_kind(request) != "start" or request.start is None:
        raise InvalidRequestError(field="start", reason="must be the first message of the call")
    return lease_id_of(request.start, field="start.lease_id"), command_spec(request.start)


_PARTS: Final[Mapping[str, str]] = {"program": "start.argv[0]", "working_directory": "start.working_directory"}
"""The agent's names of a command's parts, as fields of the request."""


async def _start(vm: Vm, spec: CommandSpec) -> Command:
    """Raises InvalidRequestError if a field of the request is the reason; other refusals unchanged."""
    try:
        return await vm.agent.start_command(spec)
    except AgentRequestError as error:
        if error.obstacle is not Obstacle.REQUEST:
            raise
        if error.code == "E2BIG":
            reason = "are together too large for the guest to start a program; use a file"
            raise InvalidRequestError(field="start.argv and start.environment", reason=reason) from error
        if error.part not in _PARTS:
            raise
        reason = f"cannot be used: {error.code}: {error.message}"
        raise InvalidRequestError(field=_PARTS[error.part], reason=reason) from error
