"""Trees of files: copied, removed, changed.

Each step goes from an open directory to a name in it, and never through a symbolic link: whoever else may write in the
tree cannot lead a worker of root out of it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from .copying import carry, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_ONCE = 64 * 1024 * 1024


def allow_depth() -> None:
    """As deep as descriptors last, a thousand levels: a tree takes one for each."""
    sys.setrecursionlimit(10_000)


def names_in(directory: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(directory)]


def open_directory(name: bytes, parent: int | None = None) -> int:
    return os.open(name, _DIRECTORY, dir_fd=parent)


# Remove


def remove(path: bytes) -> None:
    """Removes a file, a link itself, or a directory with all that is in it."""
    allow_depth()
    _remove(path, None)


def _remove(name: bytes, parent: int | None) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except OSError as error:
        # EPERM from file systems that say it of directories.
        if error.errno not in {errno.EISDIR, errno.EPERM}:
            raise
        try:
            directory = open_directory(name, parent)
        except NotADirectoryError:
            raise error from None
    else:
        return
    try:
        for entry in names_in(directory):
            try:
                _remove(entry, directory)
            except FileNotFoundError:
                continue  # somebody else was faster
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=parent)


# Attributes


class Attributes:
    """What to set of a file; None and -1 for unchanged."""

    def __init__(self, mode: int | None, uid: int, gid: int, modified_ns: int | None) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.modified_ns = modified_ns

    def set(self, name: bytes, parent: int | None = None, *, follow: bool = False) -> None:
        """Of a link itself, unless it is to `follow`: owner and time; links have no mode."""
        if (self.uid, self.gid) != (-1, -1):
            os.chown(name, self.uid, self.gid, dir_fd=parent, follow_symlinks=follow)
        # After the owner: changing that takes setuid and setgid away.
        if self.mode is not None:
            if follow:
                os.chmod(name, self.mode)
            else:
                _set_mode(name, parent, self.mode)
        if self.modified_ns is not None:
            status = os.stat(name, dir_fd=parent, follow_symlinks=follow)
            times = (status.st_atime_ns, self.modified_ns)
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=follow)

    def set_open(self, fd: int) -> None:
        """Of an open file, or directory."""
        if (self.uid, self.gid) != (-1, -1):
            os.fchown(fd, self.uid, self.gid)
        if self.mode is not None:
            os.fchmod(fd, self.mode)
        if self.modified_ns is not None:
            os.utime(fd, ns=(self.modified_ns, self.modified_ns))


def _set_mode(name: bytes, parent: int | None, mode: int) -> None:
    # Through a descriptor of the file itself, which a link cannot stand in for.
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            os.chmod(b"/proc/self/fd/%d" % fd, mode)
    finally:
        os.close(fd)


def set_attributes_below(path: bytes, attributes: Attributes) -> None:
    """Of all that is in a directory; nothing if it is none."""
    allow_depth()
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        return
    _set_below(directory, attributes)


def _set_below(directory: int, attributes: Attributes) -> None:
    try:
        for name in names_in(directory):
            # What is in it comes first: the mode may shut this user out.
            if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                _set_below(open_directory(name, directory), attributes)
            attributes.set(name, directory)
    finally:
        os.close(directory)


# Copy


def copy(path: bytes, target: bytes) -> None:
    """Copies a file, a link itself, or a tree to a path where nothing is. Removes what is there if that fails."""
    allow_depth()
    try:
        _Copy(owners=os.geteuid() == 0).copy(path, None, target, None)
    except BaseException:
        if os.path.lexists(target):
            remove(target)
        raise


class _Copy:
    def __init__(self, *, owners: bool) -> None:
        self._owners = owners
        self._linked: dict[tuple[int, int], bytes] = {}
        """By device and inode, the first copy of each file with several names: its path in the copied tree."""
        self._root = -1  # the copied tree

    def copy(self, name: bytes, parent: int | None, target: bytes, into: int | None, path: bytes = b"") -> None:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            self._copy_directory(name, parent, target, into, path)
        elif self._link(status, target, into, path):
            return
        elif kind == stat.S_IFREG:
            _copy_content(name, parent, target, into)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=parent), target, dir_fd=into)
        else:
            os.mknod(target, kind | 0o600, status.st_rdev, dir_fd=into)
        self._set_attributes(status, target, into)

    def _copy_directory(self, name: bytes, parent: int | None, target: bytes, into: int | None, path: bytes) -> None:
        source = open_directory(name, parent)
        try:
            os.mkdir(target, 0o700, dir_fd=into)
            copied = open_directory(target, into)
            if self._root < 0:
                self._root = os.dup(copied)
            try:
                for entry in names_in(source):
                    self.copy(entry, source, entry, copied, os.path.join(path, entry))
            finally:
                os.close(copied)
        finally:
            os.close(source)

    def _link(self, status: os.stat_result, target: bytes, into: int | None, path: bytes) -> bool:
        """Makes a further name of a file that was copied under another one. Returns whether it did."""
        if status.st_nlink < 2 or into is None:
            return False
        first = self._linked.setdefault((status.st_dev, status.st_ino), path)
        if first == path:
            return False
        os.link(first, target, src_dir_fd=self._root, dst_dir_fd=into, follow_symlinks=False)
        return True

    def _set_attributes(self, status: os.stat_result, target: bytes, into: int | None) -> None:
        uid, gid = (status.st_uid, status.st_gid) if self._owners else (-1, -1)
        mode = stat.S_IMODE(status.st_mode)
        if not self._owners:
            mode &= 0o1777  # setuid for another user would be something else
        Attributes(mode, uid, gid, None).set(target, into)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=into, follow_symlinks=False)


def _copy_content(name: bytes, parent: int | None, target: bytes, into: int | None) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    source = os.open(name, flags, dir_fd=parent)
    try:
        copied = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=into)
        try:
            size = os.fstat(source).st_size
            for start, end in extents(source, size):
                _copy_range(source, copied, start, end)
            if size:
                os.truncate(copied, max(size, os.fstat(copied).st_size))
            else:
                _copy_range(source, copied, 0, sys.maxsize)  # a file of /proc does not say how long it is
        finally:
            os.close(copied)
    finally:
        os.close(source)


def _copy_range(source: int, copied: int, start: int, end: int) -> None:
    os.lseek(source, start, os.SEEK_SET)
    os.lseek(copied, start, os.SEEK_SET)
    in_kernel = True
    while start < end:
        size = min(end - start, _AT_ONCE)
        done = carry(copied, source, size) if in_kernel else None
        if done is None:
            in_kernel = False
            data = os.read(source, min(size, 64 * 1024))
            write_all(copied, data)
            done = len(data)
        if done == 0:
            return
        start += done


def extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data, in order: begin and end. All of it, on file systems that do not know."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # a hole to the end
            if error.errno != errno.EINVAL:
                raise
            start, end = at, size
        yield start, min(end, size)
        at = end
