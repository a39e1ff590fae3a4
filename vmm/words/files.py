"""Files in the guest: what is told of them, and what may be done to them. Paths are absolute."""

from __future__ import annotations

import enum

import attrs


class FileKind(enum.Enum):
    REGULAR = "regular"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"


@attrs.frozen(kw_only=True)
class FileInfo:
    path: bytes
    kind: FileKind
    size: int
    mode: int
    """Permission bits, with setuid, setgid and sticky."""
    uid: int
    gid: int
    user: str
    """Empty if the guest has no name for the number."""
    group: str
    modified_ns: int
    target: bytes = b""
    """Of a symbolic link."""
    links: int
    inode: int


class WriteMode(enum.Enum):
    """How `FileWrite` treats what is there; see proto/vmpool/v1/files.proto."""

    REPLACE = "replace"
    CREATE = "create"
    TRUNCATE = "truncate"
    UPDATE = "update"
    APPEND = "append"


@attrs.frozen(kw_only=True)
class FileWrite:
    path: bytes
    how: WriteMode = WriteMode.REPLACE
    mode: int | None = None
    """None: 0644 for a new file, unchanged for another."""
    owner: str = ""
    group: str = ""
    parents: bool = False
    offset: int = 0


@attrs.frozen(kw_only=True)
class MakeDirectory:
    path: bytes
    mode: int | None = None
    parents: bool = False


@attrs.frozen(kw_only=True)
class Move:
    path: bytes
    target: bytes
    replace: bool = True


@attrs.frozen(kw_only=True)
class Copy:
    path: bytes
    target: bytes
    recursive: bool = False


@attrs.frozen(kw_only=True)
class Remove:
    path: bytes
    recursive: bool = False
    missing_ok: bool = False


@attrs.frozen(kw_only=True)
class Link:
    path: bytes
    """The new link."""
    target: bytes
    hard: bool = False


@attrs.frozen(kw_only=True)
class SetAttributes:
    path: bytes
    mode: int | None = None
    owner: str = ""
    group: str = ""
    modified_ns: int | None = None
    recursive: bool = False


FileEdit = MakeDirectory | Move | Copy | Remove | Link | SetAttributes


class FileChangeKind(enum.Enum):
    CREATED = "created"
    MODIFIED = "modified"
    WRITTEN = "written"
    """Closed after it was open for writing."""
    ATTRIBUTES = "attributes"
    REMOVED = "removed"
    MOVED = "moved"
    OVERFLOW = "overflow"
    """Changes were lost; has no path."""


@attrs.frozen(kw_only=True)
class FileChange:
    kind: FileChangeKind
    path: bytes = b""
    target: bytes = b""
    """Where it was moved to."""
    directory: bool = False


@attrs.frozen(kw_only=True)
class TreeWrite:
    path: bytes
    parents: bool = False
    owners: bool = True
    """Keep the owners that the stream says; as another user than root, never."""


@attrs.frozen(kw_only=True)
class TreeSummary:
    members: int
    size: int
    """Bytes of content."""
