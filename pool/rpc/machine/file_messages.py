"""Files on the wire: checks of requests, and what is told of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pool.rpc.errors import InvalidRequestError, sendable
from pool.rpc.machine.fields import MAX_OFFSET, link_target_of, mode_of, offset_of, path_of, user_of
from vmm.words.files import (
    Copy,
    FileChange,
    FileInfo,
    FileWrite,
    Link,
    MakeDirectory,
    Move,
    Remove,
    SetAttributes,
    TreeWrite,
    WriteMode,
)
from vmpool.wire.generated.vmpool import v1 as wire

_HOW: Final[Mapping[int, WriteMode]] = {
    wire.WriteMode.UNSPECIFIED.value: WriteMode.REPLACE,
    wire.WriteMode.REPLACE.value: WriteMode.REPLACE,
    wire.WriteMode.CREATE.value: WriteMode.CREATE,
    wire.WriteMode.TRUNCATE.value: WriteMode.TRUNCATE,
    wire.WriteMode.UPDATE.value: WriteMode.UPDATE,
    wire.WriteMode.APPEND.value: WriteMode.APPEND,
}


def file_write(start: wire.WriteStart) -> FileWrite:
    """Raises InvalidRequestError, as all below."""
    if int(start.how) not in _HOW:
        raise InvalidRequestError(
            field="start.how",
            reason=f"{int(start.how)} is unknown to this service; use REPLACE (1), CREATE (2), TRUNCATE (3), "
            "UPDATE (4) or APPEND (5)",
        )
    how = _HOW[int(start.how)]
    if start.offset and how is not WriteMode.UPDATE:
        raise InvalidRequestError(field="start.offset", reason="is for UPDATE only; leave it out")
    return FileWrite(
        path=path_of("start.path", start.path),
        how=how,
        mode=mode_of("start.mode", start.mode),
        owner=user_of("start.owner", start.owner),
        group=user_of("start.group", start.group),
        parents=start.parents,
        offset=offset_of("start.offset", start.offset),
    )


def tree_write(start: wire.WriteTreeStart) -> TreeWrite:
    return TreeWrite(path=path_of("start.path", start.path), parents=start.parents, owners=not start.no_owners)


def read_length(request: wire.ReadRequest) -> int | None:
    """None: to the end."""
    offset = offset_of("offset", request.offset)
    if request.length > MAX_OFFSET - offset:
        raise InvalidRequestError(field="length", reason=f"{request.length} ends beyond {MAX_OFFSET}; use 0 for all")
    return request.length or None


def make_directory(request: wire.MakeDirectoryRequest) -> MakeDirectory:
    return MakeDirectory(
        path=path_of("path", request.path), mode=mode_of("mode", request.mode), parents=request.parents
    )


def move(request: wire.MoveRequest) -> Move:
    return Move(
        path=path_of("path", request.path), target=path_of("target", request.target), replace=not request.no_replace
    )


def copy(request: wire.CopyRequest) -> Copy:
    return Copy(
        path=path_of("path", request.path), target=path_of("target", request.target), recursive=request.recursive
    )


def remove(request: wire.RemoveRequest) -> Remove:
    return Remove(path=path_of("path", request.path), recursive=request.recursive, missing_ok=request.missing_ok)


def link(request: wire.LinkRequest) -> Link:
    target = path_of("target", request.target) if request.hard else link_target_of("target", request.target)
    return Link(path=path_of("path", request.path), target=target, hard=request.hard)


def set_attributes(request: wire.SetAttributesRequest) -> SetAttributes:
    wanted = (request.mode, request.owner or None, request.group or None, request.modified_ns)
    if all(value is None for value in wanted):
        raise InvalidRequestError(field="mode", reason="and owner, group and modified_ns are not set; set one of them")
    return SetAttributes(
        path=path_of("path", request.path),
        mode=mode_of("mode", request.mode),
        owner=user_of("owner", request.owner),
        group=user_of("group", request.group),
        modified_ns=request.modified_ns,
        recursive=request.recursive,
    )


# -- replies -----------------------------------------------------------------------------------------------------------


def file_message(info: FileInfo) -> wire.FileInfo:
    return wire.FileInfo(
        path=info.path,
        kind=wire.FileKind[info.kind.name],
        size=info.size,
        mode=info.mode,
        uid=info.uid,
        gid=info.gid,
        user=sendable(info.user),
        group=sendable(info.group),
        modified_ns=info.modified_ns,
        target=info.target,
        links=info.links,
        inode=info.inode,
    )


def change_message(change: FileChange) -> wire.FileChange:
    return wire.FileChange(
        kind=wire.FileChangeKind[change.kind.name],
        path=change.path,
        target=change.target,
        directory=change.directory,
    )
