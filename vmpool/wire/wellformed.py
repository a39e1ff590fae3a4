"""Checks that bytes are a valid message of a type, and cheap to decode. betterproto2 does neither.

Its decoder accepts a truncated text, a number for a text, and a broken tail; the result has fields of the wrong type
and is not what the caller sent. It takes microseconds for each field, and copies all unknown fields for each further
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import betterproto2

MAX_FIELDS: Final = 10_000
"""Fields of a message, nested ones and elements of lists included: a tenth of a second's work. An entry of a map counts
as three: itself, its key and its value."""

MAX_UNKNOWN_FIELDS: Final = 1000
MAX_UNKNOWN_BYTES: Final = 256 * 1024
"""Fields that a newer client may send and this service does not know."""

_LENGTH_DELIMITED: Final = betterproto2.WIRE_LEN_DELIM
_FIXED_SIZES: Final = {betterproto2.WIRE_FIXED_32: 4, betterproto2.WIRE_FIXED_64: 8}
_MAX_VARINT_BYTES: Final = 10

_WIRE_TYPES: Final = {
    **dict.fromkeys(betterproto2.WIRE_VARINT_TYPES, betterproto2.WIRE_VARINT),
    **dict.fromkeys(betterproto2.WIRE_FIXED_32_TYPES, betterproto2.WIRE_FIXED_32),
    **dict.fromkeys(betterproto2.WIRE_FIXED_64_TYPES, betterproto2.WIRE_FIXED_64),
    **dict.fromkeys(betterproto2.WIRE_LEN_DELIM_TYPES, _LENGTH_DELIMITED),
}


class TooManyFieldsError(ValueError):
    """The message would take too long to decode. `field` is the path of the field, or of its list, that exceeds the
    limit."""

    def __init__(self, *, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


@attrs.define
class Budget:
    """What is left of the limits for one message."""

    fields: int = MAX_FIELDS
    unknown_fields: int = MAX_UNKNOWN_FIELDS
    unknown_bytes: int = MAX_UNKNOWN_BYTES

    def spend(self, field: str, count: int) -> None:
        """Raises TooManyFieldsError."""
        self.fields -= count
        if self.fields < 0:
            raise TooManyFieldsError(
                field=field,
                reason=f"puts the message over {MAX_FIELDS} fields and list elements, with a map entry as three",
            )

    def spend_unknown(self, field: str, size: int) -> None:
        """Raises TooManyFieldsError."""
        self.unknown_fields -= 1
        self.unknown_bytes -= size
        if self.unknown_fields < 0 or self.unknown_bytes < 0:
            raise TooManyFieldsError(
                field=field,
                reason=f"puts unknown fields over {MAX_UNKNOWN_FIELDS}, or their bytes over {MAX_UNKNOWN_BYTES}",
            )


def check_wellformed(data: memoryview, kind: type[betterproto2.Message], *, budget: Budget | None = None) -> None:
    """Raises ValueError unless `data` is a valid `kind`, nested messages included. Unknown fields only have to be
    complete.

    Raises TooManyFieldsError when the budget is spent. Takes time in proportion to the number of fields, not their
    size.
    """
    _check(data, kind, budget=budget)


def _check(
    data: memoryview, kind: type[betterproto2.Message], *, budget: Budget | None, path: str = "", collection: str = ""
) -> None:
    """`path` leads to this nested message; `collection` to the outermost list or map that contains it, if any."""
    description: Any = kind._betterproto  # type: ignore[arg-type]  # noqa: SLF001 - nowhere public
    for number, wire_type, value in _fields(data):
        name = description.field_name_by_number.get(number)
        if name is None:
            if budget is not None:
                part = collection or path
                budget.spend_unknown(f"field {number} of {part}" if part else f"field {number}", len(value))
            continue
        inner = f"{path}.{name}" if path else name
        meta = description.meta_by_field_name[name]
        proto_type = meta.proto_type
        # For a field that is not repeated, betterproto2 would decode packed values as a list.
        packed = meta.repeated and wire_type == _LENGTH_DELIMITED and proto_type in betterproto2.PACKED_TYPES
        if wire_type != _WIRE_TYPES[proto_type] and not packed:
            raise ValueError(f"field {inner} is not a {proto_type}")
        if budget is not None:
            budget.spend(collection or inner, len(value) if packed else 1)
        if proto_type in (betterproto2.TYPE_MESSAGE, betterproto2.TYPE_MAP):
            several = meta.repeated or proto_type == betterproto2.TYPE_MAP
            _check(
                value,
                description.cls_by_field[name],
                budget=budget,
                path=inner,
                collection=collection or (inner if several else ""),
            )


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and content of each field."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if not number:
            raise ValueError("field number 0 is invalid")
        if wire_type == betterproto2.WIRE_VARINT:
            _, end = _varint(data, position)
        elif wire_type == _LENGTH_DELIMITED:
            size, position = _varint(data, position)
            end = position + size
        elif wire_type in _FIXED_SIZES:
            end = position + _FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"field {number} has the invalid wire type {wire_type}")
        if end > len(data):
            raise ValueError(f"field {number} is truncated")
        yield number, wire_type, data[position:end]
        position = end


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if not byte & 0x80:
            return value, position + count + 1
    raise ValueError(f"the number at byte {position} is incomplete or too long")
