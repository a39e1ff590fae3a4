"""The files of a simulated guest, as its agent shows them. Implements `vmm.contract.GuestFiles`."""

from __future__ import annotations

import contextlib
import errno
import posixpath
from collections.abc import Iterator
from typing import Final

import attrs

from vmm.contract.streams import ByteSource, RecordSource
from vmm.errors import AgentRequestError
from vmm.simulated import trees
from vmm.simulated.faults import FilesFail
from vmm.simulated.file_edits import apply
from vmm.simulated.file_streams import SimulatedReader, SimulatedRecords, SimulatedTreeWriter, SimulatedWriter
from vmm.simulated.file_system import FileSystem, refused, request_error, uid_of
from vmm.simulated.machine import Machine
from vmm.words.commands import WHOLE, Room
from vmm.words.files import (
    FileChange,
    FileChangeKind,
    FileEdit,
    FileInfo,
    FileKind,
    FileWrite,
    TreeWrite,
    WriteMode,
)

_MAX_CHANGES: Final = 1024
"""Unread ones; what comes then is lost, as with inotify."""


class SimulatedFiles:
    """Works on `Machine.files`, so that programs, `put_file` and `get_file` see the same."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def _system(self) -> FileSystem:
        return self._machine.files

    async def stat(self, path: bytes, *, user: str = "", follow: bool = True) -> FileInfo:
        """See the contract."""
        await self._ready("stat")
        with _refusing("stat"):
            return self._system.info(path, self._system.find(path, uid=uid_of(user), follow=follow))

    async def edit(self, edit: FileEdit, *, user: str = "") -> FileInfo | None:
        """See the contract."""
        await self._ready("edit")
        with _refusing("edit"):
            path = apply(self._system, edit, uid=uid_of(user))
            return None if path is None else self._system.info(path, self._system.find(path, follow=False))

    async def list(self, path: bytes, *, depth: int = 1, user: str = "", room: Room = WHOLE) -> RecordSource[FileInfo]:  # noqa: ARG002
        """See the contract."""
        await self._ready("list")
        with _refusing("list"):
            found = [self._system.info(*entry) for entry in self._system.walk(path, depth=depth, uid=uid_of(user))]
        return SimulatedRecords(self._machine, found)

    async def read(
        self, path: bytes, *, offset: int = 0, length: int | None = None, user: str = "", room: Room = WHOLE
    ) -> SimulatedReader:
        """See the contract."""
        await self._ready("read")
        with _refusing("read"):
            uid = uid_of(user)
            node = self._system.find(path, uid=uid)
            _check_regular(node.kind, path)
            self._system.check_right(node, path, uid, 4)
            data = node.data[offset : None if length is None else offset + length]
            return SimulatedReader(self._machine, self._system.info(path, node), data, room)

    async def write(self, write: FileWrite, *, user: str = "", room: Room = WHOLE) -> SimulatedWriter:  # noqa: ARG002
        """See the contract."""
        await self._ready("write")
        system, path = self._system, write.path
        with _refusing("write"):
            uid = uid_of(user)
            owner = uid_of(write.owner, part="owner") if write.owner else None
            group = uid_of(write.group, part="group") if write.group else None
            if write.parents:
                system.make_directories(posixpath.dirname(path), uid=uid)
            if write.how is WriteMode.CREATE and system.place(path, uid=uid)[2] is not None:
                raise refused(errno.EEXIST, path)
            real = system.resolve(path, uid=uid)
            _, _, node = system.place(real, uid=uid)
            if node is not None:
                _check_regular(node.kind, path)
                system.check_right(node, path, uid, 2)
            elif write.how is not WriteMode.REPLACE:
                node = system.make_file(real, uid=uid)
            else:
                system.check_right(system.find(posixpath.dirname(real)), path, uid, 2)
            if uid and {owner, group} - {None, uid}:
                raise refused(errno.EPERM, path)
            return SimulatedWriter(
                self._machine, attrs.evolve(write, path=real), asked=path, node=node, uid=uid, owner=owner, group=group
            )

    async def watch(
        self,
        path: bytes,
        *,
        recursive: bool = False,
        user: str = "",
        room: Room = WHOLE,  # noqa: ARG002 - nothing is on its way
    ) -> RecordSource[FileChange]:
        """See the contract."""
        await self._ready("watch")
        with _refusing("watch"):
            uid = uid_of(user)
            self._system.check_right(self._system.find(path, uid=uid), path, uid, 4)
            real = self._system.resolve(path, uid=uid)
        changes = SimulatedRecords[FileChange](self._machine, [], more=True)

        def on_change(change: FileChange) -> None:
            gone = change.kind in {FileChangeKind.REMOVED, FileChangeKind.MOVED} and _is_at(real, change.path)
            told = _seen(change, real, path, recursive=recursive)
            if told is not None:
                if changes.count < _MAX_CHANGES:
                    changes.add(told)
                elif changes.count == _MAX_CHANGES:
                    changes.add(FileChange(kind=FileChangeKind.OVERFLOW))
            if gone:
                changes.end(request_error("watch", refused(errno.ENOENT, path)))

        changes.on_close(self._system.told_to(on_change))
        return changes

    async def read_tree(self, path: bytes, *, user: str = "", room: Room = WHOLE) -> ByteSource:
        """See the contract."""
        await self._ready("read_tree")
        with _refusing("read_tree"):
            uid = uid_of(user)
            info = self._system.info(path, self._system.find(path, uid=uid))
            return SimulatedReader(self._machine, info, trees.pack(self._system, path, uid=uid), room)

    async def write_tree(self, write: TreeWrite, *, user: str = "", room: Room = WHOLE) -> SimulatedTreeWriter:  # noqa: ARG002
        """See the contract. Extracts everything at the end."""
        await self._ready("write_tree")
        with _refusing("write_tree"):
            uid = uid_of(user)
            if write.parents:
                self._system.make_directories(write.path, uid=uid)
            if not self._system.find(write.path, uid=uid).is_directory:
                raise refused(errno.ENOTDIR, write.path)
        return SimulatedTreeWriter(self._machine, write, uid=uid)

    async def _ready(self, request: str) -> None:
        await self._machine.guest_runs()
        for fault in self._machine.faults:
            if isinstance(fault, FilesFail):
                raise AgentRequestError(request=request, code=fault.code, message=fault.message)


@contextlib.contextmanager
def _refusing(request: str) -> Iterator[None]:
    """An error of the file system as the agent's."""
    try:
        yield
    except OSError as error:
        raise request_error(request, error) from error


def _check_regular(kind: FileKind, path: bytes) -> None:
    if kind is FileKind.DIRECTORY:
        raise refused(errno.EISDIR, path)
    if kind is not FileKind.REGULAR:
        raise refused(errno.EINVAL, path)


def _is_at(watched: bytes, path: bytes) -> bool:
    """Whether what happened to `path` happened to what is watched, too."""
    return watched == path or watched.startswith(path + b"/")


def _seen(change: FileChange, real: bytes, asked: bytes, *, recursive: bool) -> FileChange | None:
    """A change as a watcher tells it, None if it does not."""

    def told(path: bytes) -> bytes | None:
        inner = posixpath.relpath(path, real)
        if path == real:
            return asked
        if inner.startswith(b"..") or (b"/" in inner and not recursive):
            return None
        return posixpath.join(asked, inner)

    path, target = told(change.path), told(change.target) if change.target else b""
    if change.kind is not FileChangeKind.MOVED:
        return None if path is None else attrs.evolve(change, path=path)
    if path and target:
        return attrs.evolve(change, path=path, target=target)
    if path:
        return attrs.evolve(change, kind=FileChangeKind.REMOVED, path=path, target=b"")
    return attrs.evolve(change, kind=FileChangeKind.CREATED, path=target, target=b"") if target else None
