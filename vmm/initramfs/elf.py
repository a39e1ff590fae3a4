"""Reads 64-bit little-endian ELF files, without binutils."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

_Found = TypeVar("_Found")

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC = struct.Struct("<qQ")

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


def needed(data: bytes) -> list[str]:
    """Names of the shared libraries that the file needs, in its order; empty for a static program.

    Raises ValueError if it is not an ELF file.
    """
    return _parse(data, _needed)


def section(data: bytes, name: str) -> bytes | None:
    """The content of the named section, None if it does not exist. Raises ValueError if this is not an ELF file."""
    return _parse(data, lambda data, header: _section(data, header, name))


def _parse(data: bytes, parse: Callable[[bytes, tuple[int, ...]], _Found]) -> _Found:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    try:
        return parse(data, _HEADER.unpack_from(data))
    except (struct.error, StopIteration, IndexError, OverflowError) as error:
        raise ValueError("the ELF file is truncated") from error


def _needed(data: bytes, header: tuple[int, ...]) -> list[str]:
    table, size, count = header[5], header[9], header[10]
    segments = [_SEGMENT.unpack_from(data, table + index * size) for index in range(count)]
    dynamic = next((segment for segment in segments if segment[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return []
    entries = []
    for at in range(dynamic[2], dynamic[2] + dynamic[5], _DYNAMIC.size):
        tag, value = _DYNAMIC.unpack_from(data, at)
        if tag == _DT_NULL:
            break
        entries.append((tag, value))
    address = next(value for tag, value in entries if tag == _DT_STRTAB)
    load = next(s for s in segments if s[0] == _PT_LOAD and s[3] <= address < s[3] + s[5])
    strings = address - load[3] + load[2]
    return [_string(data, strings + value) for tag, value in entries if tag == _DT_NEEDED]


def _section(data: bytes, header: tuple[int, ...], name: str) -> bytes | None:
    table, size, count, names = header[6], header[11], header[12], header[13]
    sections = [_SECTION.unpack_from(data, table + index * size) for index in range(count)]
    if not sections:
        return None
    strings = sections[names][4]
    found = next((s for s in sections if _string(data, strings + s[0]) == name), None)
    if found is None:
        return None
    start, length = found[4], found[5]
    content = data[start : start + length]
    if len(content) != length:
        raise ValueError("the ELF file is truncated")
    return content


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
