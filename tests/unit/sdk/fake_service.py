"""A service in memory, for the client's side of what a lease can do: its guest's files are those of a directory, its
servers those of this host, and its commands are a few that are here.

It counts what is open, so that a test can say what a client has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import itertools
import os
import shlex
import shutil
import stat
import tarfile
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
from grpclib.const import Status
from grpclib.encoding.base import StatusDetailsCodecBase
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from vmpool.client.details import ERROR_INFO
from vmpool.wire.generated.vmpool import status as status_wire
from vmpool.wire.generated.vmpool import v1 as wire

LIMIT_S: Final = 20.0

STATUSES: Final = {
    "ENOENT": Status.NOT_FOUND,
    "ESRCH": Status.NOT_FOUND,
    "EEXIST": Status.ALREADY_EXISTS,
    "EADDRINUSE": Status.ALREADY_EXISTS,
    "EISDIR": Status.INVALID_ARGUMENT,
    "ENOTDIR": Status.INVALID_ARGUMENT,
    "EACCES": Status.PERMISSION_DENIED,
    "ECONNREFUSED": Status.UNAVAILABLE,
}

KINDS: Final = {
    stat.S_IFREG: wire.FileKind.REGULAR,
    stat.S_IFDIR: wire.FileKind.DIRECTORY,
    stat.S_IFLNK: wire.FileKind.SYMLINK,
    stat.S_IFIFO: wire.FileKind.FIFO,
}


def error_info(reason: str, *, domain: str = "guest", **metadata: str) -> bytes:
    info = status_wire.ErrorInfo(reason=reason, domain=domain, metadata=metadata)
    return bytes(status_wire.Status(details=[status_wire.Detail(type_url=ERROR_INFO, value=bytes(info))]))


def refused(reason: str, message: str = "", **metadata: str) -> GRPCError:
    status = STATUSES.get(reason, Status.FAILED_PRECONDITION)
    return GRPCError(status, message or f"the guest says {reason}", error_info(reason, **metadata))


class _Details(StatusDetailsCodecBase):
    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        return bytes(details)

    def decode(self, status: Status, message: str | None, data: bytes) -> Any:
        raise NotImplementedError


@attrs.define(eq=False)
class Process:
    info: wire.ProcessInfo
    stdin: bytearray = attrs.field(factory=bytearray)
    output: bytearray = attrs.field(factory=bytearray)
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)
    lost: int = 0
    """Bytes that are not kept any more."""

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.output += data
        self.info.stdout_end = len(self.output)
        self.tell()

    def end(self, **how: Any) -> None:
        if self.info.exit is None:
            self.info.exit = wire.ExecExit(**how)
        self.tell()


class _Server(Server):
    """One whose connections can be broken."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._transports: list[Any] = []

    def _protocol_factory(self) -> Any:
        protocol: Any = super()._protocol_factory()
        connection_made = protocol.connection_made

        def made(transport: Any) -> None:
            self._transports.append(transport)
            connection_made(transport)

        protocol.connection_made = made
        return protocol

    def abort(self) -> None:
        for transport in self._transports:
            transport.abort()


@attrs.define(eq=False)
class FakeService:
    """Made by `fake_service`; belongs to its thread but for the questions."""

    path: Path
    root: Path
    leases: dict[str, wire.Lease] = attrs.field(factory=dict)
    processes: dict[int, Process] = attrs.field(factory=dict)
    calls: list[str] = attrs.field(factory=list)
    """Those that are open."""
    incoming: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = attrs.field(factory=dict)
    restarting: bool = False
    slow: bool = False
    """Every handler lets others run before it answers."""
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    _server: _Server | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    # Questions, from any thread.

    def until(self, condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < give_up_at, self.left()
            time.sleep(0.001)

    def left(self) -> dict[str, Any]:
        running = [each.info.argv for each in self.processes.values() if each.info.exit is None]
        return {"leases": list(self.leases), "processes": running, "calls": list(self.calls)}

    def until_nothing_is_left(self) -> None:
        self.until(lambda: not any(self.left().values()))

    def in_loop(self, function: Callable[[], Any]) -> Any:
        async def call() -> Any:
            outcome = function()
            return await outcome if asyncio.iscoroutine(outcome) else outcome

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(LIMIT_S)

    def restart(self) -> None:
        """All connections break; leases and processes stay, and held leases wait for their holders."""

        async def again() -> None:
            self.restarting = True
            await self.stop()
            self.restarting = False
            await self.start()

        self.in_loop(again)

    # In the service's loop.

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = _Server([Pool(self), Processes(self), Files(self), Ports(self)], status_details_codec=_Details())
        await self._server.start(path=str(self.path))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.abort()
        self._server.close()
        await self._server.wait_closed()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        await asyncio.sleep(0)  # transports close their sockets a round later

    def number(self) -> int:
        return next(self._numbers)

    def lease(self, lease_id: str) -> wire.Lease:
        try:
            return self.leases[lease_id]
        except KeyError:
            raise GRPCError(Status.NOT_FOUND, f"lease_id: there is no lease {lease_id}") from None

    def process(self, ref: wire.ProcessRef | None) -> Process:
        assert ref is not None
        assert ref.process_id is not None
        self.lease(ref.lease_id)
        if ref.process_id not in self.processes:
            raise refused("ESRCH", "process: there is none")
        return self.processes[ref.process_id]

    def place(self, path: bytes) -> Path:
        if not path.startswith(b"/"):
            raise GRPCError(Status.INVALID_ARGUMENT, "path: must be absolute")
        return self.root / os.fsdecode(path[1:])

    @contextlib.contextmanager
    def guest_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = errno.errorcode[error.errno or errno.EIO]
            path = "/" + os.path.relpath(error.filename, self.root) if error.filename else ""
            raise refused(reason, f"{path}: {error.strerror}", path=path) from error

    def file(self, path: bytes, *, follow: bool = True) -> wire.FileInfo:
        place = self.place(path)
        status = place.stat() if follow else place.lstat()
        return wire.FileInfo(
            path=path,
            kind=KINDS[stat.S_IFMT(status.st_mode)],
            size=status.st_size,
            mode=status.st_mode & 0o7777,
            modified_ns=status.st_mtime_ns,
            target=os.fsencode(place.readlink()) if place.is_symlink() else b"",
        )


def counted(method: Any) -> Any:
    """The call counts as open until its handler has ended."""
    name = method.__qualname__

    async def unary(self: Any, request: Any) -> Any:
        self.service.calls.append(name)
        try:
            with self.service.guest_errors():
                if self.service.slow:
                    await asyncio.sleep(0.001)
                return await method(self, request)
        finally:
            self.service.calls.remove(name)

    def streaming(self: Any, request: Any) -> Replies:
        return Replies(self.service, name, method(self, request))

    return streaming if inspect.isasyncgenfunction(method) else unary


class Replies:
    """What a handler gives, which is closed when its call ends: a generator by itself would be when it is collected."""

    def __init__(self, service: FakeService, name: str, replies: Any) -> None:
        self._service = service
        self._name = name
        self._replies = replies
        service.calls.append(name)
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: asyncio.ensure_future(self._end()))

    def __aiter__(self) -> Replies:
        return self

    async def __anext__(self) -> Any:
        with self._service.guest_errors():
            if self._service.slow:
                await asyncio.sleep(0.001)
            return await anext(self._replies)

    async def _end(self) -> None:
        try:
            await self._replies.aclose()
        finally:
            self._service.calls.remove(self._name)


class Pool(wire.PoolBase):
    def __init__(self, service: FakeService) -> None:
        self.service = service

    def _grant(self, request: wire.AcquireRequest) -> wire.AcquireReply:
        for lease in self.service.leases.values():
            if request.idempotency_key and lease.labels.get("key") == request.idempotency_key:
                return wire.AcquireReply(lease=lease, timings=wire.AcquireTimings())
        number = self.service.number()
        lease = wire.Lease(
            lease_id=f"lease-{number}",
            vm_id=f"vm-{number}",
            profile=request.profile or "default",
            guest=wire.Guest(hostname=f"vm-{number}"),
            name=request.name,
            labels={**request.labels, **({"key": request.idempotency_key} if request.idempotency_key else {})},
        )
        self.service.leases[lease.lease_id] = lease
        return wire.AcquireReply(lease=lease, timings=wire.AcquireTimings())

    async def _PoolBase__rpc_acquire(self, stream: Any) -> None:  # noqa: N802 - the generated class calls it so
        """A lease whose caller has gone is taken back."""
        reply = await self.acquire(await stream.recv_message())
        try:
            await stream.send_message(reply)
        except BaseException:
            self.service.leases.pop(reply.lease.lease_id, None)
            raise

    @counted
    async def acquire(self, message: wire.AcquireRequest) -> wire.AcquireReply:
        return self._grant(message)

    @counted
    async def hold(self, message: wire.AcquireRequest) -> AsyncIterator[wire.HoldReply]:
        reply = self._grant(message)
        assert reply.lease is not None
        try:
            yield wire.HoldReply(acquired=reply)
            while reply.lease.lease_id in self.service.leases:
                await asyncio.sleep(0.001)
        finally:
            if not self.service.restarting:
                self.service.leases.pop(reply.lease.lease_id, None)

    @counted
    async def release(self, message: wire.ReleaseRequest) -> wire.ReleaseReply:
        self.service.lease(message.lease_id)
        del self.service.leases[message.lease_id]
        for process in self.service.processes.values():
            process.end(signal=9)
        return wire.ReleaseReply()

    @counted
    async def renew(self, message: wire.RenewRequest) -> wire.RenewReply:
        lease = self.service.lease(message.lease_id)
        lease.expires_in_ms = message.ttl_ms
        return wire.RenewReply(lease=lease)

    @counted
    async def get_lease(self, message: wire.GetLeaseRequest) -> wire.GetLeaseReply:
        for lease in self.service.leases.values():
            if message.lease_id == lease.lease_id or (message.name and message.name == lease.name):
                return wire.GetLeaseReply(lease=lease)
        raise GRPCError(Status.NOT_FOUND, "lease_id: there is none")

    @counted
    async def list_leases(self, message: wire.ListLeasesRequest) -> wire.ListLeasesReply:
        return wire.ListLeasesReply(
            leases=[
                wire.LeaseStatus(lease_id=lease.lease_id, name=lease.name, labels=lease.labels)
                for lease in self.service.leases.values()
                if message.labels.items() <= lease.labels.items()
            ]
        )

    @counted
    async def status(self, message: wire.StatusRequest) -> wire.StatusReply:
        leases = [wire.LeaseStatus(lease_id=lease_id) for lease_id in self.service.leases]
        return wire.StatusReply(version="fake", leases=leases)

    @counted
    async def exec(self, messages: AsyncIterator[wire.ExecRequest]) -> AsyncIterator[wire.ExecReply]:
        first = await anext(messages)
        assert first.start is not None
        self.service.lease(first.start.lease_id)
        argv = _argv(first.start)
        number = self.service.number()
        ended = wire.ExecExit(status=0)
        process = Process(wire.ProcessInfo(process_id=number, pid=number, argv=argv, attached=True))
        self.service.processes[number] = process
        reading = asyncio.ensure_future(_take_stdin(process, messages))
        try:
            yield wire.ExecReply(started=wire.ExecStarted(process_id=number, pid=number))
            process.stdin += first.start.stdin
            match argv:
                case ["true"]:
                    pass
                case ["false"]:
                    yield wire.ExecReply(stderr=b"it is false\n")
                    ended = wire.ExecExit(status=1)
                case ["echo", *words]:
                    yield wire.ExecReply(stdout=" ".join(words).encode() + b"\n")
                case ["raw", digits]:
                    yield wire.ExecReply(stdout=bytes.fromhex(digits))
                case ["yes"]:
                    while True:
                        yield wire.ExecReply(stdout=b"y\n" * 1000)
                        await asyncio.sleep(0)
                case ["cat"]:
                    taken = 0
                    while True:
                        if taken < len(process.stdin):
                            piece = bytes(process.stdin[taken : taken + 65536])
                            taken += len(piece)
                            yield wire.ExecReply(stdout=piece)
                        elif reading.done():
                            break
                        else:
                            await asyncio.wait(
                                [reading, asyncio.ensure_future(process.changed.wait())], return_when="FIRST_COMPLETED"
                            )
                case ["sleep", seconds]:
                    limit_s = first.start.time_limit_ms / 1e3 or float("inf")
                    await asyncio.sleep(min(float(seconds), limit_s))
                    late = float(seconds) > limit_s
                    ended = wire.ExecExit(signal=9, timed_out=True) if late else wire.ExecExit(status=0)
                case _:
                    raise refused("ENOENT", f"no program {argv[0]}", path=argv[0])
            yield wire.ExecReply(exit=ended)
        finally:
            process.end(signal=9)
            del self.service.processes[number]
            reading.cancel()
            await asyncio.wait([reading])


async def _take_stdin(process: Process, messages: AsyncIterator[Any]) -> None:
    async for message in messages:
        if message.stdin is not None:
            process.stdin += message.stdin
            process.tell()
        if message.close_stdin is not None:
            break


def _argv(start: wire.ExecStart) -> list[str]:
    return shlex.split(start.shell) if start.shell else list(start.argv)


class Processes(wire.ProcessesBase):
    def __init__(self, service: FakeService) -> None:
        self.service = service

    @counted
    async def start(self, message: wire.StartRequest) -> wire.StartReply:
        assert message.process is not None
        self.service.lease(message.process.lease_id)
        number = self.service.number()
        process = Process(wire.ProcessInfo(process_id=number, pid=number, tag=message.tag, argv=_argv(message.process)))
        self.service.processes[number] = process
        if process.info.argv[0] == "echo":
            process.write(" ".join(process.info.argv[1:]).encode() + b"\n")
            process.end(status=0)
        return wire.StartReply(process=process.info)

    @counted
    async def list(self, message: wire.ListProcessesRequest) -> wire.ListProcessesReply:
        self.service.lease(message.lease_id)
        return wire.ListProcessesReply(processes=[process.info for process in self.service.processes.values()])

    @counted
    async def attach(self, messages: AsyncIterator[wire.AttachRequest]) -> AsyncIterator[wire.AttachReply]:
        first = await anext(messages)
        assert first.start is not None
        process = self.service.process(first.start.process)
        reading = asyncio.ensure_future(_take_stdin(process, messages))
        try:
            yield wire.AttachReply(process=process.info)
            at = len(process.output) if first.start.from_now else first.start.stdout_from
            while True:
                at = max(at, process.lost)
                changed = process.changed
                if at < len(process.output):
                    piece = bytes(process.output[at : at + 65536])
                    yield wire.AttachReply(stdout=wire.ProcessOutput(position=at, data=piece))
                    at += len(piece)
                elif process.info.exit is not None:
                    yield wire.AttachReply(exit=process.info.exit)
                    return
                else:
                    await changed.wait()
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    @counted
    async def wait(self, message: wire.WaitProcessRequest) -> wire.WaitProcessReply:
        process = self.service.process(message.process)
        while process.info.exit is None:
            await process.changed.wait()
        return wire.WaitProcessReply(exit=process.info.exit)

    @counted
    async def send_input(self, message: wire.SendInputRequest) -> wire.SendInputReply:
        process = self.service.process(message.process)
        process.write(message.data)
        if message.close:
            process.end(status=0)
        return wire.SendInputReply()

    @counted
    async def signal(self, message: wire.SignalRequest) -> wire.SignalReply:
        process = self.service.process(message.process)
        if process.info.exit is not None:
            raise GRPCError(Status.FAILED_PRECONDITION, "process: it has ended")
        process.end(signal=message.signal)
        return wire.SignalReply()

    @counted
    async def forget(self, message: wire.ForgetRequest) -> wire.ForgetReply:
        process = self.service.process(message.process)
        if process.info.exit is None:
            raise GRPCError(Status.FAILED_PRECONDITION, "process: it still runs")
        del self.service.processes[process.info.process_id]
        return wire.ForgetReply()


class Files(wire.FilesBase):
    def __init__(self, service: FakeService) -> None:
        self.service = service

    @counted
    async def stat(self, message: wire.StatRequest) -> wire.StatReply:
        self.service.lease(message.lease_id)
        return wire.StatReply(file=self.service.file(message.path, follow=not message.no_follow))

    @counted
    async def list(self, message: wire.ListFilesRequest) -> AsyncIterator[wire.ListFilesReply]:
        for name in os.listdir(os.fsencode(self.service.place(message.path))):  # noqa: PTH208 - bytes
            yield wire.ListFilesReply(files=[self.service.file(message.path + b"/" + name, follow=False)])

    @counted
    async def read(self, message: wire.ReadRequest) -> AsyncIterator[wire.ReadReply]:
        self.service.lease(message.lease_id)
        with self.service.place(message.path).open("rb") as file:
            yield wire.ReadReply(file=self.service.file(message.path))
            file.seek(message.offset)
            left = message.length or 2**62
            while data := file.read(min(65536, left)):
                left -= len(data)
                yield wire.ReadReply(data=data)

    @counted
    async def write(self, messages: AsyncIterator[wire.WriteRequest]) -> wire.WriteReply:
        first = await anext(messages)
        assert first.start is not None
        self.service.lease(first.start.lease_id)
        place = self.service.place(first.start.path)
        if first.start.parents:
            place.parent.mkdir(parents=True, exist_ok=True)
        if first.start.how is wire.WriteMode.CREATE and place.exists():
            raise refused("EEXIST", path=os.fsdecode(first.start.path))
        if place.is_dir():
            raise refused("EISDIR", path=os.fsdecode(first.start.path))
        fresh = place.with_name(f".{place.name}.fresh-{self.service.number()}")
        try:
            with fresh.open("xb") as file:
                async for message in messages:
                    file.write(message.data or b"")
            fresh.chmod(0o644 if first.start.mode is None else first.start.mode)
            fresh.replace(place)
        finally:
            fresh.unlink(missing_ok=True)
        return wire.WriteReply(file=self.service.file(first.start.path))

    @counted
    async def make_directory(self, message: wire.MakeDirectoryRequest) -> wire.MakeDirectoryReply:
        self.service.place(message.path).mkdir(parents=message.parents, exist_ok=message.parents)
        return wire.MakeDirectoryReply(file=self.service.file(message.path))

    @counted
    async def remove(self, message: wire.RemoveRequest) -> wire.RemoveReply:
        place = self.service.place(message.path)
        if place.is_dir() and message.recursive:
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=message.missing_ok)
        return wire.RemoveReply()

    @counted
    async def watch(self, message: wire.WatchFilesRequest) -> AsyncIterator[wire.WatchFilesReply]:
        known = set(self.service.place(message.path).iterdir())
        yield wire.WatchFilesReply()
        while True:
            for place in sorted(set(self.service.place(message.path).iterdir()) - known):
                known.add(place)
                change = wire.FileChange(
                    kind=wire.FileChangeKind.CREATED, path=message.path + b"/" + os.fsencode(place.name)
                )
                yield wire.WatchFilesReply(changes=[change])
            await asyncio.sleep(0.001)

    @counted
    async def read_tree(self, message: wire.ReadTreeRequest) -> AsyncIterator[wire.ReadTreeReply]:
        place = self.service.place(message.path)
        archive = self.service.root.parent / f"tree-{self.service.number()}.tar"
        try:
            with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
                tar.add(place, arcname=".")
            yield wire.ReadTreeReply()
            with archive.open("rb") as file:
                while data := file.read(65536):
                    yield wire.ReadTreeReply(data=data)
        finally:
            archive.unlink()

    @counted
    async def write_tree(self, messages: AsyncIterator[wire.WriteTreeRequest]) -> wire.WriteTreeReply:
        first = await anext(messages)
        assert first.start is not None
        place = self.service.place(first.start.path)
        place.mkdir(parents=True, exist_ok=True)
        archive = self.service.root.parent / f"tree-{self.service.number()}.tar"
        try:
            with archive.open("wb") as file:
                async for message in messages:
                    file.write(message.data or b"")
            with tarfile.open(archive) as tar:
                members = tar.getmembers()
                tar.extractall(place, filter="fully_trusted")
        finally:
            archive.unlink()
        return wire.WriteTreeReply(members=len(members), bytes=sum(member.size for member in members))


class Ports(wire.PortsBase):
    def __init__(self, service: FakeService) -> None:
        self.service = service

    @counted
    async def connect(self, messages: AsyncIterator[wire.ConnectRequest]) -> AsyncIterator[wire.ConnectReply]:
        first = await anext(messages)
        assert first.start is not None
        assert first.start.address is not None
        self.service.lease(first.start.lease_id)
        reader, writer = await self._open(first.start.address)
        async with contextlib.aclosing(_carry(messages, reader, writer, wire.ConnectReply)) as replies:
            async for reply in replies:
                yield reply

    @counted
    async def listen(self, message: wire.ListenRequest) -> AsyncIterator[wire.ListenReply]:
        self.service.lease(message.lease_id)
        assert message.address is not None
        came: asyncio.Queue[str] = asyncio.Queue()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            name = f"connection-{self.service.number()}"
            self.service.incoming[name] = reader, writer
            came.put_nowait(name)

        server = await asyncio.start_server(accept, "127.0.0.1", message.address.tcp_port or 0)
        try:
            port = server.sockets[0].getsockname()[1]
            yield wire.ListenReply(listening=wire.PortAddress(tcp_port=port, host="127.0.0.1"))
            while True:
                yield wire.ListenReply(incoming=wire.Incoming(connection_id=await came.get()))
        finally:
            server.close()
            for _, writer in self.service.incoming.values():
                writer.transport.abort()
            self.service.incoming.clear()

    @counted
    async def accept(self, messages: AsyncIterator[wire.AcceptRequest]) -> AsyncIterator[wire.AcceptReply]:
        first = await anext(messages)
        assert first.start is not None
        reader, writer = self.service.incoming.pop(first.start.connection_id)
        async with contextlib.aclosing(_carry(messages, reader, writer, wire.AcceptReply)) as replies:
            async for reply in replies:
                yield reply

    @counted
    async def wait(self, message: wire.WaitPortRequest) -> wire.WaitPortReply:
        assert message.address is not None
        while True:
            try:
                _, writer = await self._open(message.address)
            except GRPCError:
                await asyncio.sleep(0.001)
            else:
                writer.transport.abort()
                return wire.WaitPortReply()

    async def _open(self, address: wire.PortAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            if address.unix_path is not None:
                return await asyncio.open_unix_connection(os.fsdecode(address.unix_path))
            return await asyncio.open_connection(address.host or "127.0.0.1", address.tcp_port)
        except (ConnectionRefusedError, FileNotFoundError):
            raise refused("ECONNREFUSED", "nobody listens there") from None


async def _carry(
    messages: AsyncIterator[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: Any
) -> AsyncGenerator[Any, None]:
    async def outwards() -> None:
        async for message in messages:
            if message.data is not None:
                writer.write(message.data)
                await writer.drain()
            if message.end is not None:
                break
        writer.write_eof()

    sending = asyncio.ensure_future(outwards())
    try:
        yield reply(connected=wire.Connected())
        while data := await reader.read(65536):
            yield reply(data=data)
        yield reply(end=wire.EndOfStream())
        await sending
        writer.close()
        await writer.wait_closed()
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        writer.transport.abort()


@contextlib.contextmanager
def fake_service(directory: Path) -> Iterator[FakeService]:
    """In a thread of its own, until the end of the block."""
    root = directory / "guest"
    root.mkdir()
    service = FakeService(directory / "pool.sock", root)
    loop = asyncio.new_event_loop()
    service._loop = loop

    def serve() -> None:
        loop.run_forever()
        loop.run_until_complete(service.stop())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=serve, name="fake service")
    thread.start()
    try:
        service.in_loop(service.start)
        yield service
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        service.path.unlink(missing_ok=True)
        shutil.rmtree(root)
