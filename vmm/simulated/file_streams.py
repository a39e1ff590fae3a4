"""Streams of the files of a simulated guest."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import trio

from vmm.errors import AgentRequestError
from vmm.simulated import trees
from vmm.simulated.file_system import Node, request_error
from vmm.simulated.machine import Machine
from vmm.words.commands import Room
from vmm.words.files import FileChangeKind, FileInfo, FileWrite, TreeSummary, TreeWrite, WriteMode

_Record = TypeVar("_Record")

_PIECE: Final = 64 * 1024


class SimulatedReader:
    """Implements `vmm.contract.files.FileReader`."""

    def __init__(self, machine: Machine, info: FileInfo, data: bytes, room: Room) -> None:
        self.info = info
        self._machine = machine
        self._data = memoryview(data)
        self._piece = min(room.window, _PIECE)

    async def receive(self) -> bytes:
        """See the contract."""
        await self._machine.guest_runs()
        piece, self._data = self._data[: self._piece], self._data[self._piece :]
        return bytes(piece)

    async def aclose(self) -> None:
        """See the contract."""
        self._data = self._data[:0]
        await trio.lowlevel.checkpoint()


class SimulatedRecords(Generic[_Record]):
    """Implements `vmm.contract.streams.RecordSource`."""

    def __init__(self, machine: Machine, records: Sequence[_Record], *, more: bool = False) -> None:
        """`more` come with `add`, until `end`."""
        self._machine = machine
        self._records = list(records)
        self._more = more
        self._error: AgentRequestError | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._resources = contextlib.ExitStack()
        if more:
            machine.start_soon(self._wake_at_the_end)

    @property
    def count(self) -> int:
        """Unread ones."""
        return len(self._records)

    def add(self, record: _Record) -> None:
        if self._more:
            self._records.append(record)
            self._changed.unpark_all()

    def end(self, error: AgentRequestError) -> None:
        """After what is unread, the reader gets this error."""
        self._more = False
        self._error = error
        self._changed.unpark_all()

    def on_close(self, resource: contextlib.AbstractContextManager[None]) -> None:
        """Enters it, and leaves it when this is closed."""
        self._resources.enter_context(resource)

    async def receive(self) -> tuple[_Record, ...]:
        """See the contract."""
        await self._machine.guest_runs()
        while not self._records and self._more:
            await self._changed.park()
            await self._machine.guest_runs()
        if not self._records and self._error is not None:
            raise self._error
        records, self._records = tuple(self._records[:500]), self._records[500:]
        return records

    async def aclose(self) -> None:
        """See the contract."""
        self._more, self._error = False, None
        self._records.clear()
        self._resources.close()
        self._changed.unpark_all()
        await trio.lowlevel.checkpoint()

    async def _wake_at_the_end(self) -> None:
        try:
            while self._more:
                await self._changed.park()
        finally:
            self._changed.unpark_all()


class SimulatedWriter:
    """Implements `vmm.contract.files.FileWriter`."""

    def __init__(
        self,
        machine: Machine,
        write: FileWrite,
        *,
        asked: bytes,
        node: Node | None,
        uid: int,
        owner: int | None,
        group: int | None,
    ) -> None:
        """`node` is the file that is written in place, or replaced. `write` has the path without links."""
        self._machine = machine
        self._write = write
        self._asked = asked
        self._node = node
        self._uid = uid
        self._owner = owner
        self._group = group
        self._data = b""
        self._closed = False
        if node is not None and write.how is not WriteMode.REPLACE:
            kept = {WriteMode.UPDATE: node.data[: write.offset], WriteMode.APPEND: node.data}.get(write.how, b"")
            self._data = kept.ljust(write.offset, b"\0") if write.how is WriteMode.UPDATE else kept
            self._set_attributes(node)

    async def send(self, data: bytes) -> None:
        """See the contract."""
        await self._machine.guest_runs()
        if self._closed:
            raise trio.ClosedResourceError
        self._data += data
        if self._node is not None and self._write.how is not WriteMode.REPLACE:
            self._put(self._node, self._data + self._rest(self._node))

    async def finish(self) -> FileInfo:
        """See the contract."""
        await self._machine.guest_runs()
        system = self._machine.files
        node = self._node
        if self._write.how is WriteMode.REPLACE:
            fresh = system.new_file(uid=self._uid if node is None else node.uid)
            if node is not None:
                fresh.mode = node.mode
                fresh.gid = node.gid
            self._set_attributes(fresh)
            self._put(fresh, self._data)
            if node is not None:
                system.take_away(self._write.path, tell=False)
            system.add(self._write.path, fresh)
            node = fresh
        else:
            assert node is not None
            self._put(node, self._data + self._rest(node))
        system.tell(FileChangeKind.WRITTEN, self._write.path, node)
        self._closed = True
        return system.info(self._asked, node)

    async def aclose(self) -> None:
        """See the contract."""
        self._closed = True
        await trio.lowlevel.checkpoint()

    def _rest(self, node: Node) -> bytes:
        return node.data[len(self._data) :] if self._write.how is WriteMode.UPDATE else b""

    def _put(self, node: Node, data: bytes) -> None:
        try:
            self._machine.files.write(node, data, self._write.path)
        except OSError as error:
            raise request_error("write", error) from error

    def _set_attributes(self, node: Node) -> None:
        if self._write.mode is not None:
            node.mode = stat.S_IFREG | self._write.mode
        node.uid = node.uid if self._owner is None else self._owner
        node.gid = node.gid if self._group is None else self._group


class SimulatedTreeWriter:
    """Implements `vmm.contract.files.TreeWriter`."""

    def __init__(self, machine: Machine, write: TreeWrite, *, uid: int) -> None:
        self._machine = machine
        self._write = write
        self._uid = uid
        self._data = bytearray()

    async def send(self, data: bytes) -> None:
        """See the contract."""
        await self._machine.guest_runs()
        self._data += data

    async def finish(self) -> TreeSummary:
        """See the contract."""
        await self._machine.guest_runs()
        try:
            return trees.unpack(self._machine.files, self._write, bytes(self._data), uid=self._uid)
        except OSError as error:
            raise request_error("write_tree", error) from error

    async def aclose(self) -> None:
        """See the contract."""
        self._data.clear()
        await trio.lowlevel.checkpoint()
