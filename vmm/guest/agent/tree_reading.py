"""A tree of files as a tar stream."""

from __future__ import annotations

import errno
import os
import stat

from . import tar_headers
from .copying import carry
from .file_trees import allow_depth, extents, names_in, open_directory
from .paths import account_names, path_of, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .working import Host

_BUFFER = 64 * 1024
_AT_ONCE = 1024 * 1024

_KINDS = {
    stat.S_IFREG: tar_headers.REGULAR,
    stat.S_IFLNK: tar_headers.SYMLINK,
    stat.S_IFCHR: tar_headers.CHARACTER_DEVICE,
    stat.S_IFBLK: tar_headers.BLOCK_DEVICE,
    stat.S_IFDIR: tar_headers.DIRECTORY,
    stat.S_IFIFO: tar_headers.FIFO,
}


def read_tree(request: dict[str, Any], host: Host) -> None:
    """A directory's own member is "./"; a file is one member of its name. Sockets are left out, as tar does."""
    path = path_of(request)
    allow_depth()
    writer = _Writer(host)
    if os.path.isdir(path):
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        host.answer({})
        writer.add_directory(top, path)
    else:
        directory, name = os.path.split(path)
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.stat(name, dir_fd=parent)  # follows, to refuse what is not there
        host.answer({})
        writer.add(name, parent, name, directory, follow=True)
    writer.finish()


class _Writer:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._buffer = bytearray()
        self._users, self._groups = account_names()
        self._linked: dict[tuple[int, int], bytes] = {}
        """By device and inode, the first member of each file with several names."""

    def add_directory(self, directory: int, path: bytes, prefix: bytes = b"./") -> None:
        """Takes over the descriptor. `path` is where it is, `prefix` its name in the stream."""
        try:
            self._put(self._member(prefix, os.fstat(directory)).encode())
            inner = b"" if prefix == b"./" else prefix
            for name in sorted(names_in(directory)):
                try:
                    self.add(name, directory, inner + name, path)
                except FileNotFoundError:
                    continue  # it has just been removed
        finally:
            os.close(directory)

    def add(self, name: bytes, parent: int, member_name: bytes, path: bytes, *, follow: bool = False) -> None:
        """`name` is in the directory `parent`, which is at `path`."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=follow)
        path = os.path.join(path, name)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self.add_directory(open_directory(name, parent), path, member_name + b"/")
            return
        if kind == stat.S_IFSOCK:
            return
        if status.st_nlink > 1 and not follow:
            first = self._linked.setdefault((status.st_dev, status.st_ino), member_name)
            if first != member_name:
                member = self._member(member_name, status, tar_headers.HARD_LINK)
                member.link = first
                self._put(member.encode())
                return
        if kind == stat.S_IFREG:
            nofollow = 0 if follow else os.O_NOFOLLOW
            file = os.open(name, os.O_RDONLY | nofollow | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            try:
                self._add_file(file, member_name, path)
            finally:
                os.close(file)
            return
        member = self._member(member_name, status)
        if kind == stat.S_IFLNK:
            member.link = os.readlink(name, dir_fd=parent)
        elif kind in {stat.S_IFCHR, stat.S_IFBLK}:
            member.device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        self._put(member.encode())

    def finish(self) -> None:
        self._put(tar_headers.END)
        self._flush()

    def _member(self, name: bytes, status: os.stat_result, kind: bytes = b"") -> tar_headers.Member:
        return tar_headers.Member(
            name,
            kind or _KINDS[stat.S_IFMT(status.st_mode)],
            mode=status.st_mode,
            owner=(status.st_uid, status.st_gid),
            names=(self._users.get(status.st_uid, ""), self._groups.get(status.st_gid, "")),
            modified_ns=status.st_mtime_ns,
        )

    def _add_file(self, file: int, member_name: bytes, path: bytes) -> None:
        status = os.fstat(file)
        member = self._member(member_name, status)
        member.size = status.st_size
        pieces = [(0, status.st_size)]
        if status.st_blocks * 512 < status.st_size:
            pieces = list(extents(file, status.st_size))
            if pieces != [(0, status.st_size)]:
                member.sparse = [(start, end - start) for start, end in pieces]
                if not pieces or pieces[-1][1] < status.st_size:
                    # GNU tar takes the end of the last piece for the size.
                    member.sparse.append((status.st_size, 0))
        self._put(member.encode())
        size = 0
        for start, end in pieces:
            os.lseek(file, start, os.SEEK_SET)
            self._put_content(file, end - start, path)
            size += end - start
        self._put(bytes(-size % tar_headers.BLOCK))

    def _put_content(self, file: int, size: int, path: bytes) -> None:
        in_kernel = size > _BUFFER
        if in_kernel:
            self._flush()
        while size:
            done = carry(self._host.output, file, min(size, _AT_ONCE)) if in_kernel else None
            if done is None:
                in_kernel = False
                data = os.read(file, min(size, _BUFFER))
                done = len(data)
                self._put(data)
            if done == 0:
                # Its size is told already.
                raise refuse(errno.EIO, path, "has become shorter while it was read; read the tree again")
            size -= done

    def _put(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        self._host.send(self._buffer)
        self._buffer = bytearray()
