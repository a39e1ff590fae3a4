"""Go's encoding/json, for attrs records that stand for Go structs.

Kata's structs have no tags, so keys are Go field names. Like Go, the decoder accepts null as the zero value of any
type, matches keys case-insensitively if no exact match exists, and refuses 2048.0 for an integer. Unlike Go it keeps
unknown keys, so that received records can be passed on complete.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import attrs

from pool.kata.errors import Difference, WireError
from pool.kata.records.gokinds import (
    BOTH,
    FLAG,
    FLOAT32,
    INT64,
    OCTETS,
    TEXT,
    UINT32,
    UINT64,
    Generation,
    Generations,
    Kind,
    ListOf,
    MapOf,
    Optional,
    replace_surrogates,
)

_METADATA: Final = "pool.kata.records.gojson"


@attrs.frozen(kw_only=True)
class GoField:
    attribute: str
    name: str
    kind: Kind[Any]
    generations: Generations
    former: str = ""
    """The field's name in early versions of runtime 1.x. Read like the current name, and written beside it."""


@attrs.frozen(kw_only=True)
class GoRecord:
    """Base of records that stand for Go structs. Every field defaults to Go's zero value."""

    extra: Mapping[str, Any] = attrs.field(factory=dict)
    """Keys unknown to both generations; written back unchanged."""


R = TypeVar("R", bound=GoRecord)
T = TypeVar("T")


def text(name: str, generations: Generations = BOTH) -> str:
    return _field(name, TEXT, generations)


def flag(name: str, generations: Generations = BOTH) -> bool:
    return _field(name, FLAG, generations)


def uint32(name: str, generations: Generations = BOTH) -> int:
    return _field(name, UINT32, generations)


def uint64(name: str, generations: Generations = BOTH) -> int:
    return _field(name, UINT64, generations)


def int64(name: str, generations: Generations = BOTH) -> int:
    return _field(name, INT64, generations)


def float32(name: str, generations: Generations = BOTH) -> float:
    return _field(name, FLOAT32, generations)


def octets(name: str, generations: Generations = BOTH) -> bytes:
    return _field(name, OCTETS, generations)


def optional_uint64(name: str, generations: Generations = BOTH) -> int | None:
    return _field(name, Optional(UINT64), generations)


def texts(name: str, generations: Generations = BOTH) -> tuple[str, ...]:
    return _field(name, ListOf(TEXT), generations)


def uint32s(name: str, generations: Generations = BOTH) -> tuple[int, ...]:
    return _field(name, ListOf(UINT32), generations)


def mapping(
    name: str, *, key: Kind[Any] = TEXT, generations: Generations = BOTH, former: str = ""
) -> Mapping[Any, str]:
    """A map from `key` to text."""
    return _field(name, MapOf(key, TEXT), generations, former)


def records(name: str, record: type[R], generations: Generations = BOTH) -> tuple[R, ...]:
    return _field(name, ListOf(Struct(record)), generations)


def struct(name: str, record: type[R], generations: Generations = BOTH) -> R:
    return _field(name, Struct(record), generations)


def _field(name: str, kind: Kind[T], generations: Generations, former: str = "") -> T:
    return attrs.field(default=kind.zero, metadata={_METADATA: (name, kind, generations, former)})


def fields_of(record: type[GoRecord]) -> Iterator[GoField]:
    """The fields in declared order."""
    for attribute in attrs.fields(record):
        if _METADATA in attribute.metadata:
            name, kind, generations, former = attribute.metadata[_METADATA]
            yield GoField(attribute=attribute.name, name=name, kind=kind, generations=generations, former=former)


class Struct(Kind[R]):
    """A record within a record."""

    def __init__(self, record: type[R]) -> None:
        self.record = record
        self.zero = record()
        self._fields = tuple(fields_of(record))
        self._exact = {field.name: field for field in self._fields}
        self._folded: dict[str, GoField] = {}
        for field in self._fields:
            self._folded.setdefault(field.name.casefold(), field)
        self._former = {field.former.casefold(): field for field in self._fields if field.former}

    def decode(self, value: Any, path: str) -> R:
        if value is None:
            return self.record()
        if not isinstance(value, dict):
            raise WireError(path=path, problem=f"must be an object, not {json.dumps(value)[:80]}")
        known: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        former: dict[str, Any] = {}
        for key, content in value.items():
            field = self._exact.get(key) or self._folded.get(key.casefold())
            if field is not None:
                known[field.attribute] = field.kind.decode(content, f"{path}.{field.name}".lstrip("."))
            elif (field := self._former.get(key.casefold())) is not None:
                former[field.attribute] = field.kind.decode(content, f"{path}.{field.name}".lstrip("."))
            else:
                extra[key] = content
        return self.record(**(former | known), extra=extra)

    def encode(self, value: R, generation: Generation | None) -> dict[str, Any]:
        encoded = {
            field.name: field.kind.encode(getattr(value, field.attribute), generation)
            for field in self.fields(generation)
        }
        if generation is None:
            encoded |= {field.former: encoded[field.name] for field in self._fields if field.former}
        return encoded | {key: content for key, content in value.extra.items() if key not in encoded}

    def show(self, value: R, generation: Generation | None) -> str:
        shown = (
            f"{field.name}:{field.kind.show(getattr(value, field.attribute), generation)}"
            for field in self.fields(generation)
        )
        return "{" + " ".join(shown) + "}"

    def fields(self, generation: Generation | None) -> Iterator[GoField]:
        """The fields of one generation, or all."""
        return (field for field in self._fields if generation is None or generation in field.generations)


def decode(record: type[R], data: bytes) -> R:
    """Raises WireError naming the field."""
    try:
        value = json.loads(data.decode("utf-8", "replace"), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise WireError(path="", problem=f"not JSON: {error}") from error
    return Struct(record).decode(value, "")


def encode(record: GoRecord, generation: Generation | None = None) -> bytes:
    """The bytes that Go would write, fields in declared order. Without `generation`: the fields of both generations.

    Each generation ignores unknown fields, so both can read the latter.
    """
    value = Struct(type(record)).encode(record, generation)
    written = replace_surrogates(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    for character in "<>&\u2028\u2029":  # Go escapes these for HTML
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written.encode()


def show(record: GoRecord, generation: Generation | None = None) -> str:
    """The record as Go's %+v prints it."""
    return Struct(type(record)).show(record, generation)


def differences(
    base: GoRecord, new: GoRecord, *, generation: Generation | None = None, path: str = ""
) -> Iterator[Difference]:
    """The fields in which two records of one type differ, including nested structs. Unknown keys do not count."""
    for field in Struct(type(base)).fields(generation):
        here = f"{path}.{field.name}".lstrip(".")
        one, other = getattr(base, field.attribute), getattr(new, field.attribute)
        if isinstance(field.kind, Struct):
            yield from differences(one, other, generation=generation, path=here)
        elif field.kind.encode(one, generation) != field.kind.encode(other, generation):
            yield Difference(path=here, base=one, new=other)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(f"{literal} is too large")
    return number
