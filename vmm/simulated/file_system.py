"""The files of a simulated guest, in memory. Refuses with the errno that Linux would have."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from vmm.errors import AgentRequestError
from vmm.words.files import FileChange, FileChangeKind, FileInfo, FileKind

USERS: Final = {"root": 0, "user": 1000, "nobody": 65534}
"""Also the groups."""

_NAMES: Final = {number: name for name, number in USERS.items()}
_MAX_NAME: Final = 255
_MAX_PATH: Final = 4095
_DIRECTORIES: Final = (
    (b"/root", 0o700),
    (b"/home", 0o755),
    (b"/home/user", 0o755),
    (b"/tmp", 0o1777),
    (b"/run", 0o755),
    (b"/etc", 0o755),
)
"""Of every guest, with their modes."""

_MAX_LINKS: Final = 40
_READ, _WRITE, _SEARCH = 4, 2, 1

_KINDS: Final = {
    stat.S_IFREG: FileKind.REGULAR,
    stat.S_IFDIR: FileKind.DIRECTORY,
    stat.S_IFLNK: FileKind.SYMLINK,
    stat.S_IFIFO: FileKind.FIFO,
}


class PartError(OSError):
    """EINVAL, of the field `part` of a request."""

    def __init__(self, message: str, part: str) -> None:
        super().__init__(errno.EINVAL, message)
        self.part = part


def request_error(request: str, error: OSError) -> AgentRequestError:
    """As the agent tells of it."""
    name = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return AgentRequestError(
        request=request,
        code=errno.errorcode[error.errno or errno.EIO],
        message=f"{name}{error.strerror}",
        part=getattr(error, "part", ""),
    )


def uid_of(user: str, *, part: str = "user") -> int:
    """A user's number; a group's is the same. Raises PartError."""
    if not user:
        return 0
    if user in USERS:
        return USERS[user]
    if user.isascii() and user.isdecimal():
        return int(user)
    raise PartError(f"{part}: the guest has no {part} {user!r}", part)


@attrs.define(eq=False, kw_only=True)
class Node:
    """A file, a directory, a link or a FIFO, without its names."""

    mode: int
    uid: int
    gid: int
    modified_ns: int
    inode: int
    data: bytes = b""
    """Of a link: its target."""
    children: dict[bytes, Node] = attrs.field(factory=dict)
    links: int = 1

    @property
    def kind(self) -> FileKind:
        return _KINDS[stat.S_IFMT(self.mode)]

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


def refused(code: int, path: bytes) -> OSError:
    return OSError(code, os.strerror(code), path)


class FileSystem:
    """One tree. `uid` is who asks, 0 for root; groups have their users' numbers, and no other members."""

    def __init__(self, *, clock: Callable[[], int], capacity: int = 64 * 2**20) -> None:
        """`clock` gives ns since 1970, `capacity` is the most content in bytes."""
        self._clock = clock
        self._capacity = capacity
        self._inodes = itertools.count(1)
        self._watchers: list[Callable[[FileChange], None]] = []
        self.root = self._node(stat.S_IFDIR | 0o755, 0)
        for path, mode in _DIRECTORIES:
            self.make_directory(path, mode=mode)

    # Look

    def find(self, path: bytes, *, uid: int = 0, follow: bool = True) -> Node:
        """Raises OSError."""
        return self._find(path, uid, follow=follow, left=_MAX_LINKS)[1]

    def resolve(self, path: bytes, *, uid: int = 0) -> bytes:
        """The path without links; its last name need not exist. Raises OSError."""
        for _ in range(_MAX_LINKS):
            directory, name, node = self.place(path, uid=uid)
            if node is None or node.kind is not FileKind.SYMLINK:
                return posixpath.join(directory, name)
            path = posixpath.join(directory, node.data)
        raise refused(errno.ELOOP, path)

    def place(self, path: bytes, *, uid: int = 0) -> tuple[bytes, bytes, Node | None]:
        """The directory that a path is in, without links; its name there, and what has it, if anything does."""
        self._check(path)
        above, name = posixpath.split(path.rstrip(b"/"))
        if not name:
            return b"/", b"", self.root
        if name in {b".", b".."}:
            at, found = self._find(path, uid, follow=True, left=_MAX_LINKS)
            return posixpath.dirname(at), posixpath.basename(at), found
        directory, node = self._find(above or b"/", uid, follow=True, left=_MAX_LINKS)
        if not node.is_directory:
            raise refused(errno.ENOTDIR, path)
        self.check_right(node, path, uid, _SEARCH)
        return directory, name, node.children.get(name)

    def walk(self, path: bytes, *, depth: int, uid: int = 0) -> Iterator[tuple[bytes, Node]]:
        """What is in a directory; a directory comes before what is in it. Raises OSError."""
        node = self.find(path, uid=uid)
        if not node.is_directory:
            raise refused(errno.ENOTDIR, path)
        self.check_right(node, path, uid, _READ)
        for name, child in list(node.children.items()):
            inner = posixpath.join(path, name)
            yield inner, child
            if depth > 1 and child.is_directory:
                with contextlib.suppress(PermissionError):  # as the real one: told of, not what is in it
                    yield from self.walk(inner, depth=depth - 1, uid=uid)

    def info(self, path: bytes, node: Node) -> FileInfo:
        is_link = node.kind is FileKind.SYMLINK
        return FileInfo(
            path=path,
            kind=node.kind,
            size=len(node.data),
            mode=stat.S_IMODE(node.mode),
            uid=node.uid,
            gid=node.gid,
            user=_NAMES.get(node.uid, ""),
            group=_NAMES.get(node.gid, ""),
            modified_ns=node.modified_ns,
            target=node.data if is_link else b"",
            links=node.links,
            inode=node.inode,
        )

    # Change

    def make_directory(self, path: bytes, *, mode: int = 0o755, uid: int = 0) -> Node:
        return self.add(path, self._node(stat.S_IFDIR | mode, uid), uid=uid)

    def make_directories(self, path: bytes, *, uid: int = 0) -> None:
        """Those that are missing, with the path's own."""
        try:
            if not self.find(path, uid=uid).is_directory:
                raise refused(errno.ENOTDIR, path)
        except FileNotFoundError:
            self.make_directories(posixpath.dirname(path), uid=uid)
            if posixpath.basename(path) not in {b"", b".", b".."}:
                self.make_directory(path, uid=uid)

    def new_file(self, *, mode: int = 0o644, uid: int = 0) -> Node:
        """One without a name."""
        return self._node(stat.S_IFREG | mode, uid)

    def make_file(self, path: bytes, *, mode: int = 0o644, uid: int = 0) -> Node:
        return self.add(path, self._node(stat.S_IFREG | mode, uid), uid=uid)

    def make_link(self, path: bytes, target: bytes, *, uid: int = 0) -> Node:
        node = self._node(stat.S_IFLNK | 0o777, uid)
        node.data = target
        return self.add(path, node, uid=uid)

    def make_fifo(self, path: bytes, *, uid: int = 0) -> Node:
        return self.add(path, self._node(stat.S_IFIFO | 0o644, uid), uid=uid)

    def add(self, path: bytes, node: Node, *, uid: int = 0, told: FileChangeKind = FileChangeKind.CREATED) -> Node:
        """Gives a node a name. Raises OSError: FileExistsError if the name is in use."""
        directory, name, old = self.place(path, uid=uid)
        if old is not None:
            raise refused(errno.EEXIST, path)
        parent = self.find(directory)
        self.check_right(parent, path, uid, _WRITE)
        parent.children[name] = node
        parent.modified_ns = self._clock()
        self.tell(told, posixpath.join(directory, name), node)
        return node

    def take_away(self, path: bytes, *, uid: int = 0, tell: bool = True) -> Node:
        """Takes a name away, from a directory with all that is in it. Raises OSError."""
        directory, name, node = self.place(path, uid=uid)
        if node is None:
            raise refused(errno.ENOENT, path)
        parent = self.find(directory)
        self.check_right(parent, path, uid, _WRITE)
        if not name:
            raise refused(errno.EBUSY, path)
        if parent.mode & stat.S_ISVTX and uid not in {0, node.uid, parent.uid}:
            raise refused(errno.EPERM, path)
        del parent.children[name]
        parent.modified_ns = self._clock()
        if tell:
            self.tell(FileChangeKind.REMOVED, posixpath.join(directory, name), node)
        return node

    def move(self, path: bytes, target: bytes, *, uid: int = 0, replace: bool = True) -> None:
        """As rename(2). Raises OSError."""
        node = self.find(path, uid=uid, follow=False)
        source, to = self._full(path, uid), self._full(target, uid)
        if to.startswith(source + b"/"):
            raise refused(errno.EINVAL, target)
        _, _, old = self.place(target, uid=uid)
        if old is node:
            return
        if old is not None:
            if not replace:
                raise refused(errno.EEXIST, target)
            if old.is_directory and not node.is_directory:
                raise refused(errno.EISDIR, target)
            if node.is_directory and not old.is_directory:
                raise refused(errno.ENOTDIR, target)
            if old.children:
                raise refused(errno.ENOTEMPTY, target)
            self.take_away(target, uid=uid, tell=False)
        self.take_away(path, uid=uid, tell=False)
        parent = self.find(posixpath.dirname(to))
        self.check_right(parent, target, uid, _WRITE)
        parent.children[posixpath.basename(to)] = node
        self._notify(FileChange(kind=FileChangeKind.MOVED, path=source, target=to, directory=node.is_directory))

    def write(self, node: Node, data: bytes, path: bytes) -> None:
        """Replaces the content. Raises OSError when the guest's memory is full."""
        if self._used() - len(node.data) + len(data) > self._capacity:
            raise refused(errno.ENOSPC, path)
        node.data = data
        node.modified_ns = self._clock()
        self.tell(FileChangeKind.MODIFIED, path, node)

    def copy(self, node: Node, *, uid: int, seen: dict[int, Node] | None = None) -> Node:
        """A copy without a name. Hard links within it stay hard links."""
        seen = {} if seen is None else seen
        if node.inode not in seen:
            copied = attrs.evolve(node, inode=next(self._inodes), children={})
            if uid:
                copied.uid = copied.gid = uid
            seen[node.inode] = copied
            copied.children = {name: self.copy(child, uid=uid, seen=seen) for name, child in node.children.items()}
        return seen[node.inode]

    def check_right(self, node: Node, path: bytes, uid: int, right: int) -> None:
        """Raises PermissionError if the user does not have it."""
        shift = 6 if node.uid == uid else 3 if node.gid == uid else 0
        if uid and not (node.mode >> shift) & right:
            raise refused(errno.EACCES, path)

    # Tell

    @contextlib.contextmanager
    def told_to(self, watcher: Callable[[FileChange], None]) -> Iterator[None]:
        """Tells of each change meanwhile. Paths are without links."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)

    def tell(self, kind: FileChangeKind, path: bytes, node: Node) -> None:
        self._notify(FileChange(kind=kind, path=path, directory=node.is_directory))

    def _notify(self, change: FileChange) -> None:
        for watcher in list(self._watchers):
            watcher(change)

    # For programs, and for the host's put and get

    def __setitem__(self, path: str, data: bytes) -> None:
        """Writes a file, with the directories above it."""
        name = os.fsencode(path)
        self.make_directories(posixpath.dirname(name))
        _, _, node = self.place(name)
        self.write(self.make_file(name) if node is None else self.find(name), data, name)

    def is_directory(self, path: str) -> bool:
        try:
            return self.find(os.fsencode(path)).is_directory
        except OSError:
            return False

    def contents(self) -> dict[str, bytes]:
        """The content of each regular file, by its path."""
        found = self.walk(b"/", depth=_MAX_PATH)
        return {os.fsdecode(path): node.data for path, node in found if node.kind is FileKind.REGULAR}

    # Below

    def _node(self, mode: int, uid: int) -> Node:
        return Node(mode=mode, uid=uid, gid=uid, modified_ns=self._clock(), inode=next(self._inodes))

    def _full(self, path: bytes, uid: int) -> bytes:
        directory, name, _ = self.place(path, uid=uid)
        return posixpath.join(directory, name)

    def _used(self) -> int:
        nodes = {node.inode: node for _, node in self.walk(b"/", depth=_MAX_PATH)}
        return sum(len(node.data) for node in nodes.values())

    def _check(self, path: bytes) -> None:
        if not path.startswith(b"/") or b"\0" in path:
            raise refused(errno.EINVAL, path)
        if len(path) > _MAX_PATH or any(len(name) > _MAX_NAME for name in path.split(b"/")):
            raise refused(errno.ENAMETOOLONG, path)

    def _find(self, path: bytes, uid: int, *, follow: bool, left: int) -> tuple[bytes, Node]:
        self._check(path)
        at, node = b"/", self.root
        names = [name for name in path.split(b"/") if name not in {b"", b"."}]
        for number, name in enumerate(names):
            if not node.is_directory:
                raise refused(errno.ENOTDIR, path)
            self.check_right(node, path, uid, _SEARCH)
            if name == b"..":
                at = posixpath.dirname(at)
                node = self.find(at)
                continue
            if name not in node.children:
                raise refused(errno.ENOENT, path)
            inner = posixpath.join(at, name)
            node = node.children[name]
            if node.kind is FileKind.SYMLINK and (follow or number + 1 < len(names)):
                if left == 0:
                    raise refused(errno.ELOOP, path)
                inner, node = self._find(posixpath.join(at, node.data), uid, follow=True, left=left - 1)
            at = inner
        if path.endswith(b"/") and not node.is_directory:
            raise refused(errno.ENOTDIR, path)
        return at, node
