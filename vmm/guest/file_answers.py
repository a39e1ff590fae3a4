"""What the guest's agent tells of files, checked: each is of the path that was asked for, and can be."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import Any, Final

from vmm.errors import AgentProtocolError
from vmm.untrusted import is_number, said
from vmm.words.files import FileChange, FileChangeKind, FileInfo, FileKind, TreeSummary

MAX_PATH: Final = 4096
"""Linux's PATH_MAX."""

_MAX_NAME: Final = 256
_MAX_ID: Final = 2**32 - 1
_MAX_COUNT: Final = 2**63 - 1

_KINDS: Final[Mapping[int, FileKind]] = {
    stat.S_IFREG: FileKind.REGULAR,
    stat.S_IFDIR: FileKind.DIRECTORY,
    stat.S_IFLNK: FileKind.SYMLINK,
    stat.S_IFIFO: FileKind.FIFO,
    stat.S_IFSOCK: FileKind.SOCKET,
    stat.S_IFCHR: FileKind.CHARACTER_DEVICE,
    stat.S_IFBLK: FileKind.BLOCK_DEVICE,
}

_NUMBERS: Final = {
    "mode": 2**16 - 1,
    "size": _MAX_COUNT,
    "uid": _MAX_ID,
    "gid": _MAX_ID,
    "links": _MAX_COUNT,
}


def info_at(asked: bytes, fields: dict[str, Any]) -> FileInfo:
    """What is at this very path. Raises AgentProtocolError."""
    if fields.get("path") != asked:
        raise AgentProtocolError("the guest agent told of another path than the one that was asked for")
    return _info(asked, fields)


def info_below(asked: bytes, fields: dict[str, Any], *, depth: int) -> FileInfo:
    """What is in a directory, at most so many levels down. Raises AgentProtocolError."""
    path = fields.get("path")
    if not (isinstance(path, bytes) and 1 <= _levels(asked, path) <= depth):
        raise AgentProtocolError("the guest agent told of a path that is not in the directory that was asked for")
    return _info(path, fields)


def change_at(asked: bytes, fields: dict[str, Any], *, recursive: bool) -> FileChange:
    """What happened at a path, or below it. Raises AgentProtocolError."""
    try:
        kind = FileChangeKind(fields.get("kind"))
    except ValueError as error:
        raise AgentProtocolError("the guest agent told of a change of an unknown kind") from error
    path, target, directory = fields.get("path"), fields.get("target"), fields.get("directory")
    depth = MAX_PATH if recursive else 1
    if not (
        _is_told(asked, path, depth=depth, wanted=kind is not FileChangeKind.OVERFLOW)
        and _is_told(asked, target, depth=depth, wanted=kind is FileChangeKind.MOVED)
        and type(directory) is bool
    ):
        raise AgentProtocolError("the guest agent told of a change that is not of the path that was asked for")
    assert isinstance(path, bytes) and isinstance(target, bytes)  # noqa: PT018 - for the type checker
    return FileChange(kind=kind, path=path, target=target, directory=directory)


def summary(fields: dict[str, Any]) -> TreeSummary:
    """Of a tree that was extracted. Raises AgentProtocolError."""
    members, size = fields.get("members"), fields.get("size")
    if not (is_number(members, most=_MAX_COUNT) and is_number(size, most=_MAX_COUNT)):
        raise AgentProtocolError("the guest agent did not tell how much it has extracted")
    return TreeSummary(members=members, size=size)


def _info(path: bytes, fields: dict[str, Any]) -> FileInfo:
    for name, most in _NUMBERS.items():
        if not is_number(fields.get(name), most=most):
            raise AgentProtocolError(f"the guest agent told of a file whose {name} is none")
    mode, modified_ns, inode = fields["mode"], fields.get("modified_ns"), fields.get("inode")
    if not (type(modified_ns) is int and type(inode) is int):
        raise AgentProtocolError("the guest agent told of a file without its time or its inode")
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is None:
        raise AgentProtocolError("the guest agent told of a file of an unknown kind")
    target = fields.get("target")
    if not (isinstance(target, bytes) and len(target) <= MAX_PATH and bool(target) == (kind is FileKind.SYMLINK)):
        raise AgentProtocolError("the guest agent told of a link without its target, or of a target without a link")
    return FileInfo(
        path=path,
        kind=kind,
        size=fields["size"],
        mode=stat.S_IMODE(mode),
        uid=fields["uid"],
        gid=fields["gid"],
        user=said(fields.get("user"), most=_MAX_NAME),
        group=said(fields.get("group"), most=_MAX_NAME),
        modified_ns=modified_ns,
        target=target,
        links=fields["links"],
        # Values have a sign.
        inode=inode % 2**64,
    )


def _is_told(asked: bytes, path: object, *, depth: int, wanted: bool) -> bool:
    if not wanted:
        return path == b""
    return isinstance(path, bytes) and 0 <= _levels(asked, path) <= depth


def _levels(asked: bytes, path: bytes) -> int:
    """How many levels a path is below another one; -1 if it is not, or cannot be."""
    if path == asked:
        return 0
    prefix = asked.rstrip(b"/") + b"/"
    if not path.startswith(prefix) or len(path) > MAX_PATH or b"\0" in path:
        return -1
    names = path[len(prefix) :].split(b"/")
    return -1 if any(name in {b"", b".", b".."} for name in names) else len(names)
