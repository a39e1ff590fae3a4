"""The guest's files, as its agent shows them."""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, TypeVar

import attrs

from vmm.contract.streams import ByteSource, RecordSource
from vmm.errors import AgentProtocolError
from vmm.guest import file_answers
from vmm.guest.connection import Connection
from vmm.guest.requests import Request
from vmm.guest.streams import RemoteRecords, RemoteStream
from vmm.words.commands import WHOLE, Room
from vmm.words.files import (
    Copy,
    FileChange,
    FileEdit,
    FileInfo,
    FileWrite,
    Link,
    MakeDirectory,
    Move,
    Remove,
    SetAttributes,
    TreeSummary,
    TreeWrite,
)

_Result = TypeVar("_Result")

_EDITS = {
    MakeDirectory: "make_directory",
    Move: "move",
    Copy: "copy",
    Remove: "remove",
    Link: "link",
    SetAttributes: "set_attributes",
}


class RemoteReader:
    """Implements `vmm.contract.files.FileReader`."""

    def __init__(self, connection: Connection, stream: RemoteStream, info: FileInfo, length: int | None) -> None:
        """Takes over the stream."""
        self.info = info
        self._connection = connection
        self._stream = stream
        self._left = length

    async def receive(self) -> bytes:
        """See the contract. Raises AgentProtocolError if the guest sends more than it was asked for."""
        data = await self._stream.receive()
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                with self._connection.judging():
                    raise AgentProtocolError("the guest agent sent more of a file than it was asked for")
        return data

    async def aclose(self) -> None:
        """See the contract."""
        await self._stream.aclose()


class RemoteWriter(Generic[_Result]):
    """Implements `vmm.contract.files.FileWriter`, and `TreeWriter`: their results differ."""

    def __init__(self, connection: Connection, stream: RemoteStream, results: RemoteRecords[_Result]) -> None:
        """Takes over the stream, and with it the results: the guest sends one record when all is written."""
        self._connection = connection
        self._stream = stream
        self._results = results

    async def send(self, data: bytes) -> None:
        """See the contract."""
        await self._stream.send(data)

    async def finish(self) -> _Result:
        """See the contract."""
        await self._stream.send_eof()
        results = await self._results.receive()
        if len(results) != 1 or await self._results.receive():
            with self._connection.judging():
                raise AgentProtocolError("the guest agent did not tell once what it has written")
        return results[0]

    async def aclose(self) -> None:
        """See the contract."""
        await self._results.aclose()


class RemoteFiles:
    """Implements `vmm.contract.GuestFiles`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def stat(self, path: bytes, *, user: str = "", follow: bool = True) -> FileInfo:
        """See the contract."""
        fields = await self._answer("stat", {"path": path, "user": user, "follow": follow})
        with self._connection.judging():
            return file_answers.info_at(path, fields)

    async def edit(self, edit: FileEdit, *, user: str = "") -> FileInfo | None:
        """See the contract."""
        wanted = attrs.asdict(edit)
        fields = await self._answer("edit", {"what": _EDITS[type(edit)], "user": user, **wanted})
        if isinstance(edit, Remove):
            return None
        at = edit.target if isinstance(edit, Move | Copy) else edit.path
        with self._connection.judging():
            return file_answers.info_at(at, fields)

    async def list(self, path: bytes, *, depth: int = 1, user: str = "", room: Room = WHOLE) -> RecordSource[FileInfo]:
        """See the contract."""
        stream = await self._open("list", {"path": path, "user": user, "depth": depth}, room=room)
        return RemoteRecords(self._connection, stream, partial(file_answers.info_below, path, depth=depth))

    async def read(
        self, path: bytes, *, offset: int = 0, length: int | None = None, user: str = "", room: Room = WHOLE
    ) -> RemoteReader:
        """See the contract."""
        fields = {"path": path, "user": user, "offset": offset, "length": length}
        stream = await self._open("read", fields, room=room)
        try:
            with self._connection.judging():
                info = file_answers.info_at(path, stream.answer)
        except AgentProtocolError:
            await stream.aclose()
            raise
        return RemoteReader(self._connection, stream, info, length)

    async def write(self, write: FileWrite, *, user: str = "", room: Room = WHOLE) -> RemoteWriter[FileInfo]:
        """See the contract."""
        fields = attrs.asdict(write) | {"how": write.how.value, "user": user}
        stream = await self._open("write", fields, room=room, takes_input=True)
        results = RemoteRecords(self._connection, stream, partial(file_answers.info_at, write.path))
        return RemoteWriter(self._connection, stream, results)

    async def watch(
        self, path: bytes, *, recursive: bool = False, user: str = "", room: Room = WHOLE
    ) -> RecordSource[FileChange]:
        """See the contract."""
        stream = await self._open("watch", {"path": path, "user": user, "recursive": recursive}, room=room)
        return RemoteRecords(self._connection, stream, partial(file_answers.change_at, path, recursive=recursive))

    async def read_tree(self, path: bytes, *, user: str = "", room: Room = WHOLE) -> ByteSource:
        """See the contract."""
        return await self._open("read_tree", {"path": path, "user": user}, room=room)

    async def write_tree(self, write: TreeWrite, *, user: str = "", room: Room = WHOLE) -> RemoteWriter[TreeSummary]:
        """See the contract."""
        fields = attrs.asdict(write) | {"user": user}
        stream = await self._open("write_tree", fields, room=room, takes_input=True)
        return RemoteWriter(self._connection, stream, RemoteRecords(self._connection, stream, file_answers.summary))

    async def _answer(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        with Request(self._connection, name, fields) as request:
            return await request.reply()

    async def _open(self, name: str, fields: dict[str, Any], *, room: Room, takes_input: bool = False) -> RemoteStream:
        return await RemoteStream.open(self._connection, name, fields, takes_input=takes_input, room=room)
