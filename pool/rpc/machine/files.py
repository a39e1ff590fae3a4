"""The methods of vmpool.v1.Files."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final, Protocol

import attrs
from grpclib.const import Cardinality, Handler

from pool.rpc.calls import Calls, ServerStream, end, receive, receive_only, reply, send
from pool.rpc.errors import InvalidRequestError
from pool.rpc.leases import lease_id_of
from pool.rpc.machine import file_messages as messages
from pool.rpc.machine.fields import kind_of, path_of, start_of, user_of
from pool.rpc.machine.file_messages import change_message, file_message
from pool.rpc.machine.guests import Guest, Guests
from pool.rpc.machine.statuses import FILES
from pool.rpc.peer import current_owner
from pool.rpc.stream import guarded
from vmm.contract import FileWriter, TreeWriter
from vmm.words.files import FileEdit
from vmpool.wire.generated.vmpool import v1 as wire

_SERVICE: Final = "/vmpool.v1.Files"


class _Asked(Protocol):
    """What all requests of this service have; `start` of those that are streams."""

    lease_id: str
    path: bytes
    user: str


@attrs.define(eq=False, kw_only=True)
class FilesService(wire.FilesBase):
    """The methods as trio code; see `pool.rpc.service`."""

    guests: Guests
    calls: Calls

    def __mapping__(self) -> dict[str, Handler]:
        method, to_client, to_guest = self.calls.method, Cardinality.UNARY_STREAM, Cardinality.STREAM_UNARY
        return {
            f"{_SERVICE}/Stat": method(self.stat_call, wire.StatRequest, wire.StatReply),
            f"{_SERVICE}/List": method(self.list_call, wire.ListFilesRequest, wire.ListFilesReply, to_client),
            f"{_SERVICE}/Read": method(self.read_call, wire.ReadRequest, wire.ReadReply, to_client),
            f"{_SERVICE}/Write": method(self.write_call, wire.WriteRequest, wire.WriteReply, to_guest),
            f"{_SERVICE}/MakeDirectory": method(
                self.make_directory_call, wire.MakeDirectoryRequest, wire.MakeDirectoryReply
            ),
            f"{_SERVICE}/Move": method(self.move_call, wire.MoveRequest, wire.MoveReply),
            f"{_SERVICE}/Copy": method(self.copy_call, wire.CopyRequest, wire.CopyReply),
            f"{_SERVICE}/Remove": method(self.remove_call, wire.RemoveRequest, wire.RemoveReply),
            f"{_SERVICE}/Link": method(self.link_call, wire.LinkRequest, wire.LinkReply),
            f"{_SERVICE}/SetAttributes": method(
                self.set_attributes_call, wire.SetAttributesRequest, wire.SetAttributesReply
            ),
            f"{_SERVICE}/Watch": method(self.watch_call, wire.WatchFilesRequest, wire.WatchFilesReply, to_client),
            f"{_SERVICE}/ReadTree": method(self.read_tree_call, wire.ReadTreeRequest, wire.ReadTreeReply, to_client),
            f"{_SERVICE}/WriteTree": method(self.write_tree_call, wire.WriteTreeRequest, wire.WriteTreeReply, to_guest),
        }

    def _guest(self, asked: _Asked, *, prefix: str = "") -> AbstractAsyncContextManager[Guest]:
        """`prefix` is that of the fields' names."""
        lease_id = lease_id_of(asked.lease_id, field=f"{prefix}lease_id")
        path_of(f"{prefix}path", asked.path)
        user_of(f"{prefix}user", asked.user)
        return self.guests.of(lease_id, owner=current_owner(), statuses=FILES, path=asked.path)

    # -- one answer ----------------------------------------------------------------------------------------------------

    async def stat_call(self, stream: ServerStream) -> None:
        request: wire.StatRequest = await receive_only(stream)
        async with self._guest(request) as guest:
            info = await guest.agent.files.stat(request.path, user=request.user, follow=not request.no_follow)
        await reply(stream, wire.StatReply(file=file_message(info)))

    async def make_directory_call(self, stream: ServerStream) -> None:
        request = await receive_only(stream)
        file = await self._edit(request, messages.make_directory(request))
        await reply(stream, wire.MakeDirectoryReply(file=file))

    async def move_call(self, stream: ServerStream) -> None:
        request = await receive_only(stream)
        await reply(stream, wire.MoveReply(file=await self._edit(request, messages.move(request))))

    async def copy_call(self, stream: ServerStream) -> None:
        request = await receive_only(stream)
        await reply(stream, wire.CopyReply(file=await self._edit(request, messages.copy(request))))

    async def remove_call(self, stream: ServerStream) -> None:
        request = await receive_only(stream)
        await self._edit(request, messages.remove(request))
        await reply(stream, wire.RemoveReply())

    async def link_call(self, stream: ServerStream) -> None:
        request = await receive_only(stream)
        await reply(stream, wire.LinkReply(file=await self._edit(request, messages.link(request))))

    async def set_attributes_call(self, stream: ServerStream) -> None:
        request = await receive_only(stream)
        file = await self._edit(request, messages.set_attributes(request))
        await reply(stream, wire.SetAttributesReply(file=file))

    async def _edit(self, request: _Asked, edit: FileEdit) -> wire.FileInfo | None:
        async with self._guest(request) as guest:
            info = await guest.agent.files.edit(edit, user=request.user)
        return None if info is None else file_message(info)

    # -- streams to the client -----------------------------------------------------------------------------------------

    async def list_call(self, stream: ServerStream) -> None:
        request: wire.ListFilesRequest = await receive_only(stream)
        with guarded(stream).user.guest_stream() as room:
            async with (
                self._guest(request) as guest,
                aclosing(
                    await guest.agent.files.list(request.path, depth=request.depth or 1, user=request.user, room=room)
                ) as found,
            ):
                while files := await found.receive():
                    await send(stream, wire.ListFilesReply(files=[file_message(info) for info in files]))
        await end(stream)

    async def read_call(self, stream: ServerStream) -> None:
        request: wire.ReadRequest = await receive_only(stream)
        length = messages.read_length(request)
        with guarded(stream).user.guest_stream() as room:
            async with (
                self._guest(request) as guest,
                aclosing(
                    await guest.agent.files.read(
                        request.path, offset=request.offset, length=length, user=request.user, room=room
                    )
                ) as reader,
            ):
                await send(stream, wire.ReadReply(file=file_message(reader.info)))
                while data := await reader.receive():
                    await send(stream, wire.ReadReply(data=data))
        await end(stream)

    async def read_tree_call(self, stream: ServerStream) -> None:
        request: wire.ReadTreeRequest = await receive_only(stream)
        with guarded(stream).user.guest_stream() as room:
            async with (
                self._guest(request) as guest,
                aclosing(await guest.agent.files.read_tree(request.path, user=request.user, room=room)) as tree,
            ):
                await send(stream, wire.ReadTreeReply())
                while data := await tree.receive():
                    await send(stream, wire.ReadTreeReply(data=data))
        await end(stream)

    async def watch_call(self, stream: ServerStream) -> None:
        request: wire.WatchFilesRequest = await receive_only(stream)
        with guarded(stream).user.guest_stream() as room:
            async with (
                self._guest(request) as guest,
                aclosing(
                    await guest.agent.files.watch(
                        request.path, recursive=request.recursive, user=request.user, room=room
                    )
                ) as watched,
            ):
                await send(stream, wire.WatchFilesReply())
                while changes := await watched.receive():
                    await send(stream, wire.WatchFilesReply(changes=[change_message(change) for change in changes]))
        await end(stream)

    # -- streams to the guest ------------------------------------------------------------------------------------------

    async def write_call(self, stream: ServerStream) -> None:
        start: wire.WriteStart = start_of(await receive(stream), "data")
        write = messages.file_write(start)
        with guarded(stream).user.guest_stream() as room:
            async with (
                self._guest(start, prefix="start.") as guest,
                aclosing(await guest.agent.files.write(write, user=start.user, room=room)) as writer,
            ):
                await _pass_on(stream, writer)
                info = await writer.finish()
        await reply(stream, wire.WriteReply(file=file_message(info)))

    async def write_tree_call(self, stream: ServerStream) -> None:
        start: wire.WriteTreeStart = start_of(await receive(stream), "data")
        write = messages.tree_write(start)
        with guarded(stream).user.guest_stream() as room:
            async with (
                self._guest(start, prefix="start.") as guest,
                aclosing(await guest.agent.files.write_tree(write, user=start.user, room=room)) as writer,
            ):
                await _pass_on(stream, writer)
                summary = await writer.finish()
        await reply(stream, wire.WriteTreeReply(members=summary.members, bytes=summary.size))


async def _pass_on(stream: ServerStream, writer: FileWriter | TreeWriter) -> None:
    """Passes the data on until the requests end. Waits while the guest does not take it."""
    while (request := await receive(stream)) is not None:
        if kind_of(request, "start", "data") == "start":
            raise InvalidRequestError(field="start", reason="was already sent; use one call for each file or tree")
        await writer.send(request.data)
