"""A tree of files from a tar stream.

Every step of a member's name is taken from an open directory, and never through a symbolic link, so that no member
comes to lie outside.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile

from .file_trees import Attributes, allow_depth, open_directory
from .paths import PartError, make_directories, path_of
from .tar_headers import BLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .working import Host

_AT_ONCE = 1024 * 1024
_MAX_ID = 2**32 - 2


def write_tree(request: dict[str, Any], host: Host) -> None:
    """Numbers of owners count, not their names. The member "./" tells of the directory itself, and counts if that is
    new. What is there already, and is not a directory, is replaced.
    """
    path = path_of(request)
    new = bool(request.get("parents")) and not os.path.isdir(path)
    if new:
        make_directories(path)
    allow_depth()
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    host.answer({})
    source = _Source(host)
    tree = _Tree(top, source, owners=bool(request.get("owners", True)) and os.geteuid() == 0, new=new)
    try:
        tar = tarfile.TarFile(fileobj=source, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
        # `next`, because iteration keeps the members.
        member = tar.firstmember
        tar.firstmember = None
        while member is not None:
            tree.add(member)
            tar.members.clear()
            member = tar.next()
        source.check_end()
    except tarfile.TarError as error:
        raise _invalid(str(error)) from error
    tree.finish()
    host.send_record({"members": tree.members, "size": tree.size}, now=True)


class _Source:
    """The input as `tarfile` reads it: forward only."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._at = 0
        self._last = b""

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        parts = []
        while size:
            data = self._host.receive(min(size, _AT_ONCE))
            if not data:
                break
            parts.append(data)
            size -= len(data)
        self._last = b"".join(parts)
        self._at += len(self._last)
        return self._last

    def seek(self, position: int) -> None:
        if position < self._at:
            raise tarfile.StreamError("a member goes back in the stream")
        while self._at < position:
            if not self.read(min(position - self._at, _AT_ONCE)):
                raise tarfile.ReadError("the stream ends within a member")

    def copy_to(self, fd: int, size: int) -> None:
        """Writes the next bytes to a file."""
        while size:
            done = os.splice(self._host.input, fd, min(size, _AT_ONCE))
            if done == 0:
                raise tarfile.ReadError("the stream ends within a member")
            size -= done
            self._at += done

    def check_end(self) -> None:
        """`tarfile` ends at what is no header as it does at the end."""
        if self._last.strip(b"\0") or len(self._last) % BLOCK:
            raise tarfile.ReadError(f"no header of a member at byte {self._at - len(self._last)}")
        while self.read(_AT_ONCE):
            pass


class _Tree:
    def __init__(self, top: int, source: _Source, *, owners: bool, new: bool) -> None:
        self._top = top
        self._source = source
        self._owners = owners
        self._new = new
        self._parent: tuple[list[bytes], int] = ([], top)
        """The directory of the last member: the next one is in it, most often."""
        self._directories: list[tuple[list[bytes], Attributes]] = []
        """Attributes that are set at the end: they may forbid to write, and writing changes the time."""
        self.members = 0
        self.size = 0

    def add(self, member: tarfile.TarInfo) -> None:
        """Raises OSError, or tarfile.TarError."""
        steps = _steps(member.name)
        attributes = self._attributes(member)
        self.members += 1
        if not steps:
            if not member.isdir():
                raise _invalid(f"{member.name!r} is not a name for a file")
            if self._new:
                self._directories.append((steps, attributes))
            return
        parent, name = self._open(steps[:-1]), steps[-1]
        if member.isdir():
            _make_directory(name, parent)
            self._directories.append((steps, attributes))
            return
        _make_room(name, parent)
        if member.islnk():
            first = _steps(member.linkname)
            if not first:
                raise _invalid(f"{member.name!r} is a link to the directory itself")
            source = self._walk(first[:-1])
            try:
                os.link(first[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(source)
            return
        if member.issym():
            os.symlink(_encoded(member.linkname), name, dir_fd=parent)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif member.isdev():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
        else:
            self._write_file(member, name, parent)
        attributes.set(name, parent)

    def finish(self) -> None:
        for steps, attributes in reversed(self._directories):
            if steps:
                attributes.set(steps[-1], self._open(steps[:-1]))
            else:
                attributes.set(b".", self._top)

    def _attributes(self, member: tarfile.TarInfo) -> Attributes:
        owner, mode = (-1, -1), member.mode & 0o7777
        if self._owners:
            owner = (member.uid, member.gid)
            if not all(0 <= number <= _MAX_ID for number in owner):
                raise _invalid(f"{member.name!r} has an owner that cannot be")
        else:
            mode &= 0o1777  # setuid for another user would be something else
        return Attributes(mode, *owner, _modified_ns(member))

    def _write_file(self, member: tarfile.TarInfo, name: bytes, parent: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            pieces: Any = member.sparse  # a list of offset and size, if it is one with holes
            at = member.offset_data
            if pieces is None:
                self._source.seek(at)
                self._source.copy_to(file, member.size)
            else:
                for offset, size in pieces:
                    self._source.seek(at)
                    os.lseek(file, offset, os.SEEK_SET)
                    self._source.copy_to(file, size)
                    at += size
                os.truncate(file, member.size)
        finally:
            os.close(file)
        self.size += member.size

    def _open(self, steps: list[bytes]) -> int:
        """A directory's descriptor, which the next call may close. Missing ones are made."""
        if self._parent[0] != steps:
            directory = self._walk(steps)
            if self._parent[1] != self._top:
                os.close(self._parent[1])
            self._parent = (steps, directory)
        return self._parent[1]

    def _walk(self, steps: list[bytes]) -> int:
        directory = os.dup(self._top)
        for step in steps:
            try:
                inner = _open_or_make(step, directory)
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                    name = os.fsdecode(b"/".join(steps))
                    raise _invalid(f"{name!r} leads through {os.fsdecode(step)!r}, which is no directory") from error
                raise
            finally:
                os.close(directory)
            directory = inner
        return directory


def _open_or_make(name: bytes, parent: int) -> int:
    try:
        return open_directory(name, parent)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=parent)
        return open_directory(name, parent)


def _make_directory(name: bytes, parent: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o700, dir_fd=parent)


def _make_room(name: bytes, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return  # as it should be


def _steps(name: str) -> list[bytes]:
    """The names on the way to a member. Raises PartError for one that is not in the tree."""
    steps = [step for step in _encoded(name).split(b"/") if step not in {b"", b"."}]
    if name.startswith("/") or b".." in steps:
        raise _invalid(f"{name!r} is not in the directory")
    return steps


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _modified_ns(member: tarfile.TarInfo) -> int:
    # As text, because a float has no nanoseconds.
    seconds, _, fraction = member.pax_headers.get("mtime", str(int(member.mtime))).partition(".")
    ns = int(fraction.ljust(9, "0")[:9] or "0")
    return int(seconds or "0") * 10**9 + (-ns if seconds.startswith("-") else ns)


def _invalid(reason: str) -> PartError:
    return PartError(errno.EINVAL, f"the tar stream: {reason}", "data")
