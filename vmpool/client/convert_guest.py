"""Conversion of what goes on in a guest: commands, processes, files, ports, usage."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Final

from vmpool.client.convert import command_exit, word
from vmpool.client.errors import CallError, service_fault
from vmpool.client.kinds import FileChangeKind, FileKind
from vmpool.client.records import FileChange, FileInfo, ProcessInfo, VmMetrics
from vmpool.client.requests import Command, GuestFile, Limit, Terminal, WriteMode
from vmpool.wire.generated.vmpool import v1 as wire

GuestPath = str | bytes | os.PathLike[str]
"""Absolute, in the guest. A str is UTF-8, with surrogates for other bytes, as `os.fsdecode` makes them."""

NO_LIMIT: Final = 2**64 - 1

MAX_PORT: Final = 2**16 - 1

WRITE_MODES: Final[Mapping[WriteMode, wire.WriteMode]] = {
    WriteMode.REPLACE: wire.WriteMode.REPLACE,
    WriteMode.CREATE: wire.WriteMode.CREATE,
    WriteMode.TRUNCATE: wire.WriteMode.TRUNCATE,
    WriteMode.UPDATE: wire.WriteMode.UPDATE,
    WriteMode.APPEND: wire.WriteMode.APPEND,
}


def to_path(path: GuestPath) -> bytes:
    if isinstance(path, bytes):
        return path
    return os.fspath(path).encode("utf-8", "surrogateescape")


def from_path(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def exec_start(
    lease_id: str,
    command: Command,
    *,
    environment: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    user: str,
    groups: Sequence[str],
    timeout: float | None,
    limits: Mapping[str, Limit] | None,
    terminal: Terminal | None,
    leave_children: bool,
    stdin: bytes = b"",
) -> wire.ExecStart:
    """A str is a line for the guest's shell, a sequence is program and arguments. CallError for a time limit of 0 or
    less, which would be none on the wire.
    """
    if timeout is not None and not timeout > 0:
        raise _invalid(f"timeout: {timeout:g} is not a time limit; set seconds above 0, or None for no limit")
    return wire.ExecStart(
        lease_id=lease_id,
        argv=[] if isinstance(command, str) else [os.fsdecode(word) for word in command],
        shell=command if isinstance(command, str) else "",
        environment=dict(environment or {}),
        working_directory=os.fsdecode(cwd or ""),
        time_limit_ms=0 if timeout in (None, math.inf) else math.ceil(timeout * 1000),
        stdin=stdin,
        user=user,
        groups=list(groups),
        limits=[_limit(name, limit) for name, limit in (limits or {}).items()],
        terminal=None
        if terminal is None
        else wire.Terminal(rows=terminal.rows, columns=terminal.columns, term=terminal.term),
        leave_children=leave_children,
    )


def spelled(command: Command) -> str:
    """A command in a message."""
    return command if isinstance(command, str) else " ".join(map(os.fsdecode, command))


def _limit(name: str, limit: Limit) -> wire.ResourceLimit:
    soft, hard = limit if isinstance(limit, tuple) else (limit, limit)
    return wire.ResourceLimit(
        name=name, soft=NO_LIMIT if soft is None else soft, hard=NO_LIMIT if hard is None else hard
    )


def guest_files(files: Mapping[str, str | bytes] | Sequence[GuestFile] | None) -> tuple[GuestFile, ...]:
    if not isinstance(files, Mapping):
        return tuple(files or ())
    return tuple(
        GuestFile(path=path, data=data.encode() if isinstance(data, str) else data) for path, data in files.items()
    )


def process_info(info: wire.ProcessInfo | None) -> ProcessInfo:
    """Raises CallError if it is missing."""
    if info is None:
        raise service_fault("sent no process in its reply")
    return ProcessInfo(
        process_id=info.process_id,
        pid=info.pid,
        tag=info.tag,
        argv=tuple(info.argv),
        working_directory=info.working_directory,
        user=info.user,
        terminal=info.terminal,
        attached=info.attached,
        started_at=info.started_ns / 1e9,
        exit=None if info.exit is None else command_exit(info.exit),
        stdout_end=info.stdout_end,
        stdout_kept_from=info.stdout_kept_from,
        stderr_end=info.stderr_end,
        stderr_kept_from=info.stderr_kept_from,
    )


def file_info(info: wire.FileInfo | None) -> FileInfo:
    """Raises CallError if it is missing."""
    if info is None:
        raise service_fault("sent no file in its reply")
    return FileInfo(
        path=from_path(info.path),
        kind=word(FileKind, info.kind),
        size=info.size,
        mode=info.mode,
        uid=info.uid,
        gid=info.gid,
        user=info.user,
        group=info.group,
        modified_ns=info.modified_ns,
        target=from_path(info.target),
        links=info.links,
        inode=info.inode,
    )


def file_change(change: wire.FileChange) -> FileChange:
    return FileChange(
        kind=word(FileChangeKind, change.kind),
        path=from_path(change.path),
        target=from_path(change.target),
        directory=change.directory,
    )


def port_address(port_or_path: int | str, host: str = "") -> wire.PortAddress:
    """A number is a TCP port, a str the path of a Unix socket. CallError for what can be neither: `forward` uses the
    address when somebody connects, and nobody would be told then.
    """
    if isinstance(port_or_path, int):
        if not 0 <= port_or_path <= MAX_PORT:
            raise _invalid(f"port: {port_or_path} is not a TCP port; use 1 to {MAX_PORT}")
        return wire.PortAddress(tcp_port=port_or_path, host=host)
    if not os.fsdecode(port_or_path).startswith("/"):
        raise _invalid(f"port: {port_or_path!r} is not a port, nor the absolute path of a Unix socket")
    return wire.PortAddress(unix_path=to_path(port_or_path))


def check_tcp(host: str, port: int) -> None:
    """An address on this host. CallError for one that the system would take for another: no host for all of them, a
    port that is too large for what is left of it.
    """
    if not host:
        raise _invalid(f"host: is {host!r}; name an address of this host")
    if not 0 <= port <= MAX_PORT:
        raise _invalid(f"port: {port} is not a TCP port; use 0 to {MAX_PORT}")


def _invalid(message: str) -> CallError:
    """As the service would refuse it."""
    return CallError(status="INVALID_ARGUMENT", message=message)


def vm_metrics(reply: wire.VmMetricsReply) -> VmMetrics:
    return VmMetrics(
        cpus_online=reply.cpus_online,
        cpu_busy_s=reply.cpu_busy_ms / 1e3,
        cpu_idle_s=reply.cpu_idle_ms / 1e3,
        cpu_share=reply.cpu_share,
        memory_total_bytes=reply.memory_total_bytes,
        memory_available_bytes=reply.memory_available_bytes,
        processes=reply.processes,
        load_1m=reply.load_1m,
        disk_total_bytes=reply.disk_total_bytes,
        disk_available_bytes=reply.disk_available_bytes,
        uptime_s=reply.uptime_ms / 1e3,
        wall_clock_ns=reply.wall_clock_ns,
    )
