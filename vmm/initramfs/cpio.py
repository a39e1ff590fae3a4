"""Writes an initramfs: a reproducible cpio archive in "newc" format."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from io import BytesIO

import attrs

_TRAILER = "TRAILER!!!"


@attrs.frozen(kw_only=True)
class Entry:
    """One path of the archive. The time is 1970, so that nothing depends on when it was built."""

    path: str
    """Without a leading slash."""
    mode: int
    """Type and permissions, as in `st_mode`."""
    data: bytes = b""
    """A file's content or a symbolic link's target."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device node."""
    owner: int = 0
    """Number of its user and its group."""


def directory(path: str, *, mode: int = 0o755, owner: int = 0) -> Entry:
    return Entry(path=path, mode=stat.S_IFDIR | mode, owner=owner)


def file(path: str, data: bytes, *, mode: int = 0o644) -> Entry:
    return Entry(path=path, mode=stat.S_IFREG | mode, data=data)


def link(path: str, target: str) -> Entry:
    return Entry(path=path, mode=stat.S_IFLNK | 0o777, data=target.encode())


def character_device(path: str, major: int, minor: int, *, mode: int = 0o600) -> Entry:
    return Entry(path=path, mode=stat.S_IFCHR | mode, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive, sorted by path, with all parent directories. Of several equal paths the last one is used."""
    by_path: dict[str, Entry] = {}
    for entry in entries:
        for parent in _parents(entry.path):
            by_path.setdefault(parent, directory(parent))
        by_path[entry.path] = entry
    out = BytesIO()
    for number, (_, entry) in enumerate(sorted(by_path.items()), start=1):
        _write(out, entry, number)
    _write(out, Entry(path=_TRAILER, mode=0), 0)
    out.write(bytes(-out.tell() % 512))
    return out.getvalue()


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _write(out: BytesIO, entry: Entry, inode: int) -> None:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, entry.owner, entry.owner, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
    out.write(bytes(-out.tell() % 4))
    out.write(entry.data)
    out.write(bytes(-out.tell() % 4))
