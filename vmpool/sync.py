"""The SDK for plain programs and threads: calls block.

    with vmpool.sync.connect() as pool, pool.vm("default") as vm:
        print(vm.run("uname -a").stdout)

What is opened, a connection, a VM, a forward, is closed at the end of its block, or by `close()`. Any number of threads
may use one connection. Callbacks, and the pieces of an iterable that is written, run in the thread that calls. Ctrl-C
ends the call that waits, and what it had begun.

Made by scripts/faces of the asyncio face, which is where to look, and what to change.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from vmpool.aio.files import ByteReader as AioByteReader
from vmpool.aio.files import Files as AioFiles
from vmpool.aio.files import FileWatch as AioFileWatch
from vmpool.aio.files import Progress
from vmpool.aio.pool import ACQUIRE_TIMEOUT_S
from vmpool.aio.pool import Pool as AioPool
from vmpool.aio.pool import connect as aio_connect
from vmpool.aio.ports import WAIT_PORT_S
from vmpool.aio.ports import ByteStream as AioByteStream
from vmpool.aio.ports import Forward as AioForward
from vmpool.aio.ports import Ports as AioPorts
from vmpool.aio.processes import Attachment as AioAttachment
from vmpool.aio.processes import DetachedProcess as AioDetachedProcess
from vmpool.aio.standalone import READY_LIMIT_S
from vmpool.aio.standalone import standalone as aio_standalone
from vmpool.aio.vm import MAX_OUTPUT_BYTES, OutputCallback
from vmpool.aio.vm import Vm as AioVm
from vmpool.client.admin import AdminCalls as AioAdminCalls
from vmpool.client.chunks import BlockingChunks
from vmpool.client.convert_guest import GuestPath
from vmpool.client.errors import (
    CallError,
    CallTimeoutError,
    ClientError,
    CommandError,
    GuestConnectionRefusedError,
    GuestError,
    GuestFileExistsError,
    GuestFileNotFoundError,
    GuestIsADirectoryError,
    GuestNotADirectoryError,
    GuestPermissionError,
    GuestProcessNotFoundError,
    GuestTimeoutError,
    OutputTooLargeError,
    ServiceUnavailableError,
    UnsafeTreeError,
)
from vmpool.client.from_threads import BlockingResource, ThreadConnection, connecting
from vmpool.client.kinds import (
    CircuitState,
    EndReason,
    FileChangeKind,
    FileKind,
    LeaseChangeKind,
    ProducerKind,
    ProfileChangeKind,
    StopReason,
    VmState,
)
from vmpool.client.places import LocalPath
from vmpool.client.records import (
    AcquiredVm,
    AcquireTimings,
    Change,
    CommandExit,
    CompletedCommand,
    ConfinementLayer,
    FileChange,
    FileInfo,
    Guest,
    KeptOutput,
    LeaseChange,
    LeaseStatus,
    Match,
    Mismatch,
    Output,
    OutputStream,
    PoolCounters,
    ProcessInfo,
    ProcessOutput,
    ProducerStatus,
    ProfileChange,
    ProfileStatus,
    ServiceStatus,
    Snapshot,
    TreeSummary,
    VmChange,
    VmConfig,
    VmMetrics,
)
from vmpool.client.remote import RemoteCommand as AioRemoteCommand
from vmpool.client.requests import Command, GuestFile, Limit, OnEmpty, Terminal, Wishes, WriteMode
from vmpool.client.sdk import RECONNECT_S
from vmpool.client.sdk import PoolWatch as AioPoolWatch
from vmpool.client.sdk import ServiceCalls as AioServiceCalls


class AdminCalls:
    """Every method raises ClientError; CallError NOT_FOUND for an unknown profile or VM."""

    _core: AioAdminCalls

    def __init__(self, connection: ThreadConnection, core: AioAdminCalls) -> None:
        self._connection = connection
        self._core = core

    def resize(self, profile: str, size: int) -> None:
        """Changes the pool's size until the service restarts."""
        self._connection.run(self._core.resize, profile, size)

    def drain(self, profile: str) -> None:
        """Refuses requests for the profile and stops its idle VMs, until `undrain`. Leases continue."""
        self._connection.run(self._core.drain, profile)

    def undrain(self, profile: str) -> None:
        """Ends a `drain`."""
        self._connection.run(self._core.undrain, profile)

    def evict(self, vm_id: str) -> None:
        """Stops one idle VM; the pool replaces it. CallError FAILED_PRECONDITION if it is not idle."""
        self._connection.run(self._core.evict, vm_id)

    def evict_all(self, profile: str) -> None:
        """Replaces all idle VMs of a profile, a few at a time."""
        self._connection.run(self._core.evict_all, profile)

    def reset(self, profile: str) -> None:
        """Forgets a profile's failed productions: ends the back-off and closes the circuit."""
        self._connection.run(self._core.reset, profile)

    def hand_over(self) -> None:
        """Makes the service leave its idle and leased VMs to its successor, and end. Does not wait for its end."""
        self._connection.run(self._core.hand_over)


class RemoteCommand(BlockingResource):
    """A running command, which is killed at the end of its block if it still runs. `Process` is another name for it.

    One thread may send while another one receives. Errors are raised by `events` and the methods built on it; once the
    call is over, the sending methods do nothing.
    """

    _core: AioRemoteCommand

    def __init__(self, connection: ThreadConnection, core: AioRemoteCommand) -> None:
        self._connection = connection
        self._core = core

    @property
    def process_id(self) -> int:
        """Of the VM; 0 if the guest's agent does not tell."""
        return self._core.process_id

    @property
    def pid(self) -> int:
        """In the guest; 0 if its agent does not tell."""
        return self._core.pid

    def send_stdin(self, data: bytes) -> None:
        """Waits while the guest process does not read."""
        self._connection.run(self._core.send_stdin, data)

    def close_stdin(self) -> None:
        """No more stdin."""
        self._connection.run(self._core.close_stdin)

    def send_signal(self, number: int) -> None:
        """Signals the command's process group."""
        self._connection.run(self._core.send_signal, number)

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of the command's terminal; nothing if it has none."""
        self._connection.run(self._core.resize, rows, columns)

    def events(self) -> Iterator[Output | CommandExit]:
        """Output in order per stream, then the CommandExit. Unread output keeps the guest process waiting.

        May be iterated once. Raises ClientError; CallError ABORTED if the lease ended, DEADLINE_EXCEEDED if the service
        reports no end within LATE_END_S of the command's time limit.
        """
        return self._connection.iterator(self._core.events())

    def wait(self) -> CommandExit:
        """Drops the output; returns how the command ended."""
        return self._connection.run(self._core.wait)

    def collect(self) -> CompletedCommand[bytes]:
        """Receives all output, in memory and without a limit, and returns it with the exit."""
        return self._connection.run(self._core.collect)


class PoolWatch(BlockingResource):
    """Changes in the pools, as an iterator."""

    _core: AioPoolWatch

    def __init__(self, connection: ThreadConnection, core: AioPoolWatch) -> None:
        self._connection = connection
        self._core = core

    def __iter__(self) -> PoolWatch:
        return self

    def __next__(self) -> Change:
        return self._connection.step(self._core)


class ServiceCalls(AdminCalls, BlockingResource):
    """What can be asked of a service. Every method raises ClientError."""

    _core: AioServiceCalls

    def __init__(self, connection: ThreadConnection, core: AioServiceCalls) -> None:
        self._connection = connection
        self._core = core

    def console(self, vm_id: str) -> str:
        """The end of what a VM's guest wrote to its console, at most 64 KiB; not fit for a terminal as it is.

        CallError statuses: NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION if it is not up yet, or no longer up.
        """
        return self._connection.run(self._core.console, vm_id)

    def status(self) -> ServiceStatus:
        """The service, its pools, and the caller's leases."""
        return self._connection.run(self._core.status)

    def metrics(self) -> str:
        """What the service counts and measures, in Prometheus' text format."""
        return self._connection.run(self._core.metrics)

    def watch(self) -> PoolWatch:
        """Changes in the pools, for the length of a block: a Snapshot, then every change.

        A slow reader gets a new Snapshot in place of the changes it missed. Iterating raises ClientError; CallError
        RESOURCE_EXHAUSTED if there are too many watches.
        """
        return self._connection.open(self._core.watch(), lambda opened: PoolWatch(self._connection, opened))


class Attachment(BlockingResource):
    """A view of a detached process; its end leaves the process alone.

    If the connection breaks because the service restarts, it goes on from where it was, for up to `reconnect_s`
    seconds, without loss but for what is not kept.
    """

    _core: AioAttachment

    def __init__(self, connection: ThreadConnection, core: AioAttachment) -> None:
        self._connection = connection
        self._core = core

    @property
    def info(self) -> ProcessInfo:
        """The process as it was when the block began, or the connection was made again."""
        return self._core.info

    def events(self) -> Iterator[ProcessOutput | CommandExit]:
        """Output from where it began, then the CommandExit. A slow reader does not keep the process waiting: what is
        not kept any more is skipped, and `lost` counts it. Raises ClientError.
        """
        return self._connection.iterator(self._core.events())

    def wait(self) -> CommandExit:
        """Drops the output; returns how the process ended."""
        return self._connection.run(self._core.wait)

    def send_stdin(self, data: bytes) -> None:
        """Waits while the process does not read. What is still on its way when the block ends may be lost;
        `DetachedProcess.send_input` returns when the guest has it.
        """
        self._connection.run(self._core.send_stdin, data)

    def close_stdin(self) -> None:
        """No more stdin, for anybody."""
        self._connection.run(self._core.close_stdin)

    def send_signal(self, number: int) -> None:
        """Signals the process group."""
        self._connection.run(self._core.send_signal, number)

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal."""
        self._connection.run(self._core.resize, rows, columns)


class DetachedProcess:
    """A process of `Vm.start`, which belongs to the lease, not to a program or a connection.

    All methods raise what those of Vm do; CallError NOT_FOUND if the process was forgotten.
    """

    _core: AioDetachedProcess

    def __init__(self, connection: ThreadConnection, core: AioDetachedProcess) -> None:
        self._connection = connection
        self._core = core

    def __repr__(self) -> str:
        return repr(self._core)

    @property
    def info(self) -> ProcessInfo:
        """As it was when it was started, or found."""
        return self._core.info

    @property
    def process_id(self) -> int:
        """Of the VM; never used again."""
        return self._core.process_id

    @property
    def pid(self) -> int:
        """In the guest."""
        return self._core.pid

    @property
    def tag(self) -> str:
        """As its caller named it; empty for none."""
        return self._core.tag

    def attach(self, from_: int | tuple[int, int] | None = 0) -> Attachment:
        """Follows its output, and may send it input, for the length of a block.

        `from_` is the position of the first byte, of stdout and stderr alike or of each: 0 for all that is kept. None:
        from now on.
        """
        return self._connection.open(self._core.attach(from_), lambda opened: Attachment(self._connection, opened))

    def wait(self, timeout: float | None = None) -> CommandExit:
        """Waits for its end, also over a restart of the service. CallTimeoutError, which is a TimeoutError, if it still
        runs after `timeout` seconds.
        """
        return self._connection.run(self._core.wait, timeout)

    def output(self) -> KeptOutput:
        """What it has written so far, as far as it is kept: at most the last `keep_bytes` of each stream."""
        return self._connection.run(self._core.output)

    def send_input(self, data: BlockingChunks, *, close: bool = False) -> None:
        """Writes to its stdin, or its terminal; returns when the guest has taken all bytes. With `close`, stdin is
        closed afterwards. FAILED_PRECONDITION if it is closed. If interrupted, a part may have been written.
        """
        self._connection.run(self._core.send_input, self._connection.chunks(data), close=close)

    def signal(self, number: int, *, everything: bool = False) -> None:
        """Signals its process group; with `everything`, all that it has started, in whatever group. FAILED_PRECONDITION
        if it has ended.
        """
        self._connection.run(self._core.signal, number, everything=everything)

    def kill(self) -> None:
        """SIGKILL for all that it has started; nothing if it has ended."""
        self._connection.run(self._core.kill)

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal. FAILED_PRECONDITION if it has none, or has ended."""
        self._connection.run(self._core.resize, rows, columns)

    def forget(self) -> None:
        """Drops what is kept of it. FAILED_PRECONDITION if it still runs."""
        self._connection.run(self._core.forget)


class ByteReader(BlockingResource):
    """The bytes of a file or a tree, as an iterator; the guest waits while nobody reads."""

    _core: AioByteReader

    def __init__(self, connection: ThreadConnection, core: AioByteReader) -> None:
        self._connection = connection
        self._core = core

    @property
    def info(self) -> FileInfo | None:
        """The file; None for a tree."""
        return self._core.info

    def __iter__(self) -> ByteReader:
        return self

    def __next__(self) -> bytes:
        return self._connection.step(self._core)


class FileWatch(BlockingResource):
    """What happens to watched files, as an iterator."""

    _core: AioFileWatch

    def __init__(self, connection: ThreadConnection, core: AioFileWatch) -> None:
        self._connection = connection
        self._core = core

    def __iter__(self) -> FileWatch:
        return self

    def __next__(self) -> FileChange:
        return self._connection.step(self._core)


class Files:
    """The files of a Vm. Paths are absolute; a str is UTF-8, with surrogates for other bytes, and bytes are taken as
    they are. `user` is a name or number in the guest, with whose rights files are reached; root unless named.

    What the guest's kernel refuses is raised as Python has it, FileNotFoundError, IsADirectoryError and so on, and as
    GuestError with its `errno`.
    """

    _core: AioFiles

    def __init__(self, connection: ThreadConnection, core: AioFiles) -> None:
        self._connection = connection
        self._core = core

    def read(self, path: GuestPath, *, offset: int = 0, length: int | None = None, user: str = "") -> bytes:
        """A regular file's content, from `offset` on, at most `length` bytes; all in memory."""
        return self._connection.run(self._core.read, path, offset=offset, length=length, user=user)

    def read_text(self, path: GuestPath, *, encoding: str = "utf-8", errors: str = "strict", user: str = "") -> str:
        """A regular file's content as text."""
        return self._connection.run(self._core.read_text, path, encoding=encoding, errors=errors, user=user)

    def open_read(self, path: GuestPath, *, offset: int = 0, length: int | None = None, user: str = "") -> ByteReader:
        """A regular file's content, piece by piece."""
        return self._connection.open(
            self._core.open_read(path, offset=offset, length=length, user=user),
            lambda opened: ByteReader(self._connection, opened),
        )

    def write(
        self,
        path: GuestPath,
        data: BlockingChunks,
        *,
        mode: int | None = None,
        owner: str = "",
        group: str = "",
        parents: bool = True,
        how: WriteMode = WriteMode.REPLACE,
        offset: int = 0,
        user: str = "",
    ) -> FileInfo:
        """Writes a file: text, bytes, a binary file of this host, or pieces as they come.

        `mode` are the permission bits of a new file (0644); a file that exists keeps its own unless they are given.
        `owner` and `group` are for root. Missing directories above it are made unless `parents` is false. By default
        the file appears whole or not at all, also if this is interrupted; other ways of `how` work in place, UPDATE
        from `offset` on.
        """
        return self._connection.run(
            self._core.write,
            path,
            self._connection.chunks(data),
            mode=mode,
            owner=owner,
            group=group,
            parents=parents,
            how=how,
            offset=offset,
            user=user,
        )

    def list(self, path: GuestPath, *, depth: int = 1, user: str = "") -> builtins.list[FileInfo]:
        """What is in a directory, in no order; with a `depth` of 2 also what is in its directories, and so on. Symbolic
        links are not followed.
        """
        return self._connection.run(self._core.list, path, depth=depth, user=user)

    def stat(self, path: GuestPath, *, follow: bool = True, user: str = "") -> FileInfo:
        """What a path is; of a symbolic link itself unless `follow`."""
        return self._connection.run(self._core.stat, path, follow=follow, user=user)

    def exists(self, path: GuestPath, *, user: str = "") -> bool:
        """Whether there is something at a path; a link that leads nowhere does not count."""
        return self._connection.run(self._core.exists, path, user=user)

    def make_directory(
        self, path: GuestPath, *, mode: int | None = None, parents: bool = True, user: str = ""
    ) -> FileInfo:
        """Makes a directory, with mode 0755 unless one is given. With `parents`, those above it too, and one that
        exists is no error.
        """
        return self._connection.run(self._core.make_directory, path, mode=mode, parents=parents, user=user)

    def move(self, path: GuestPath, target: GuestPath, *, replace: bool = True, user: str = "") -> FileInfo:
        """Renames, or over a file system's border copies and removes. A file in the way is replaced;
        GuestFileExistsError unless `replace`.
        """
        return self._connection.run(self._core.move, path, target, replace=replace, user=user)

    def copy(self, path: GuestPath, target: GuestPath, *, recursive: bool = True, user: str = "") -> FileInfo:
        """Copies a file or a tree within the guest, with modes, times and, as root, owners. If interrupted, a part may be
        there.
        """
        return self._connection.run(self._core.copy, path, target, recursive=recursive, user=user)

    def remove(self, path: GuestPath, *, recursive: bool = True, missing_ok: bool = False, user: str = "") -> None:
        """Removes a file, a symbolic link itself, or a directory with all that is in it."""
        self._connection.run(self._core.remove, path, recursive=recursive, missing_ok=missing_ok, user=user)

    def symlink(self, path: GuestPath, target: GuestPath, *, user: str = "") -> FileInfo:
        """Makes a symbolic link at `path`, to any text."""
        return self._connection.run(self._core.symlink, path, target, user=user)

    def hardlink(self, path: GuestPath, target: GuestPath, *, user: str = "") -> FileInfo:
        """Makes `path` another name of the file `target`."""
        return self._connection.run(self._core.hardlink, path, target, user=user)

    def set_attributes(
        self,
        path: GuestPath,
        *,
        mode: int | None = None,
        owner: str = "",
        group: str = "",
        modified_ns: int | None = None,
        recursive: bool = False,
        user: str = "",
    ) -> FileInfo:
        """Sets permission bits, owner, and time of modification (ns since 1970); what is not given stays."""
        return self._connection.run(
            self._core.set_attributes,
            path,
            mode=mode,
            owner=owner,
            group=group,
            modified_ns=modified_ns,
            recursive=recursive,
            user=user,
        )

    def watch(self, path: GuestPath, *, recursive: bool = False, user: str = "") -> FileWatch:
        """What happens to a file, or in a directory, from the beginning of a block on. With `recursive` also below, in
        directories made later too. Ends with GuestFileNotFoundError when the path itself is removed.
        """
        return self._connection.open(
            self._core.watch(path, recursive=recursive, user=user), lambda opened: FileWatch(self._connection, opened)
        )

    def read_tree(self, path: GuestPath, *, user: str = "") -> ByteReader:
        """A directory, or a file, as a tar stream in pax format; names in it are relative. `download` extracts it."""
        return self._connection.open(
            self._core.read_tree(path, user=user), lambda opened: ByteReader(self._connection, opened)
        )

    def write_tree(
        self, path: GuestPath, chunks: BlockingChunks, *, owners: bool = True, parents: bool = True, user: str = ""
    ) -> TreeSummary:
        """Extracts a tar stream in a directory of the guest, which is made if it is missing unless `parents` is false.
        Without `owners`, everything belongs to `user`. If interrupted, a part may be there.
        """
        return self._connection.run(
            self._core.write_tree, path, self._connection.chunks(chunks), owners=owners, parents=parents, user=user
        )

    def upload(
        self,
        local_path: LocalPath,
        path: GuestPath,
        *,
        owners: bool = False,
        user: str = "",
        progress: Progress | None = None,
    ) -> None:
        """Copies a file of this host to the file `path`, or what is in a directory of this host into the directory
        `path`, with modes, times, links, hard links and holes. Everything belongs to `user`, unless `owners` are kept.

        OSError for what cannot be read here, or is neither: `write` takes an open pipe. If interrupted, a part of a tree
        may be there.
        """
        self._connection.run(
            self._core.upload, local_path, path, owners=owners, user=user, progress=self._connection.callback(progress)
        )

    def download(
        self, path: GuestPath, local_path: LocalPath, *, user: str = "", progress: Progress | None = None
    ) -> None:
        """Copies a file of the guest to the file `local_path`, which appears whole or not at all, or what is in a
        directory of the guest into the directory `local_path`. Owners are kept if this program is root's.

        A guest is not trusted: UnsafeTreeError for what would leave the directory, and for devices. OSError for what
        cannot be written here. If interrupted, a part of a tree may be there.
        """
        self._connection.run(
            self._core.download, path, local_path, user=user, progress=self._connection.callback(progress)
        )


class ByteStream(BlockingResource):
    """One connection to or from a guest. One thread may send while another one receives. Raises ClientError."""

    _core: AioByteStream

    def __init__(self, connection: ThreadConnection, core: AioByteStream) -> None:
        self._connection = connection
        self._core = core

    def send(self, data: BlockingChunks) -> None:
        """Waits while the other end does not read."""
        self._connection.run(self._core.send, self._connection.chunks(data))

    def send_eof(self) -> None:
        """No more data in this direction, as shutdown(2) has it."""
        self._connection.run(self._core.send_eof)

    def receive(self) -> bytes:
        """The next bytes, as many as came at once; none at the end of this direction."""
        return self._connection.run(self._core.receive)


class Forward(BlockingResource):
    """A port of the guest on this host. `str(forward)` is "host:port", or the path."""

    _core: AioForward

    def __init__(self, connection: ThreadConnection, core: AioForward) -> None:
        self._connection = connection
        self._core = core

    def __str__(self) -> str:
        return str(self._core)

    @property
    def host(self) -> str:
        """Empty for a Unix socket."""
        return self._core.host

    @property
    def port(self) -> int:
        """0 for a Unix socket."""
        return self._core.port

    @property
    def path(self) -> str:
        """Of the Unix socket; empty for a TCP port."""
        return self._core.path

    @property
    def address(self) -> tuple[str, int] | str:
        """As `socket.connect` wants it."""
        return self._core.address


class Ports:
    """The connections of a Vm."""

    _core: AioPorts

    def __init__(self, connection: ThreadConnection, core: AioPorts) -> None:
        self._connection = connection
        self._core = core

    def connect_port(self, port_or_path: int | str, *, guest_host: str = "") -> ByteStream:
        """A connection to a TCP port of the guest, on its loopback unless `guest_host` is another address of it, or to
        a Unix socket. GuestConnectionRefusedError if nobody listens there.
        """
        return self._connection.open(
            self._core.connect_port(port_or_path, guest_host=guest_host),
            lambda opened: ByteStream(self._connection, opened),
        )

    def wait_port(self, port_or_path: int | str, *, guest_host: str = "", timeout: float = WAIT_PORT_S) -> None:
        """Returns once a server in the guest accepts a connection. CallTimeoutError, which is a TimeoutError, if none
        does within `timeout` seconds.
        """
        self._connection.run(self._core.wait_port, port_or_path, guest_host=guest_host, timeout=timeout)

    def forward(
        self,
        port_or_path: int | str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: LocalPath | None = None,
        guest_host: str = "",
    ) -> Forward:
        """Listens on this host, on a free port unless one is named, or on a Unix socket at `path`, and connects whoever
        comes to the guest's port, for the length of a block.

        Connections are as many at a time as the service allows; each direction ends by itself, and all end with the
        block. One that the guest refuses is closed. A socket at `path` is for this user only, and is removed at the
        end. OSError if the address cannot be had.
        """
        return self._connection.open(
            self._core.forward(port_or_path, host=host, port=port, path=path, guest_host=guest_host),
            lambda opened: Forward(self._connection, opened),
        )

    def reverse(self, port_or_path: int | str, to: tuple[str, int] | LocalPath, *, guest_host: str = "") -> Forward:
        """Listens in the guest, on a TCP port (0 for a free one) or a Unix socket, and connects whoever comes to
        `to`, an address on this host or the path of a Unix socket, for the length of a block. Gives the address in the
        guest.

        GuestError EADDRINUSE if it is in use. A connection that is refused on this host is closed.
        """
        return self._connection.open(
            self._core.reverse(port_or_path, to, guest_host=guest_host),
            lambda opened: Forward(self._connection, opened),
        )


class Vm(Ports, BlockingResource):
    """A leased VM. From `Pool.vm` it is released at the end of the block; from `Pool.acquire` or `Pool.get`, by
    `release`, or when its lease expires.

    Methods raise ClientError: ServiceUnavailableError, or CallError with the status NOT_FOUND if there is no such
    lease, FAILED_PRECONDITION if it has ended or if the guest's agent does not support the call, ABORTED if it ends
    meanwhile, PERMISSION_DENIED, UNAVAILABLE if the guest cannot be reached. What the guest's kernel refuses is a
    GuestError, which is an OSError as well.
    """

    _core: AioVm

    def __init__(self, connection: ThreadConnection, core: AioVm) -> None:
        self._connection = connection
        self._core = core

    def __repr__(self) -> str:
        return repr(self._core)

    @property
    def lease(self) -> AcquiredVm:
        """All that is known of it."""
        return self._core.lease

    @property
    def lease_id(self) -> str:
        return self._core.lease_id

    @property
    def vm_id(self) -> str:
        return self._core.vm_id

    @property
    def name(self) -> str:
        """As its caller named the lease; empty for none."""
        return self._core.name

    @property
    def profile(self) -> str:
        return self._core.profile

    @property
    def labels(self) -> Mapping[str, str]:
        """As given when the lease was acquired."""
        return self._core.labels

    @property
    def guest(self) -> Guest:
        """The guest's own report after it was prepared."""
        return self._core.guest

    @property
    def timings(self) -> AcquireTimings:
        """How long the stages of its acquisition took; zeros for a lease that was found again."""
        return self._core.timings

    @property
    def match(self) -> Match | None:
        """None unless the request had a configuration of its own."""
        return self._core.match

    @property
    def fencing_token(self) -> int:
        """Grows with every lease; for a resource that must refuse earlier holders."""
        return self._core.fencing_token

    @property
    def files(self) -> Files:
        """The guest's files."""
        return Files(self._connection, self._core.files)

    @overload
    def run(
        self,
        command: Command,
        *,
        input: BlockingChunks | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
        groups: Sequence[str] = (),
        timeout: float | None = None,
        limits: Mapping[str, Limit] | None = None,
        leave_children: bool = False,
        check: bool = False,
        max_output: int = MAX_OUTPUT_BYTES,
        on_stdout: OutputCallback | None = None,
        on_stderr: OutputCallback | None = None,
        encoding: str = "utf-8",
    ) -> CompletedCommand[str]: ...

    @overload
    def run(
        self,
        command: Command,
        *,
        input: BlockingChunks | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
        groups: Sequence[str] = (),
        timeout: float | None = None,
        limits: Mapping[str, Limit] | None = None,
        leave_children: bool = False,
        check: bool = False,
        max_output: int = MAX_OUTPUT_BYTES,
        on_stdout: OutputCallback | None = None,
        on_stderr: OutputCallback | None = None,
        encoding: None,
    ) -> CompletedCommand[bytes]: ...

    def run(
        self,
        command: Command,
        *,
        input: BlockingChunks | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
        groups: Sequence[str] = (),
        timeout: float | None = None,
        limits: Mapping[str, Limit] | None = None,
        leave_children: bool = False,
        check: bool = False,
        max_output: int = MAX_OUTPUT_BYTES,
        on_stdout: OutputCallback | None = None,
        on_stderr: OutputCallback | None = None,
        encoding: str | None = "utf-8",
    ) -> Any:
        """Runs a command to its end, and returns what it wrote.

        A str is a line for the guest's /bin/sh, a sequence is program and arguments. `input` is its stdin, which is
        empty otherwise. `user` and `groups` are names or numbers in the guest; root unless named. The guest kills the
        command, with all that it started, after `timeout` seconds: the result says `timed_out`. `limits` are those of
        setrlimit(2) by name, "nofile" or "as", as one number or soft and hard. What the command leaves running in the
        guest is killed at its end, unless `leave_children`.

        Bytes that are not of `encoding` are replaced; with None, stdout and stderr are bytes. Callbacks get them as
        they come, as bytes, and they are in the result as well.

        Raises, beside what all methods raise: with `check`, CommandError unless the status is 0. OutputTooLargeError if
        there is more output than `max_output` bytes, stdout and stderr together; the command is killed.
        INVALID_ARGUMENT if it cannot be started. LookupError for an unknown encoding. If interrupted, the command is
        killed.
        """
        run: Any = self._core.run  # the types of its overloads are those above
        return self._connection.run(
            run,
            command,
            input=self._connection.chunks(input),
            environment=environment,
            cwd=cwd,
            user=user,
            groups=groups,
            timeout=timeout,
            limits=limits,
            leave_children=leave_children,
            check=check,
            max_output=max_output,
            on_stdout=self._connection.callback(on_stdout),
            on_stderr=self._connection.callback(on_stderr),
            encoding=encoding,
        )

    def exec(
        self,
        command: Command,
        *,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
        groups: Sequence[str] = (),
        timeout: float | None = None,
        limits: Mapping[str, Limit] | None = None,
        terminal: Terminal | None = None,
        leave_children: bool = False,
    ) -> RemoteCommand:
        """A running command, to talk to. Killed at the end of the block if it still runs. Arguments as for `run`.

        `stdin` is all that it can read, at most 256 KiB; it is sent with the start, which all agents support. None:
        `send_stdin` sends it. With a `terminal`, all output is stdout.
        """
        return self._connection.open(
            self._core.exec(
                command,
                stdin=stdin,
                environment=environment,
                cwd=cwd,
                user=user,
                groups=groups,
                timeout=timeout,
                limits=limits,
                terminal=terminal,
                leave_children=leave_children,
            ),
            lambda opened: RemoteCommand(self._connection, opened),
        )

    def start(
        self,
        command: Command,
        *,
        tag: str = "",
        keep_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str = "",
        groups: Sequence[str] = (),
        timeout: float | None = None,
        limits: Mapping[str, Limit] | None = None,
        terminal: Terminal | None = None,
        leave_children: bool = False,
    ) -> DetachedProcess:
        """Starts a process that goes on when this program, or the service, ends. Arguments as for `run`.

        The guest keeps the last `keep_bytes` of each of stdout and stderr (1 MiB, which is the most), and its exit
        until `forget`, or until 256 later ones have ended. By its `tag` it is found again; of running processes, one
        has it: CallError ALREADY_EXISTS. If interrupted, it leaves no process.
        """
        return DetachedProcess(
            self._connection,
            self._connection.run(
                self._core.start,
                command,
                tag=tag,
                keep_bytes=keep_bytes,
                environment=environment,
                cwd=cwd,
                user=user,
                groups=groups,
                timeout=timeout,
                limits=limits,
                terminal=terminal,
                leave_children=leave_children,
            ),
        )

    def processes(self) -> list[ProcessInfo]:
        """All that run, and those of `start` that have ended and are kept."""
        return self._connection.run(self._core.processes)

    def process(self, id_or_tag: int | str) -> DetachedProcess:
        """A process of `start`, also of another program's: by its number, or the one that has the tag, or had it last.

        CallError NOT_FOUND if there is none.
        """
        return DetachedProcess(self._connection, self._connection.run(self._core.process, id_or_tag))

    def metrics(self) -> VmMetrics:
        """What it uses: CPU, memory, processes, disk."""
        return self._connection.run(self._core.metrics)

    def console(self) -> str:
        """The end of what the guest wrote to its console, at most 64 KiB; not fit for a terminal as it is."""
        return self._connection.run(self._core.console)

    def renew(self, ttl: float) -> float:
        """Sets the lease's time to live, in seconds from now on; returns it as the service set it."""
        return self._connection.run(self._core.renew, ttl)

    def release(self) -> None:
        """Ends the lease and destroys the VM, also before the end of its block."""
        self._connection.run(self._core.release)


class Pool(ServiceCalls):
    """A connection to a service; `connect` makes it. Every method raises ClientError."""

    _core: AioPool

    def __init__(self, connection: ThreadConnection, core: AioPool) -> None:
        self._connection = connection
        self._core = core

    @property
    def socket_path(self) -> Path:
        """The service's socket, for others who connect to the same one."""
        return self._core.socket_path

    def vm(
        self,
        profile: str = "",
        *,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes] | Sequence[GuestFile] | None = None,
        vcpus: int | None = None,
        memory_mib: int | None = None,
        hostname: str = "",
        config: VmConfig | None = None,
        on_empty: OnEmpty | None = None,
        idempotency_key: str = "",
        timeout: float = ACQUIRE_TIMEOUT_S,
        reconnect_s: float = RECONNECT_S,
    ) -> Vm:
        """A VM for the length of a block: running, unique, and with the right time.

        `environment` is for every command that runs in it; `files`, by path, are there before it is handed out. Neither
        becomes part of a template. `vcpus` and `memory_mib` are added up to the profile's maximum. `labels` are the
        caller's own marks, shown with the lease; by its `name` it is found again by the same user. `config` describes a
        machine in place of a profile. `on_empty` says what to do when no VM is ready: the profile's setting unless
        given. `timeout` bounds the wait, in seconds.

        The lease is bound to an open call: it ends with the block, also if the block is interrupted or this process dies.
        If the connection breaks because the service restarts, it is found again for up to `reconnect_s` seconds (0: not
        at all). That it ends earlier, because its VM died or the service was stopped, is not an error in itself; using
        it then is.

        CallError statuses: NOT_FOUND, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, UNAVAILABLE,
        ALREADY_EXISTS, FAILED_PRECONDITION, PERMISSION_DENIED.
        """
        return self._connection.open(
            self._core.vm(
                profile,
                name=name,
                labels=labels,
                environment=environment,
                files=files,
                vcpus=vcpus,
                memory_mib=memory_mib,
                hostname=hostname,
                config=config,
                on_empty=on_empty,
                idempotency_key=idempotency_key,
                timeout=timeout,
                reconnect_s=reconnect_s,
            ),
            lambda opened: Vm(self._connection, opened),
        )

    def acquire(
        self,
        profile: str = "",
        *,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes] | Sequence[GuestFile] | None = None,
        vcpus: int | None = None,
        memory_mib: int | None = None,
        hostname: str = "",
        config: VmConfig | None = None,
        on_empty: OnEmpty | None = None,
        idempotency_key: str = "",
        ttl: float | None = None,
        timeout: float = ACQUIRE_TIMEOUT_S,
        reconnect_s: float = RECONNECT_S,
    ) -> Vm:
        """A VM that outlives this connection; the caller must `release` it, or `renew` its lease before it expires,
        `ttl` seconds from now (None: the profile's default). Arguments otherwise as for `vm`. If interrupted, it leaves
        no lease.
        """
        return Vm(
            self._connection,
            self._connection.run(
                self._core.acquire,
                profile,
                name=name,
                labels=labels,
                environment=environment,
                files=files,
                vcpus=vcpus,
                memory_mib=memory_mib,
                hostname=hostname,
                config=config,
                on_empty=on_empty,
                idempotency_key=idempotency_key,
                ttl=ttl,
                timeout=timeout,
                reconnect_s=reconnect_s,
            ),
        )

    def get(self, lease_id_or_name: str, *, reconnect_s: float = RECONNECT_S) -> Vm:
        """A VM that this user has leased, also in another program, by the name of its lease or by its id.

        CallError statuses: NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION if the lease has ended.
        """
        return Vm(self._connection, self._connection.run(self._core.get, lease_id_or_name, reconnect_s=reconnect_s))

    def leases(self, labels: Mapping[str, str] | None = None) -> list[LeaseStatus]:
        """This user's leases, the oldest first; root sees all. With `labels`: those that have all of these."""
        return self._connection.run(self._core.leases, labels)


def connect(socket_path: LocalPath | None = None, *, wait_s: float = 0.0) -> Pool:
    """Connects to a service: the one on `socket_path`, or on `VMPOOL_SOCKET`, or on the first of the default places
    where a socket is: the user's own, then the host's.

    At the end, open calls are ended and the connection is closed. Raises ServiceUnavailableError if no service listens
    after `wait_s` seconds.
    """
    return connecting(aio_connect(socket_path, wait_s=wait_s), Pool)


def standalone(
    *,
    size: int = 1,
    profile: Mapping[str, str | int | float | bool] | None = None,
    config: LocalPath | None = None,
    wait_s: float = READY_LIMIT_S,
) -> Pool:
    """Starts a service of this program's own, with a pool of `size` VMs, and connects to it, for the length of a block.

    `profile` has further keys of the configuration's `[profiles.default]`: `{"memory_mib": 512}`. `config` is a
    configuration file in place of all that. The service is in a private directory and ends with the block, or with this
    program, however that ends; its VMs and files go with it.

    Returns when the service listens, which takes about a second; its first VM is ready when it has booted, and
    `Pool.vm` waits for it. Raises ServiceUnavailableError with the service's own words if it does not start within
    `wait_s` seconds: without a guest image, say, which `vmpool image build` makes.
    """
    return connecting(aio_standalone(size=size, profile=profile, config=config, wait_s=wait_s), Pool)


Process = RemoteCommand

__all__ = [
    "AcquireTimings",
    "AcquiredVm",
    "Attachment",
    "ByteReader",
    "ByteStream",
    "CallError",
    "CallTimeoutError",
    "Change",
    "CircuitState",
    "ClientError",
    "CommandError",
    "CommandExit",
    "CompletedCommand",
    "ConfinementLayer",
    "DetachedProcess",
    "EndReason",
    "FileChange",
    "FileChangeKind",
    "FileInfo",
    "FileKind",
    "FileWatch",
    "Files",
    "Forward",
    "Guest",
    "GuestConnectionRefusedError",
    "GuestError",
    "GuestFile",
    "GuestFileExistsError",
    "GuestFileNotFoundError",
    "GuestIsADirectoryError",
    "GuestNotADirectoryError",
    "GuestPermissionError",
    "GuestProcessNotFoundError",
    "GuestTimeoutError",
    "KeptOutput",
    "LeaseChange",
    "LeaseChangeKind",
    "LeaseStatus",
    "Match",
    "Mismatch",
    "OnEmpty",
    "Output",
    "OutputStream",
    "OutputTooLargeError",
    "Pool",
    "PoolCounters",
    "PoolWatch",
    "Process",
    "ProcessInfo",
    "ProcessOutput",
    "ProducerKind",
    "ProducerStatus",
    "ProfileChange",
    "ProfileChangeKind",
    "ProfileStatus",
    "ServiceStatus",
    "ServiceUnavailableError",
    "Snapshot",
    "StopReason",
    "Terminal",
    "TreeSummary",
    "UnsafeTreeError",
    "Vm",
    "VmChange",
    "VmConfig",
    "VmMetrics",
    "VmState",
    "Wishes",
    "WriteMode",
    "connect",
    "standalone",
]
