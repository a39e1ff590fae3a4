"""Requests and replies as bytes: None, bool, int (64 bit), str, bytes, list and dict with str keys.

JSON would do, but importing `json` costs the guest more than this whole module. Strings may hold file names: bytes that
are not UTF-8 travel as surrogate escapes.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NUMBER = struct.Struct("<cq")
_SIZED = struct.Struct("<cI")
_read_number = struct.Struct("<q").unpack_from
_read_size = struct.Struct("<I").unpack_from
_MAX_DEPTH = 8

# The most frequent types come first: a guest under emulation pays for each comparison.


def pack(value: Any) -> bytes:
    """Encodes a value. Raises TypeError, or ValueError for an int of more than 64 bits or text that is not Unicode."""
    parts: list[bytes] = []
    try:
        _pack(value, parts.append)
    except struct.error as error:
        raise ValueError("an int does not fit into 64 bits") from error
    return b"".join(parts)


def _pack(value: Any, write: Callable[[bytes], None]) -> None:
    if isinstance(value, str):
        encoded = value.encode("utf-8", "surrogateescape")
        write(_SIZED.pack(b"s", len(encoded)))
        write(encoded)
    elif value is True:
        write(b"t")
    elif value is False:
        write(b"f")
    elif isinstance(value, int):
        write(_NUMBER.pack(b"i", value))
    elif isinstance(value, dict):
        write(_SIZED.pack(b"d", len(value)))
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{key!r} is not a str")
            _pack(key, write)
            _pack(item, write)
    elif isinstance(value, bytes):
        write(_SIZED.pack(b"b", len(value)))
        write(value)
    elif isinstance(value, list):
        write(_SIZED.pack(b"l", len(value)))
        for item in value:
            _pack(item, write)
    elif value is None:
        write(b"n")
    else:
        raise TypeError(f"{type(value).__name__} cannot be sent on the wire")


def unpack(data: bytes) -> Any:
    """Decodes a value that takes up all of `data`. Raises ValueError for anything else."""
    try:
        value, end = _unpack(data, 0, _MAX_DEPTH)
    except (struct.error, IndexError) as error:
        raise ValueError("the value is truncated") from error
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes after the value")
    return value


def _unpack(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth == 0:
        raise ValueError(f"nested deeper than {_MAX_DEPTH}")
    tag = data[at]
    at += 1
    if tag == 0x69:
        return _read_number(data, at)[0], at + 8
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag not in b"sbld":
        raise ValueError(f"unknown tag {tag:#x}")
    (size,) = _read_size(data, at)
    at += 4
    if size > len(data) - at:
        raise IndexError(size)
    if tag == 0x73:
        return data[at : at + size].decode("utf-8", "surrogateescape"), at + size
    if tag == 0x62:
        return data[at : at + size], at + size
    if tag == 0x6C:
        items = []
        for _ in range(size):
            item, at = _unpack(data, at, depth - 1)
            items.append(item)
        return items, at
    fields: dict[str, Any] = {}
    for _ in range(size):
        key, at = _unpack(data, at, depth - 1)
        if not isinstance(key, str):
            raise ValueError(f"{key!r} is not a str")  # noqa: TRY004  (callers expect one kind of error)
        fields[key], at = _unpack(data, at, depth - 1)
    return fields, at


_CONSTANTS = {0x6E: None, 0x74: True, 0x66: False}
