"""Headers of tar members in pax format."""

from __future__ import annotations

import struct

BLOCK = 512
END = bytes(2 * BLOCK)

REGULAR, HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

_PAX = b"x"
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_MAX_NAME = 100
_MAX_SIZE = 8**11 - 1
_MAX_ID = 8**7 - 1


class Member:
    """What a header tells."""

    def __init__(
        self, name: bytes, kind: bytes, *, mode: int, owner: tuple[int, int], names: tuple[str, str], modified_ns: int
    ) -> None:
        """`owner` is user and group, `names` theirs."""
        self.name = name
        self.kind = kind
        self.mode = mode
        self.owner = owner
        self.names = names
        self.modified_ns = modified_ns
        self.size = 0
        self.link = b""
        self.device = (0, 0)
        self.sparse: list[tuple[int, int]] | None = None
        """Offset and length of each piece that has data; None for a file without holes."""

    def encode(self) -> bytes:
        """The header, and for a sparse file the map that its data begins with. `size` is that of the whole file."""
        records = {b"mtime": _time(self.modified_ns)}
        name, size, data_map = self.name, self.size, b""
        if self.sparse is not None:
            data_map = _sparse_map(self.sparse)
            records |= {
                b"GNU.sparse.major": b"1",
                b"GNU.sparse.minor": b"0",
                b"GNU.sparse.name": self.name,
                b"GNU.sparse.realsize": b"%d" % self.size,
            }
            # Short and ASCII: a record of a path would be the name for those who take the last one that they read.
            name = b"GNUSparseFile.0/file"
            size = len(data_map) + sum(length for _, length in self.sparse)
        if len(name) > _MAX_NAME or not name.isascii():
            records[b"path"] = name
        if len(self.link) > _MAX_NAME or not self.link.isascii():
            records[b"linkpath"] = self.link
        if size > _MAX_SIZE:
            records[b"size"] = b"%d" % size
        for key, number in zip((b"uid", b"gid"), self.owner, strict=True):
            if number > _MAX_ID:
                records[key] = b"%d" % number
        if not (_is_utf8(self.name) and _is_utf8(self.link)):
            records = {b"hdrcharset": b"BINARY", **records}
        pax = b"".join(_record(key, value) for key, value in records.items())
        extended = _block(b"./PaxHeaders/" + name[:80], _PAX, 0o644, len(pax)) + padded(pax)
        return extended + self._ustar(name, size) + data_map

    def _ustar(self, name: bytes, size: int) -> bytes:
        return _block(
            name,
            self.kind,
            self.mode,
            size,
            owner=self.owner,
            seconds=self.modified_ns // 10**9,
            link=self.link,
            names=self.names,
            device=self.device,
        )


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    size: int,
    *,
    owner: tuple[int, int] = (0, 0),
    seconds: int = 0,
    link: bytes = b"",
    names: tuple[str, str] = ("", ""),
    device: tuple[int, int] = (0, 0),
) -> bytes:
    block = _HEADER.pack(
        name[:_MAX_NAME],
        b"%07o" % (mode & 0o7777),
        b"%07o" % min(owner[0], _MAX_ID),
        b"%07o" % min(owner[1], _MAX_ID),
        b"%011o" % min(size, _MAX_SIZE),
        b"%011o" % min(max(seconds, 0), _MAX_SIZE),
        b" " * 8,
        kind,
        link[:_MAX_NAME],
        b"ustar\x0000",
        names[0].encode("ascii", "replace")[:31],
        names[1].encode("ascii", "replace")[:31],
        b"%07o" % device[0],
        b"%07o" % device[1],
        b"",
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    # The length of a record counts its own digits.
    length = len(key) + len(value) + 3
    total = length + len(b"%d" % length)
    total = length + len(b"%d" % total)
    return b"%d %b=%b\n" % (total, key, value)


def _time(ns: int) -> bytes:
    sign, ns = (b"-", -ns) if ns < 0 else (b"", ns)
    return b"%b%d.%09d" % (sign, ns // 10**9, ns % 10**9)


def _sparse_map(pieces: list[tuple[int, int]]) -> bytes:
    numbers = [len(pieces), *(number for piece in pieces for number in piece)]
    return padded(b"".join(b"%d\n" % number for number in numbers))


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
