"""Whether bytes are a message of a type, and one that can be read in no time. betterproto2 does not ask.

Its decoder takes a text that ends early for a shorter text, a number for a text, and passes over a broken tail; what
comes out has fields of the wrong type, and is not what the caller sent. It takes microseconds for each field; and it
keeps unknown fields, copying all of them for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import betterproto2

MAX_FIELDS: Final = 10_000
"""Of a message, its parts included, and the elements of lists: a tenth of a second's work. An entry of a map is three:
itself, its key and its value."""

MAX_UNKNOWN_FIELDS: Final = 1000
MAX_UNKNOWN_BYTES: Final = 256 * 1024
"""What a newer client may say that this service does not know."""

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
    """It would take too long to read. `field` is where that was noticed: its path, or that of the list it is in."""

    def __init__(self, *, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


@attrs.define
class Budget:
    """What one message may still have."""

    fields: int = MAX_FIELDS
    unknown_fields: int = MAX_UNKNOWN_FIELDS
    unknown_bytes: int = MAX_UNKNOWN_BYTES

    def spend(self, field: str, count: int) -> None:
        """Raises TooManyFieldsError."""
        self.fields -= count
        if self.fields < 0:
            raise TooManyFieldsError(
                field=field,
                reason=f"with it the message has more than {MAX_FIELDS} fields and elements of lists, of which an "
                "entry of a map is three",
            )

    def spend_unknown(self, field: str, size: int) -> None:
        """Raises TooManyFieldsError."""
        self.unknown_fields -= 1
        self.unknown_bytes -= size
        if self.unknown_fields < 0 or self.unknown_bytes < 0:
            raise TooManyFieldsError(
                field=field,
                reason=f"with it there are more than {MAX_UNKNOWN_FIELDS} fields, or {MAX_UNKNOWN_BYTES} bytes of "
                "them, that this service does not know",
            )


def check_wellformed(data: memoryview, kind: type[betterproto2.Message], *, budget: Budget | None = None) -> None:
    """Raises ValueError unless `data` is a `kind`, down into its parts. Unknown fields may be anything that ends.

    Raises TooManyFieldsError when the budget is spent. Takes time in proportion to the fields, not to their size.
    """
    _check(data, kind, budget=budget)


def _check(
    data: memoryview, kind: type[betterproto2.Message], *, budget: Budget | None, path: str = "", collection: str = ""
) -> None:
    """`path` leads to this part; `collection` to the outermost list or map that it is an element of, if it is."""
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
        # betterproto2 makes a list of it all the same where one number belongs.
        packed = meta.repeated and wire_type == _LENGTH_DELIMITED and proto_type in betterproto2.PACKED_TYPES
        if wire_type != _WIRE_TYPES[proto_type] and not packed:
            raise ValueError(f"field {inner} is no {proto_type}")
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
    """Number, wire type and content of each field; the content is of interest where it has a length of its own."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if not number:
            raise ValueError("field number 0")
        if wire_type == betterproto2.WIRE_VARINT:
            _, end = _varint(data, position)
        elif wire_type == _LENGTH_DELIMITED:
            size, position = _varint(data, position)
            end = position + size
        elif wire_type in _FIXED_SIZES:
            end = position + _FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"field {number} has wire type {wire_type}")
        if end > len(data):
            raise ValueError(f"field {number} ends beyond the end")
        yield number, wire_type, data[position:end]
        position = end


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if not byte & 0x80:
            return value, position + count + 1
    raise ValueError(f"the number at byte {position} has no end")
