"""Small ELF files, as far as `vmm.initramfs.elf` reads them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC = struct.Struct("<qQ")
_IDENTITY = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
_RELOCATABLE, _SHARED, _X86_64 = 1, 3, 62


def kernel_module(*information: str) -> bytes:
    """With these lines as modinfo shows them."""
    contents = {"": b"", ".modinfo": b"".join(line.encode() + b"\0" for line in information), ".shstrtab": b""}
    names = b"\0".join(name.encode() for name in contents) + b"\0"
    contents[".shstrtab"] = names
    data, sections = b"", b""
    for name, content in contents.items():
        at = names.index(name.encode() + b"\0")
        sections += _SECTION.pack(at, 1, 0, 0, _HEADER.size + len(data), len(content), 0, 0, 1, 0)
        data += content
    count = len(contents)
    table = _HEADER.size + len(data)
    header = _HEADER.pack(
        _IDENTITY, _RELOCATABLE, _X86_64, 1, 0, 0, table, 0, _HEADER.size, 0, 0, _SECTION.size, count, count - 1
    )
    return header + data + sections


def shared_object(needed: Sequence[str]) -> bytes:
    """That asks for these libraries."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    strings_at = _HEADER.size + 2 * _SEGMENT.size
    entries = [(1, strings.index(name.encode() + b"\0")) for name in needed]
    dynamic = b"".join(_DYNAMIC.pack(*entry) for entry in [*entries, (5, strings_at), (0, 0)])
    dynamic_at = strings_at + len(strings)
    whole = dynamic_at + len(dynamic)
    header = _HEADER.pack(
        _IDENTITY, _SHARED, _X86_64, 1, 0, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size, 2, 0, 0, 0
    )
    segments = _SEGMENT.pack(1, 4, 0, 0, 0, whole, whole, 4096)
    segments += _SEGMENT.pack(2, 4, dynamic_at, dynamic_at, 0, len(dynamic), len(dynamic), 8)
    return header + segments + strings + dynamic
