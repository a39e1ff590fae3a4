"""A tree of files from a tar stream.

Every step of a member's name is taken from an open directory, and never through a symbolic link, so that no member
comes to lie outside.
"""

from __future__ import annotations

import errno
import os
import stat

from .file_trees import Attributes, allow_depth, open_directory
from .paths import PartError, make_directories, path_of
from .tar_headers import BLOCK, BLOCK_DEVICE, CHARACTER_DEVICE, DIRECTORY, FIFO, HARD_LINK, SYMLINK
from .tar_members import Source, TarError, members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .tar_members import Member
    from .working import Host

_MAX_ID = 2**32 - 2

_NODES = {FIFO: stat.S_IFIFO, CHARACTER_DEVICE: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}


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
    source = Source(host)
    tree = _Tree(top, source, owners=bool(request.get("owners", True)) and os.geteuid() == 0, new=new)
    try:
        for member in members(source):
            tree.add(member)
        source.drain()
    except TarError as error:
        raise _invalid(str(error)) from error
    tree.finish()
    host.send_record({"members": tree.members, "size": tree.size}, now=True)


class _Tree:
    def __init__(self, top: int, source: Source, *, owners: bool, new: bool) -> None:
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

    def add(self, member: Member) -> None:
        """Raises OSError, or TarError."""
        steps = _steps(member.name)
        attributes = self._attributes(member)
        self.members += 1
        if not steps:
            if member.kind != DIRECTORY:
                raise _invalid(f"{_shown(member.name)} is not a name for a file")
            if self._new:
                self._directories.append((steps, attributes))
            return
        parent, name = self._open(steps[:-1]), steps[-1]
        if member.kind == DIRECTORY:
            _make_directory(name, parent)
            self._directories.append((steps, attributes))
            return
        _make_room(name, parent)
        if member.kind == HARD_LINK:
            self._link(member, name, parent)
        elif member.kind == SYMLINK:
            os.symlink(member.link, name, dir_fd=parent)
            attributes.set(name, parent)
        elif member.kind in _NODES:
            os.mknod(name, _NODES[member.kind] | 0o600, os.makedev(*member.device), dir_fd=parent)
            attributes.set(name, parent)
        else:
            self._write_file(member, name, parent, attributes)

    def _link(self, member: Member, name: bytes, parent: int) -> None:
        first = _steps(member.link)
        if not first:
            raise _invalid(f"{_shown(member.name)} is a link to the directory itself")
        directory = self._walk(first[:-1])
        try:
            os.link(first[-1], name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    def finish(self) -> None:
        for steps, attributes in reversed(self._directories):
            attributes.set_open(self._open(steps))

    def _attributes(self, member: Member) -> Attributes:
        owner, mode = (-1, -1), member.mode & 0o7777
        if self._owners:
            owner = (member.uid, member.gid)
            if not (0 <= member.uid <= _MAX_ID and 0 <= member.gid <= _MAX_ID):
                raise _invalid(f"{_shown(member.name)} has an owner that cannot be")
        else:
            mode &= 0o1777  # setuid for another user would be something else
        return Attributes(mode, *owner, member.modified_ns)

    def _write_file(self, member: Member, name: bytes, parent: int, attributes: Attributes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            if member.sparse is None:
                self._source.copy_to(file, member.stored)
            else:
                for offset, length in member.sparse:
                    os.lseek(file, offset, os.SEEK_SET)
                    self._source.copy_to(file, length)
                os.truncate(file, member.size)
            self._source.skip(-member.stored % BLOCK)
            attributes.set_open(file)
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
                    name = _shown(b"/".join(steps))
                    raise _invalid(f"{name} leads through {_shown(step)}, which is no directory") from error
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


def _steps(name: bytes) -> list[bytes]:
    """The names on the way to a member. Raises PartError for one that is not in the tree."""
    steps = [step for step in name.split(b"/") if step not in {b"", b"."}]
    if name.startswith(b"/") or b".." in steps or b"\0" in name:
        raise _invalid(f"{_shown(name)} is not in the directory")
    return steps


def _shown(name: bytes) -> str:
    return repr(os.fsdecode(name))


def _invalid(reason: str) -> PartError:
    return PartError(errno.EINVAL, f"the tar stream: {reason}", "data")
