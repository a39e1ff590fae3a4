"""The files of a guest."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import errno
import inspect
import math
import os
import secrets
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import IO, Any, Final

from vmpool.client import methods
from vmpool.client.chunks import CHUNK_BYTES, Chunks, pieces
from vmpool.client.connection import Connection
from vmpool.client.convert_guest import WRITE_MODES, GuestPath, file_change, file_info, to_path
from vmpool.client.errors import CallError, GuestFileNotFoundError
from vmpool.client.exchange import Call
from vmpool.client.local_trees import pack, unpack
from vmpool.client.methods import Method
from vmpool.client.opening import Opening, Resource
from vmpool.client.places import LocalPath
from vmpool.client.records import FileChange, FileInfo, TreeSummary
from vmpool.client.requests import WriteMode
from vmpool.client.transfer import consume, produced
from vmpool.wire.generated.vmpool import v1 as wire

FILE_LIMIT_S: Final = 60.0
"""For what a guest does at once."""

Progress = Callable[[int], object]
"""Told how many bytes of content were carried so far. What is awaitable is awaited."""


class ByteReader(Resource):
    """The bytes of a file or a tree, as an iterator; the guest waits while nobody reads."""

    def __init__(self, call: Call, info: FileInfo | None) -> None:
        self._call = call
        self._info = info

    @property
    def info(self) -> FileInfo | None:
        """The file; None for a tree."""
        return self._info

    def __aiter__(self) -> ByteReader:
        return self

    async def __anext__(self) -> bytes:
        while (reply := await self._call.receive()) is not None:
            if reply.data:
                data: bytes = reply.data
                return data
        raise StopAsyncIteration


class FileWatch(Resource):
    """What happens to watched files, as an iterator."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._next: list[FileChange] = []

    def __aiter__(self) -> FileWatch:
        return self

    async def __anext__(self) -> FileChange:
        while not self._next:
            reply = await self._call.receive()
            if reply is None:
                raise StopAsyncIteration
            self._next = [file_change(change) for change in reversed(reply.changes)]
        return self._next.pop()


class Files:
    """The files of a Vm. Paths are absolute; a str is UTF-8, with surrogates for other bytes, and bytes are taken as
    they are. `user` is a name or number in the guest, with whose rights files are reached; root unless named.

    What the guest's kernel refuses is raised as Python has it, FileNotFoundError, IsADirectoryError and so on, and as
    GuestError with its `errno`.
    """

    def __init__(self, connection: Connection, lease_id: str) -> None:
        self._connection = connection
        self._lease_id = lease_id

    async def read(self, path: GuestPath, *, offset: int = 0, length: int | None = None, user: str = "") -> bytes:
        """A regular file's content, from `offset` on, at most `length` bytes; all in memory."""
        if length == 0:
            await self.stat(path, user=user)
            return b""
        async with self.open_read(path, offset=offset, length=length, user=user) as reader:
            return b"".join([piece async for piece in reader])

    async def read_text(
        self, path: GuestPath, *, encoding: str = "utf-8", errors: str = "strict", user: str = ""
    ) -> str:
        """A regular file's content as text."""
        return (await self.read(path, user=user)).decode(encoding, errors)

    def open_read(
        self, path: GuestPath, *, offset: int = 0, length: int | None = None, user: str = ""
    ) -> Opening[ByteReader]:
        """A regular file's content, piece by piece."""
        request = wire.ReadRequest(
            lease_id=self._lease_id, path=to_path(path), user=user, offset=offset, length=length or 0
        )

        async def begin(ends: contextlib.AsyncExitStack) -> ByteReader:
            call, first = await self._begin(ends, methods.READ, request)
            return ByteReader(call, file_info(first.file))

        return Opening(begin)

    async def write(
        self,
        path: GuestPath,
        data: Chunks,
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
        the file appears whole or not at all, also if this is cancelled; other ways of `how` work in place, UPDATE
        from `offset` on.
        """
        start = wire.WriteStart(
            lease_id=self._lease_id,
            path=to_path(path),
            user=user,
            mode=mode,
            owner=owner,
            group=group,
            parents=parents,
            how=WRITE_MODES[WriteMode(how)],
            offset=offset,
        )
        requests = (wire.WriteRequest(data=piece) async for piece in pieces(data))
        reply = await self._send(methods.WRITE, wire.WriteRequest(start=start), requests)
        return file_info(reply.file)

    async def list(self, path: GuestPath, *, depth: int = 1, user: str = "") -> builtins.list[FileInfo]:
        """What is in a directory, in no order; with a `depth` of 2 also what is in its directories, and so on. Symbolic
        links are not followed.
        """
        request = wire.ListFilesRequest(lease_id=self._lease_id, path=to_path(path), user=user, depth=depth)
        found = []
        call = await self._connection.open(methods.LIST_FILES)
        try:
            await call.send_last(request)
            while (reply := await call.receive()) is not None:
                found += [file_info(file) for file in reply.files]
        finally:
            await call.aclose()
        return found

    async def stat(self, path: GuestPath, *, follow: bool = True, user: str = "") -> FileInfo:
        """What a path is; of a symbolic link itself unless `follow`."""
        request = wire.StatRequest(lease_id=self._lease_id, path=to_path(path), user=user, no_follow=not follow)
        return file_info((await self._ask(methods.STAT, request)).file)

    async def exists(self, path: GuestPath, *, user: str = "") -> bool:
        """Whether there is something at a path; a link that leads nowhere does not count."""
        try:
            await self.stat(path, user=user)
        except GuestFileNotFoundError:
            return False
        return True

    async def make_directory(
        self, path: GuestPath, *, mode: int | None = None, parents: bool = True, user: str = ""
    ) -> FileInfo:
        """Makes a directory, with mode 0755 unless one is given. With `parents`, those above it too, and one that
        exists is no error.
        """
        request = wire.MakeDirectoryRequest(
            lease_id=self._lease_id, path=to_path(path), user=user, mode=mode, parents=parents
        )
        return file_info((await self._ask(methods.MAKE_DIRECTORY, request)).file)

    async def move(self, path: GuestPath, target: GuestPath, *, replace: bool = True, user: str = "") -> FileInfo:
        """Renames, or over a file system's border copies and removes. A file in the way is replaced;
        GuestFileExistsError unless `replace`.
        """
        request = wire.MoveRequest(
            lease_id=self._lease_id, path=to_path(path), target=to_path(target), user=user, no_replace=not replace
        )
        return file_info((await self._ask(methods.MOVE, request, limit_s=math.inf)).file)

    async def copy(self, path: GuestPath, target: GuestPath, *, recursive: bool = True, user: str = "") -> FileInfo:
        """Copies a file or a tree within the guest, with modes, times and, as root, owners. If cancelled, a part may be
        there.
        """
        request = wire.CopyRequest(
            lease_id=self._lease_id, path=to_path(path), target=to_path(target), user=user, recursive=recursive
        )
        return file_info((await self._ask(methods.COPY, request, limit_s=math.inf)).file)

    async def remove(
        self, path: GuestPath, *, recursive: bool = True, missing_ok: bool = False, user: str = ""
    ) -> None:
        """Removes a file, a symbolic link itself, or a directory with all that is in it."""
        request = wire.RemoveRequest(
            lease_id=self._lease_id, path=to_path(path), user=user, recursive=recursive, missing_ok=missing_ok
        )
        await self._ask(methods.REMOVE, request, limit_s=math.inf)

    async def symlink(self, path: GuestPath, target: GuestPath, *, user: str = "") -> FileInfo:
        """Makes a symbolic link at `path`, to any text."""
        return await self._link(path, target, hard=False, user=user)

    async def hardlink(self, path: GuestPath, target: GuestPath, *, user: str = "") -> FileInfo:
        """Makes `path` another name of the file `target`."""
        return await self._link(path, target, hard=True, user=user)

    async def set_attributes(
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
        request = wire.SetAttributesRequest(
            lease_id=self._lease_id,
            path=to_path(path),
            user=user,
            mode=mode,
            owner=owner,
            group=group,
            modified_ns=modified_ns,
            recursive=recursive,
        )
        return file_info((await self._ask(methods.SET_ATTRIBUTES, request, limit_s=math.inf)).file)

    def watch(self, path: GuestPath, *, recursive: bool = False, user: str = "") -> Opening[FileWatch]:
        """What happens to a file, or in a directory, from the beginning of a block on. With `recursive` also below, in
        directories made later too. Ends with GuestFileNotFoundError when the path itself is removed.
        """
        request = wire.WatchFilesRequest(lease_id=self._lease_id, path=to_path(path), user=user, recursive=recursive)

        async def begin(ends: contextlib.AsyncExitStack) -> FileWatch:
            call, _ = await self._begin(ends, methods.WATCH_FILES, request)
            return FileWatch(call)

        return Opening(begin)

    def read_tree(self, path: GuestPath, *, user: str = "") -> Opening[ByteReader]:
        """A directory, or a file, as a tar stream in pax format; names in it are relative. `download` extracts it."""
        request = wire.ReadTreeRequest(lease_id=self._lease_id, path=to_path(path), user=user)

        async def begin(ends: contextlib.AsyncExitStack) -> ByteReader:
            call, _ = await self._begin(ends, methods.READ_TREE, request)
            return ByteReader(call, None)

        return Opening(begin)

    async def write_tree(
        self, path: GuestPath, chunks: Chunks, *, owners: bool = True, parents: bool = True, user: str = ""
    ) -> TreeSummary:
        """Extracts a tar stream in a directory of the guest, which is made if it is missing unless `parents` is false.
        Without `owners`, everything belongs to `user`. If cancelled, a part may be there.
        """
        start = wire.WriteTreeStart(
            lease_id=self._lease_id, path=to_path(path), user=user, parents=parents, no_owners=not owners
        )
        requests = (wire.WriteTreeRequest(data=piece) async for piece in pieces(chunks))
        reply = await self._send(methods.WRITE_TREE, wire.WriteTreeRequest(start=start), requests)
        return TreeSummary(members=reply.members, bytes=reply.bytes)

    async def upload(
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

        OSError for what cannot be read here, or is neither: `write` takes an open pipe. If cancelled, a part of a tree
        may be there.
        """
        local = Path(local_path)
        carried = _Carried(progress)
        if await asyncio.to_thread(local.is_dir):
            data = produced(lambda file: pack(local, file, carried.advance))
            async with contextlib.aclosing(carried.tell(data)) as told:
                await self.write_tree(path, told, owners=owners, user=user)
        else:
            status = await asyncio.to_thread(local.stat)
            if not stat.S_ISREG(
                status.st_mode
            ):  # to open it could wait without end, and its thread cannot be cancelled
                raise OSError(errno.EINVAL, "neither a regular file nor a directory", os.fspath(local))
            mode = status.st_mode & 0o7777
            data = produced(lambda file: _copy_out(local, file, carried.advance))
            async with contextlib.aclosing(carried.tell(data)) as told:
                await self.write(path, told, mode=mode, user=user)
        await carried.settle()

    async def download(
        self,
        path: GuestPath,
        local_path: LocalPath,
        *,
        user: str = "",
        progress: Progress | None = None,
    ) -> None:
        """Copies a file of the guest to the file `local_path`, which appears whole or not at all, or what is in a
        directory of the guest into the directory `local_path`. Owners are kept if this program is root's.

        A guest is not trusted: UnsafeTreeError for what would leave the directory, and for devices. OSError for what
        cannot be written here. If cancelled, a part of a tree may be there.
        """
        local = Path(local_path)
        carried = _Carried(progress)
        info = await self.stat(path, user=user)
        if info.is_directory:
            async with self.read_tree(path, user=user) as tree:
                await consume(lambda file: unpack(file, local, carried.advance), carried.tell(tree))
        else:
            async with self.open_read(path, user=user) as reader:
                await consume(
                    lambda file: _copy_in(file, local, info.mode & 0o777, carried.advance), carried.tell(reader)
                )
        await carried.settle()

    async def _link(self, path: GuestPath, target: GuestPath, *, hard: bool, user: str) -> FileInfo:
        request = wire.LinkRequest(
            lease_id=self._lease_id, path=to_path(path), target=to_path(target), user=user, hard=hard
        )
        return file_info((await self._ask(methods.LINK, request)).file)

    async def _ask(self, method: Method, request: Any, *, limit_s: float = FILE_LIMIT_S) -> Any:
        return await self._connection.ask(method, request, timeout_s=limit_s)

    async def _begin(self, ends: contextlib.AsyncExitStack, method: Method, request: Any) -> tuple[Call, Any]:
        """A call with many replies, of which the first one says that it has begun."""
        call = await self._connection.open(method)
        ends.push_async_callback(call.aclose)
        await call.send_last(request)
        first = await call.receive()
        if first is None:
            raise CallError(status="INTERNAL", message="the call ended without a reply; see the service's log")
        return call, first

    async def _send(self, method: Method, start: Any, requests: AsyncGenerator[Any, None]) -> Any:
        """A call with many requests and one reply."""
        call = await self._connection.open(method)
        try:
            await call.send(start)
            async with contextlib.aclosing(requests):
                async for request in requests:
                    await call.send(request)
            await call.end()
            reply = await call.receive()
            if reply is None:
                raise CallError(status="INTERNAL", message="the call ended without a reply; see the service's log")
            await call.receive()
            return reply
        finally:
            await call.aclose()


class _Carried:
    """Counts in the thread that does the work, and tells in the loop."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._bytes = 0
        self._told = -1

    def advance(self, count: int) -> None:
        self._bytes += count

    async def tell(self, data: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for piece in data:
            yield piece
            await self.settle()

    async def settle(self) -> None:
        if self._progress is not None and self._bytes != self._told:
            self._told = self._bytes
            told = self._progress(self._bytes)
            if inspect.isawaitable(told):
                await told


def _copy_out(path: Path, into: IO[bytes], advance: Callable[[int], None]) -> None:
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            into.write(data)
            advance(len(data))


def _copy_in(source: IO[bytes], path: Path, mode: int, advance: Callable[[int], None]) -> None:
    """Under another name first; replaced whole."""
    fresh = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    try:
        with fresh.open("xb") as file:
            while data := source.read(CHUNK_BYTES):
                file.write(data)
                advance(len(data))
        fresh.chmod(mode)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
