"""The methods of vmpool.v1.Processes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import attrs
from grpclib.const import Cardinality, Handler, Status

from pool.rpc.calls import Calls, ServerStream, receive_only, reply, reply_long
from pool.rpc.errors import InvalidRequestError, guest_status
from pool.rpc.leases import lease_id_of
from pool.rpc.machine.attach import AttachCall
from pool.rpc.machine.commands import command_spec, exit_message, starting
from pool.rpc.machine.fields import signal_of, terminal_size_of
from pool.rpc.machine.guests import Guest, Guests
from pool.rpc.machine.process_messages import process_message, process_ref, tag_of
from pool.rpc.machine.statuses import PROCESSES
from pool.rpc.peer import current_owner
from vmm.errors import AgentRequestError
from vmm.words.commands import MAX_GIVEN_STDIN
from vmm.words.guest_processes import KEPT_BYTES, ProcessInfo, ProcessRef
from vmpool.wire.generated.vmpool import v1 as wire

_SERVICE: Final = "/vmpool.v1.Processes"


@attrs.define(eq=False, kw_only=True)
class ProcessesService(wire.ProcessesBase):
    """The methods as trio code; see `pool.rpc.service`."""

    guests: Guests
    calls: Calls

    def __mapping__(self) -> dict[str, Handler]:
        method = self.calls.method
        return {
            f"{_SERVICE}/Start": method(self.start_call, wire.StartRequest, wire.StartReply),
            f"{_SERVICE}/List": method(self.list_call, wire.ListProcessesRequest, wire.ListProcessesReply),
            f"{_SERVICE}/Attach": method(
                self.attach_call, wire.AttachRequest, wire.AttachReply, Cardinality.STREAM_STREAM
            ),
            f"{_SERVICE}/Wait": method(self.wait_call, wire.WaitProcessRequest, wire.WaitProcessReply),
            f"{_SERVICE}/SendInput": method(self.send_input_call, wire.SendInputRequest, wire.SendInputReply),
            f"{_SERVICE}/Signal": method(self.signal_call, wire.SignalRequest, wire.SignalReply),
            f"{_SERVICE}/Resize": method(self.resize_call, wire.ResizeTerminalRequest, wire.ResizeTerminalReply),
            f"{_SERVICE}/Forget": method(self.forget_call, wire.ForgetRequest, wire.ForgetReply),
        }

    async def start_call(self, stream: ServerStream) -> None:
        request: wire.StartRequest = await receive_only(stream)
        if request.process is None:
            raise InvalidRequestError(field="process", reason="is missing; say what to start")
        spec = command_spec(request.process, field="process")
        tag = tag_of("tag", request.tag)
        keep = _kept_bytes(request.keep_bytes)
        lease_id = lease_id_of(request.process.lease_id, field="process.lease_id")
        async with self.guests.of(lease_id, owner=current_owner(), statuses=PROCESSES) as guest:
            with starting(spec, field="process"):
                info = await guest.agent.processes.start(spec, tag=tag, keep=keep)
        await reply(stream, wire.StartReply(process=process_message(info)))

    async def list_call(self, stream: ServerStream) -> None:
        lease_id = lease_id_of((await receive_only(stream)).lease_id)
        async with self.guests.of(lease_id, owner=current_owner(), statuses=PROCESSES) as guest:
            found = await guest.agent.processes.list()
        await reply_long(stream, wire.ListProcessesReply(processes=[process_message(info) for info in found]))

    async def attach_call(self, stream: ServerStream) -> None:
        await AttachCall(stream=stream, guests=self.guests, owner=current_owner()).run()

    async def wait_call(self, stream: ServerStream) -> None:
        lease_id, process = process_ref("process", (await receive_only(stream)).process)
        async with self.guests.of(lease_id, owner=current_owner(), statuses=PROCESSES) as guest:
            ended = await guest.agent.processes.wait(process)
        await reply(stream, wire.WaitProcessReply(exit=exit_message(ended)))

    async def send_input_call(self, stream: ServerStream) -> None:
        request: wire.SendInputRequest = await receive_only(stream)
        lease_id, process = process_ref("process", request.process)
        if len(request.data) > MAX_GIVEN_STDIN:
            raise InvalidRequestError(
                field="data",
                reason=f"has {len(request.data)} bytes; the maximum is {MAX_GIVEN_STDIN}; send it in parts",
            )
        async with (
            self.guests.of(lease_id, owner=current_owner(), statuses=PROCESSES) as guest,
            _while_it_runs(guest, process),
        ):
            await guest.agent.processes.send_input(process, request.data, close=request.close)
        await reply(stream, wire.SendInputReply())

    async def signal_call(self, stream: ServerStream) -> None:
        request: wire.SignalRequest = await receive_only(stream)
        lease_id, process = process_ref("process", request.process)
        number = signal_of(request.signal)
        async with (
            self.guests.of(lease_id, owner=current_owner(), statuses=PROCESSES) as guest,
            _while_it_runs(guest, process),
        ):
            await guest.agent.processes.send_signal(process, number, everything=request.everything)
        await reply(stream, wire.SignalReply())

    async def resize_call(self, stream: ServerStream) -> None:
        request: wire.ResizeTerminalRequest = await receive_only(stream)
        lease_id, process = process_ref("process", request.process)
        if request.terminal is None:
            raise InvalidRequestError(field="terminal", reason="is missing; set its rows and columns")
        size = terminal_size_of("terminal", request.terminal)
        async with (
            self.guests.of(lease_id, owner=current_owner(), statuses=PROCESSES) as guest,
            _while_it_runs(guest, process),
        ):
            await guest.agent.processes.resize(process, size)
        await reply(stream, wire.ResizeTerminalReply())

    async def forget_call(self, stream: ServerStream) -> None:
        lease_id, process = process_ref("process", (await receive_only(stream)).process)
        async with self.guests.of(lease_id, owner=current_owner(), statuses=PROCESSES) as guest:
            await guest.agent.processes.forget(process)
        await reply(stream, wire.ForgetReply())


@contextlib.asynccontextmanager
async def _while_it_runs(guest: Guest, process: ProcessRef) -> AsyncIterator[None]:
    """For what needs a process that runs. A guest refuses one that has ended as one that never was; callers are told
    which it is.
    """
    try:
        yield
    except AgentRequestError as refusal:
        if refusal.code != "ESRCH" or not any(_is(process, info) for info in await guest.agent.processes.list()):
            raise
        raise guest_status(refusal, Status.FAILED_PRECONDITION) from refusal


def _is(process: ProcessRef, info: ProcessInfo) -> bool:
    return info.process_id == process.process_id if process.process_id else info.tag == process.tag


def _kept_bytes(keep: int) -> int:
    if keep > KEPT_BYTES:
        raise InvalidRequestError(field="keep_bytes", reason=f"{keep} is out of range; the maximum is {KEPT_BYTES}")
    return keep or KEPT_BYTES
