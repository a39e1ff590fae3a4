"""Processes on the wire: references to them, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterable

from pool.rpc.arguments import check_no_nul
from pool.rpc.errors import InvalidRequestError, sendable
from pool.rpc.leases import lease_id_of
from pool.rpc.machine.commands import exit_message, pieces
from pool.rpc.machine.fields import kind_of
from vmm.words.commands import CommandExit, OutputStream
from vmm.words.guest_processes import MAX_TAG_BYTES, ProcessInfo, ProcessOutput, ProcessRef
from vmpool.wire.generated.vmpool import v1 as wire


def process_ref(field: str, process: wire.ProcessRef | None) -> tuple[str, ProcessRef]:
    """The lease id, and the process. Raises InvalidRequestError."""
    if process is None:
        raise InvalidRequestError(field=field, reason="is missing; name a process")
    lease_id = lease_id_of(process.lease_id, field=f"{field}.lease_id")
    match kind_of(process, "process_id", "tag", field=field):
        case "process_id":
            if not process.process_id:
                raise InvalidRequestError(field=f"{field}.process_id", reason="is 0; use the one that Start returned")
            return lease_id, ProcessRef(process_id=process.process_id)
        case _:
            if not process.tag:
                raise InvalidRequestError(field=f"{field}.tag", reason="is empty; use the one that Start was given")
            return lease_id, ProcessRef(tag=tag_of(f"{field}.tag", process.tag))


def tag_of(field: str, tag: str) -> str:
    size = len(tag.encode())
    if size > MAX_TAG_BYTES:
        raise InvalidRequestError(field=field, reason=f"has {size} bytes; at most {MAX_TAG_BYTES} are allowed")
    check_no_nul(field, tag)
    return tag


def process_message(info: ProcessInfo) -> wire.ProcessInfo:
    return wire.ProcessInfo(
        process_id=info.process_id,
        pid=info.pid,
        tag=sendable(info.tag),
        argv=[sendable(word) for word in info.argv],
        working_directory=sendable(info.working_directory),
        user=sendable(info.user),
        terminal=info.terminal,
        attached=info.attached,
        started_ns=info.started_ns,
        exit=None if info.exit is None else exit_message(info.exit),
        stdout_end=info.stdout_end,
        stdout_kept_from=info.stdout_kept_from,
        stderr_end=info.stderr_end,
        stderr_kept_from=info.stderr_kept_from,
    )


def attach_replies(event: ProcessOutput | CommandExit) -> Iterable[wire.AttachReply]:
    if isinstance(event, CommandExit):
        return (wire.AttachReply(exit=exit_message(event)),)
    outputs = (wire.ProcessOutput(position=event.position + start, data=piece) for start, piece in pieces(event.data))
    if event.stream is OutputStream.STDOUT:
        return (wire.AttachReply(stdout=output) for output in outputs)
    return (wire.AttachReply(stderr=output) for output in outputs)
