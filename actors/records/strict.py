"""From JSON to the classes of a record, without conversions; an error names the faulty key.

A record is read by a service that did not write it, perhaps an older or newer one, and it holds a guest's answers.
"""

from __future__ import annotations

import math
import re
from enum import Enum
from typing import Annotated, Any, Final, TypeVar, get_origin

import attrs
import cattrs

_MAX_INTEGER: Final = 2**63 - 1

T = TypeVar("T")
E = TypeVar("E", bound=Enum)


class RecordError(Exception):
    """A record cannot be used, or cannot be written. `key` is the faulty key, empty for the whole record."""

    def __init__(self, *, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}" if key else reason)
        self.key = key
        self.reason = reason


@attrs.frozen
class Between:
    """The range of an integer: `Annotated[int, Between(0, 9)]`."""

    low: int
    high: int


Moment = Annotated[int, Between(0, _MAX_INTEGER)]


def structure(table: dict[str, Any], kind: type[T]) -> T:
    """Raises RecordError unless the table has exactly the keys of the class, and values of their types."""
    try:
        return _converter.structure(table, kind)
    except cattrs.BaseValidationError as error:
        first, *_ = cattrs.transform_error(error, format_exception=_say)
        raise _record_error(first) from error


def unstructure(record: attrs.AttrsInstance) -> dict[str, Any]:
    table: dict[str, Any] = _converter.unstructure(record)
    return table


def kind_of(kinds: type[E], value: str, *, key: str) -> E:
    """Raises RecordError."""
    try:
        return kinds(value)
    except ValueError:
        known = ", ".join(repr(kind.value) for kind in kinds)
        raise RecordError(key=key, reason=f"{value!r:.40} is not one of {known}") from None


def _literally(kind: type[Any], value: Any, *, expected: str) -> Any:
    """JSON has types, and "2" is not 2."""
    if type(value) is not kind:
        raise TypeError(f"must be {expected}, not {value!r:.40}")
    return value


def _text(value: Any, _: Any) -> str:
    """What cannot be encoded would make an error of every message that it is in, also of those about other VMs."""
    text: str = _literally(str, value, expected="a string")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"must be Unicode text, not {text!r:.40}") from None
    return text


def _integer(value: Any, _: Any) -> int:
    integer: int = _literally(int, value, expected="a whole number")
    if abs(integer) > _MAX_INTEGER:
        raise ValueError(f"must be within 64 bits, not {integer!r:.40}")
    return integer


def _is_annotated(kind: Any) -> bool:
    return get_origin(kind) is Annotated


def _integer_between(value: Any, kind: Any) -> int:
    integer, (limits,) = _integer(value, kind), kind.__metadata__
    if not limits.low <= integer <= limits.high:
        raise ValueError(f"must be between {limits.low} and {limits.high}, not {integer}")
    return integer


def _number(value: Any, kind: Any) -> float:
    if type(value) is not int:
        return _finite(value)
    integer = _integer(value, kind)
    if int(float(integer)) != integer:
        raise ValueError(f"must be a number without loss of precision, not {integer}")
    return float(integer)


def _finite(value: Any) -> float:
    number: float = _literally(float, value, expected="a number")
    if not math.isfinite(number):
        raise ValueError(f"must be finite, not {number}")
    return number


def _say(error: BaseException, _kind: type[Any] | None) -> str:
    match error:
        case cattrs.ForbiddenExtraKeysError():
            return f"has unknown keys: {', '.join(sorted(error.extra_fields))!r:.80}"
        case KeyError():
            return "is missing"
        case TypeError() if str(error).startswith("must be"):
            return str(error)
        case TypeError() | AttributeError():
            return "must be an object"  # cattrs tried to iterate over a value that is not a mapping
        case _:
            return str(error)


def _record_error(fault: str) -> RecordError:
    """`must be ... @ $.lease.owner_uid` in its parts."""
    reason, _, where = fault.rpartition(" @ $")
    return RecordError(key=re.sub(r"\['([^']*)'\]", r".\1", where).lstrip("."), reason=reason)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(bool, lambda value, _: _literally(bool, value, expected="true or false"))
    converter.register_structure_hook_func(_is_annotated, _integer_between)
    return converter


_converter: Final = _make_converter()
