"""Trees of this host as tar streams, both ways. Blocking code; `transfer` runs it in a thread.

A tree from a guest is untrusted: what would leave its directory, devices, and set-user-id programs that would belong to
root are not made.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Final

from vmpool.client.errors import UnsafeTreeError

Advance = Callable[[int], None]
"""Told of so many bytes of content more."""

_HOLE_MIN: Final = 64 * 1024
_COPY_BYTES: Final = 256 * 1024


def pack(directory: Path, into: IO[bytes], advance: Advance) -> None:
    """Writes what is in a directory as a tar stream in pax format. Sockets are left out, as tar does."""
    linked: dict[tuple[int, int], str] = {}
    with tarfile.open(
        fileobj=into, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for path, name in _walk(directory):
            info: tarfile.TarInfo | None = tar.gettarinfo(os.fspath(path), arcname=name)
            if info is None:  # a socket
                continue
            _date(info, path.lstat().st_mtime_ns)
            _number(info, path, linked)
            if info.isreg():
                with path.open("rb") as file:
                    pieces = _pieces(file, info.size) if path.lstat().st_blocks * 512 < info.size else None
                    prefix = b"" if pieces is None else _make_sparse(info, pieces)
                    content = _content(file, [(0, info.size)] if pieces is None else pieces)
                    tar.addfile(info, _Told(prefix, content, advance))
            else:
                tar.addfile(info)


def unpack(stream: IO[bytes], directory: Path, advance: Advance) -> None:
    """Extracts a tar stream in a directory, which is made if it is missing. Owners are kept only if this is root.

    Raises UnsafeTreeError for a member that would leave the directory or be a device; what came before it is there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    root = Path(os.path.realpath(directory))
    owners = os.geteuid() == 0
    later: list[tuple[Path, tarfile.TarInfo]] = []
    with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            path = _place(root, member.name)
            _make(tar, member, path, root, advance)
            if member.isdir():
                later.append((path, member))  # a read-only directory is to be filled first
            else:
                _settle(path, member, owners=owners)
    for path, member in reversed(later):
        _settle(path, member, owners=owners)


def _walk(directory: Path) -> Iterator[tuple[Path, str]]:
    yield directory, "."
    for where, directories, files in os.walk(directory):
        directories.sort()
        base = Path(where)
        for name in sorted(directories + files):
            path = base / name
            yield path, os.path.relpath(path, directory)


def _date(info: tarfile.TarInfo, ns: int) -> None:
    """To the nanosecond, for which a float has no room."""
    seconds, rest = divmod(ns, 10**9)
    info.mtime = seconds
    if rest and seconds >= 0:
        info.pax_headers = {**info.pax_headers, "mtime": f"{seconds}.{rest:09}"}


def _number(info: tarfile.TarInfo, path: Path, linked: dict[tuple[int, int], str]) -> None:
    """Makes the second name of a file a hard link; tarfile's own way knows it by its absolute path."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return
    key = (status.st_dev, status.st_ino)
    if status.st_nlink > 1 and key in linked:
        info.type, info.linkname, info.size = tarfile.LNKTYPE, linked[key], 0
    else:
        info.type, info.linkname, info.size = tarfile.REGTYPE, "", status.st_size
        linked[key] = info.name


def _pieces(file: IO[bytes], size: int) -> list[tuple[int, int]]:
    """Offset and length of what is data in a file with holes, and an empty piece at its end."""
    pieces = []
    at = 0
    while at < size:
        try:
            start = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a hole up to the end
                raise
            break
        at = min(os.lseek(file.fileno(), start, os.SEEK_HOLE), size)
        pieces.append((start, at - start))
    return [*pieces, (size, 0)]


def _make_sparse(info: tarfile.TarInfo, pieces: list[tuple[int, int]]) -> bytes:
    """GNU's form 1.0: the map comes before the data. Returns the map."""
    numbers = [len(pieces), *(number for piece in pieces for number in piece)]
    data_map = "".join(f"{number}\n" for number in numbers).encode()
    data_map += bytes(-len(data_map) % tarfile.BLOCKSIZE)
    info.pax_headers = {
        **info.pax_headers,
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": info.name,
        "GNU.sparse.realsize": str(info.size),
    }
    info.name = "GNUSparseFile.0/file"  # short and ASCII: no record of a path, which tarfile would take for the name
    info.size = len(data_map) + sum(length for _, length in pieces)
    return data_map


def _content(file: IO[bytes], pieces: list[tuple[int, int]]) -> Iterator[bytes]:
    for start, length in pieces:
        file.seek(start)
        left = length
        while left and (data := file.read(min(left, _COPY_BYTES))):
            left -= len(data)
            yield data


class _Told:
    """What tarfile reads: bytes of ours, then content, of which it tells. tarfile raises if a file became shorter."""

    def __init__(self, prefix: bytes, content: Iterator[bytes], advance: Advance) -> None:
        self._rest = prefix
        self._content = content
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            piece = next(self._content, b"")
            if not piece:
                break
            self._advance(len(piece))
            self._rest += piece
        end = len(self._rest) if size < 0 else size
        data, self._rest = self._rest[:end], self._rest[end:]
        return data


def _place(root: Path, name: str) -> Path:
    """Where a member goes. Raises UnsafeTreeError unless that is in the directory, without passing a link."""
    if name.startswith("/") or "\0" in name:
        raise UnsafeTreeError(member=name, reason="is not a relative path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafeTreeError(member=name, reason="leaves the directory")
    path = root
    for part in parts[:-1]:
        path = path / part
        if path.is_symlink():
            raise UnsafeTreeError(member=name, reason="goes through a symbolic link")
        path.mkdir(exist_ok=True)
    return path / parts[-1] if parts else root


def _make(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, root: Path, advance: Advance) -> None:
    if member.isdir():
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            path.unlink()
        path.mkdir(exist_ok=True)
        path.chmod(0o700)
        return
    if path == root:
        raise UnsafeTreeError(member=member.name, reason="would replace the directory itself")
    if path.is_symlink() or path.is_file():
        path.unlink()
    if member.issym():
        _check_link(root, path, member)
        path.symlink_to(member.linkname)
    elif member.islnk():
        target = _place(root, member.linkname)
        if target.is_symlink() or not target.is_file():
            raise UnsafeTreeError(member=member.name, reason="is a hard link to what is no file of the tree")
        path.hardlink_to(target)
    elif member.isfifo():
        os.mkfifo(path, 0o600)
    elif member.isreg():
        source = tar.extractfile(member)
        assert source is not None
        with path.open("xb") as file:
            _copy(source, file, member.size, advance)
    else:
        raise UnsafeTreeError(member=member.name, reason="is a device, or of a kind that is not known")


def _check_link(root: Path, path: Path, member: tarfile.TarInfo) -> None:
    target = os.path.normpath(os.path.join(path.parent, member.linkname))  # noqa: PTH118 - a link's target is text
    if member.linkname.startswith("/") or not Path(target).is_relative_to(root):
        raise UnsafeTreeError(
            member=member.name, reason=f"is a link to {member.linkname!r:.200}, outside the directory"
        )


def _copy(source: IO[bytes], file: IO[bytes], size: int, advance: Advance) -> None:
    """Leaves holes where the data is zeros."""
    while data := source.read(_COPY_BYTES):
        if len(data) >= _HOLE_MIN and not data.strip(b"\0"):
            file.seek(len(data), os.SEEK_CUR)
        else:
            file.write(data)
        advance(len(data))
    file.truncate(size)


def _settle(path: Path, member: tarfile.TarInfo, *, owners: bool) -> None:
    """Owner, mode and time, in this order: a change of owner takes set-user-id away."""
    if owners:
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        path.chmod(member.mode & 0o7777 if owners else member.mode & 0o1777)
    when = _time(member)
    os.utime(path, ns=(when, when), follow_symlinks=False)


def _time(member: tarfile.TarInfo) -> int:
    try:
        return int(Decimal(member.pax_headers.get("mtime", member.mtime)) * 10**9)
    except ArithmeticError:
        raise UnsafeTreeError(member=member.name, reason="has a time that is no number") from None
