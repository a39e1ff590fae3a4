"""Requests and replies as bytes: None, bool, int (64 bit), str, bytes, list and dict with str keys.

JSON would do, but importing `json` costs the guest more than this whole module. Strings may hold what file names hold:
bytes that are not UTF-8 travel as surrogate escapes.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INT = struct.Struct("<q")
_SIZE = struct.Struct("<I")
_MAX_DEPTH = 8


def pack(value: Any) -> bytes:
    """Bytes of a value. Raises TypeError, or ValueError for a number of more than 64 bits or text that is none."""
    parts: list[bytes] = []
    try:
        _pack(value, parts)
    except struct.error as error:
        raise ValueError("a number does not fit into 64 bits") from error
    return b"".join(parts)


def _pack(value: Any, parts: list[bytes]) -> None:
    if value is None:
        parts.append(b"n")
    elif value is True:
        parts.append(b"t")
    elif value is False:
        parts.append(b"f")
    elif isinstance(value, int):
        parts += (b"i", _INT.pack(value))
    elif isinstance(value, bytes):
        parts += (b"b", _SIZE.pack(len(value)), value)
    elif isinstance(value, str):
        encoded = value.encode("utf-8", "surrogateescape")
        parts += (b"s", _SIZE.pack(len(encoded)), encoded)
    elif isinstance(value, list):
        parts += (b"l", _SIZE.pack(len(value)))
        for item in value:
            _pack(item, parts)
    elif isinstance(value, dict):
        parts += (b"d", _SIZE.pack(len(value)))
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{key!r} is not a str")
            _pack(key, parts)
            _pack(item, parts)
    else:
        raise TypeError(f"{type(value).__name__} has no place on the wire")


def unpack(data: bytes) -> Any:
    """The value that `data` is, all of it. Raises ValueError for anything else."""
    try:
        value, end = _unpack(data, 0, _MAX_DEPTH)
    except (struct.error, IndexError) as error:
        raise ValueError("the value is cut short") from error
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes after the value")
    return value


def _unpack(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth == 0:
        raise ValueError(f"nested deeper than {_MAX_DEPTH}")
    tag = data[at]
    at += 1
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag == 0x69:
        return _INT.unpack_from(data, at)[0], at + _INT.size
    if tag not in b"bsld":
        raise ValueError(f"unknown tag {tag:#x}")
    size = _SIZE.unpack_from(data, at)[0]
    at += _SIZE.size
    if size > len(data) - at:
        raise IndexError(size)
    if tag in b"bs":
        raw = data[at : at + size]
        return (raw if tag == 0x62 else raw.decode("utf-8", "surrogateescape")), at + size
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
            raise ValueError(f"{key!r} is not a str")  # noqa: TRY004  (the reader of bytes wants one error)
        fields[key], at = _unpack(data, at, depth - 1)
    return fields, at


_CONSTANTS = {0x6E: None, 0x74: True, 0x66: False}
