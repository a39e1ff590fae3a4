"""Which shared libraries a 64 bit little-endian ELF file asks for, without binutils."""

from __future__ import annotations

import struct

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


def needed(data: bytes) -> list[str]:
    """Names of the libraries, in the file's order; none for a static program. Raises ValueError if this is no ELF."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64 bit little-endian ELF file")
    try:
        return _needed(data)
    except (struct.error, StopIteration, OverflowError) as error:
        raise ValueError("the ELF file is cut short") from error


def _needed(data: bytes) -> list[str]:
    header = _HEADER.unpack_from(data)
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


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
