"""Members of a tar stream: pax, GNU and ustar, with every form of sparse file that GNU tar writes.

Python's `tarfile` knows them too. It takes several times as long, keeps every member, rounds times, and ends silently
at what is no header.
"""

from __future__ import annotations

import os

from .copying import write_all
from .tar_headers import BLOCK, DIRECTORY, HARD_LINK, REGULAR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .working import Host

    Pieces = list[tuple[int, int]]

_ZEROS = bytes(BLOCK)
_READ_SIZE = 64 * 1024
_AT_ONCE = 1024 * 1024

_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK, _GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"
_LINKS_AND_DEVICES = b"123456"
"""Have no data, whatever their headers say of their size."""

_MAX_EXTENDED = 1024 * 1024
_MAX_PIECES = 100_000


class TarError(ValueError):
    """The stream is not what tar writes."""


class Member:
    """What one header tells, with those before it that extend it."""

    def __init__(self, block: bytes) -> None:
        """Raises TarError."""
        self.name = _text(block[:100])
        self.kind = block[156:157]
        self.mode = _number(block[100:108])
        self.uid = _number(block[108:116])
        self.gid = _number(block[116:124])
        self.size = _number(block[124:136])
        """Of the file; `stored` is what of it is in the stream."""
        self.modified_ns = _number(block[136:148]) * 10**9
        self.link = _text(block[157:257])
        self.device = (0, 0)
        self.sparse: Pieces | None = None
        """Offset and length of what is in the stream, in order; None for a file without holes."""
        if block[257:263] == b"ustar\0":
            prefix = _text(block[345:500])
            self.name = prefix + b"/" + self.name if prefix else self.name
        if self.kind in {b"3", b"4"}:
            self.device = (_number(block[329:337]), _number(block[337:345]))
        if self.kind == b"\0" and self.name.endswith(b"/"):
            self.kind = DIRECTORY
        elif self.kind not in _LINKS_AND_DEVICES:
            self.kind = REGULAR
        self.stored = 0 if self.kind != REGULAR else self.size

    @property
    def is_link(self) -> bool:
        return self.kind == HARD_LINK


def members(source: Source) -> Iterator[Member]:
    """Each member; its data has to be taken from the source before the next one is asked for. Raises TarError."""
    for_all: dict[bytes, bytes] = {}
    extended: dict[bytes, bytes] = {}
    pieces: Pieces = []
    while block := source.read(BLOCK):
        if len(block) < BLOCK:
            raise TarError("it ends within a header")
        if block == _ZEROS:
            return
        _check(block)
        kind = block[156:157]
        if kind in {_PAX, _GLOBAL}:
            records, pieces = _records(source.read_padded(_number(block[124:136]), most=_MAX_EXTENDED))
            if kind == _PAX:
                extended = records
            else:
                for_all |= records
            continue
        if kind in {_LONG_NAME, _LONG_LINK}:
            text = source.read_padded(_number(block[124:136]), most=_MAX_EXTENDED).rstrip(b"\0")
            extended[b"path" if kind == _LONG_NAME else b"linkpath"] = text
            continue
        member = Member(block)
        if kind == _GNU_SPARSE:
            member.sparse = _old_pieces(block, source)
            member.size = _number(block[483:495])
        if for_all or extended:
            _extend(member, for_all | extended, pieces, source)
        _check_pieces(member)
        yield member
        extended, pieces = {}, []


def _check(block: bytes) -> None:
    total = sum(block) - sum(block[148:156]) + 8 * 32
    if _number(block[148:156]) != total:
        raise TarError("the checksum of a header is wrong")


def _extend(member: Member, records: dict[bytes, bytes], pieces: Pieces, source: Source) -> None:
    member.name = records.get(b"path", member.name)
    member.link = records.get(b"linkpath", member.link)
    if b"mtime" in records:
        member.modified_ns = _ns(records[b"mtime"])
    if b"uid" in records:
        member.uid = _integer(records[b"uid"])
    if b"gid" in records:
        member.gid = _integer(records[b"gid"])
    if member.kind == REGULAR and b"size" in records:
        member.size = member.stored = _integer(records[b"size"])
    if any(key.startswith(b"GNU.sparse.") for key in records):
        member.name = records.get(b"GNU.sparse.name", member.name)
        size = records.get(b"GNU.sparse.realsize", records.get(b"GNU.sparse.size"))
        member.size = member.size if size is None else _integer(size)
        if records.get(b"GNU.sparse.major") == b"1":
            member.sparse = _pieces_before_data(member, source)
        elif b"GNU.sparse.map" in records:
            member.sparse = _pairs([_integer(number) for number in records[b"GNU.sparse.map"].split(b",") if number])
        else:
            member.sparse = pieces


def _records(data: bytes) -> tuple[dict[bytes, bytes], Pieces]:
    """The records of a pax header, and the pieces of a sparse file of version 0.0, whose keys come again and again."""
    records: dict[bytes, bytes] = {}
    numbers: list[int] = []
    at = 0
    while at < len(data):
        length, _, _ = data[at : at + 20].partition(b" ")
        end = at + _integer(length)
        key, equals, value = data[at + len(length) + 1 : end - 1].partition(b"=")
        if not equals or end <= at or end > len(data) or data[end - 1 : end] != b"\n":
            raise TarError("a pax header is not well-formed")
        if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:
            numbers.append(_integer(value))
        records[key] = value
        at = end
    return records, _pairs(numbers)


def _old_pieces(block: bytes, source: Source) -> Pieces:
    numbers = _numbers(block[386:482])
    more = block[482]
    while more:
        block = source.read(BLOCK)
        if len(block) < BLOCK or len(numbers) > 2 * _MAX_PIECES:
            raise TarError("the map of a sparse file is not well-formed")
        numbers += _numbers(block[:504])
        more = block[504]
    return [piece for piece in _pairs(numbers) if piece != (0, 0)]


def _numbers(fields: bytes) -> list[int]:
    return [_number(fields[at : at + 12]) for at in range(0, len(fields), 12)]


def _pieces_before_data(member: Member, source: Source) -> Pieces:
    """The map of version 1.0, with which the data begins."""
    text = b""

    def line() -> int:
        nonlocal text
        while b"\n" not in text:
            block = source.read(BLOCK)
            member.stored -= BLOCK
            if len(block) < BLOCK or len(text) > BLOCK:
                raise TarError("the map of a sparse file is not well-formed")
            text += block
        number, _, text = text.partition(b"\n")
        return _integer(number)

    count = line()
    if count > _MAX_PIECES:
        raise TarError(f"a sparse file has more than {_MAX_PIECES} pieces")
    return [(line(), line()) for _ in range(count)]


def _pairs(numbers: list[int]) -> Pieces:
    if len(numbers) % 2 or len(numbers) > 2 * _MAX_PIECES:
        raise TarError("the map of a sparse file is not well-formed")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _check_pieces(member: Member) -> None:
    if member.size < 0 or member.stored < 0:
        raise TarError("a member has a size below 0")
    if member.sparse is not None:
        at = 0
        for offset, length in member.sparse:
            if offset < at or length < 0:
                raise TarError("the pieces of a sparse file are not in order")
            at = offset + length
        if at > member.size or sum(length for _, length in member.sparse) != member.stored:
            raise TarError("the pieces of a sparse file do not add up")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        # GNU's form for what does not fit: big endian, after a byte that has the sign.
        number = int.from_bytes(field[1:], "big")
        return number - (1 << 8 * (len(field) - 1)) if field[0] == 0xFF else number
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError as error:
        raise TarError("a number in a header is none") from error


def _integer(text: bytes) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise TarError("a number in a pax header is none") from error


def _ns(text: bytes) -> int:
    seconds, _, fraction = text.partition(b".")
    ns = _integer(fraction[:9].ljust(9, b"0"))
    return _integer(seconds or b"0") * 10**9 + (-ns if seconds.startswith(b"-") else ns)


class Source:
    """The input, read in large pieces."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._buffer = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """So many bytes, less at the end."""
        while len(self._buffer) - self._at < size:
            more = self._host.receive(_READ_SIZE)
            if not more:
                break
            self._buffer = self._buffer[self._at :] + more
            self._at = 0
        data = self._buffer[self._at : self._at + size]
        self._at += len(data)
        return data

    def read_padded(self, size: int, *, most: int) -> bytes:
        """So many bytes, without the padding to a whole block. Raises TarError."""
        if not 0 <= size <= most:
            raise TarError(f"a header of {size} bytes")
        data = self.read(size)
        if len(data) < size:
            raise TarError("it ends within a header")
        self.skip(-size % BLOCK)
        return data

    def skip(self, size: int) -> None:
        while size:
            data = self.read(min(size, _READ_SIZE))
            if not data:
                raise TarError("it ends within a member")
            size -= len(data)

    def copy_to(self, fd: int, size: int) -> None:
        """Writes the next bytes to a file. Raises OSError, or TarError."""
        while size:
            buffered = len(self._buffer) - self._at
            if size > _READ_SIZE and not buffered:
                done = os.splice(self._host.input, fd, min(size, _AT_ONCE))
            else:
                data = self.read(min(size, buffered or size))
                write_all(fd, data)
                done = len(data)
            if done == 0:
                raise TarError("it ends within a member")
            size -= done

    def drain(self) -> None:
        """Takes what follows the end of the archive."""
        while self.read(_READ_SIZE):
            pass
