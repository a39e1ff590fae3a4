"""The Go types of Kata's records: their zero value, their JSON, and how Go prints them."""

from __future__ import annotations

import abc
import base64
import binascii
import enum
import json
import math
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from pool.kata.errors import WireError

T = TypeVar("T")


class Generation(enum.Enum):
    """The supported generations of Kata. Each knows only its own fields."""

    RUNTIME_1X = "runtime 1.x"
    CURRENT = "current"


Generations = frozenset[Generation]

BOTH: Final = frozenset(Generation)
ONLY_1X: Final = frozenset({Generation.RUNTIME_1X})
ONLY_CURRENT: Final = frozenset({Generation.CURRENT})


class Kind(abc.ABC, Generic[T]):
    """One type. Only records use `generation`; the others pass it on."""

    zero: T

    @abc.abstractmethod
    def decode(self, value: Any, path: str) -> T:
        """Converts from `json`'s value. None, JSON's null, is the zero value. Raises WireError naming `path`."""

    def encode(self, value: T, generation: Generation | None) -> Any:  # noqa: ARG002 - records use it
        """Converts to a value for `json`."""
        return value

    def show(self, value: T, generation: Generation | None) -> str:  # noqa: ARG002 - as above
        """The value as Go's %+v prints it."""
        return str(value)


def replace_surrogates(written: str) -> str:
    r"""Replaces a lone surrogate, which JSON can spell as \ud800 and UTF-8 cannot encode, by U+FFFD, as in Go."""
    return written.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Text(Kind[str]):
    zero = ""

    def decode(self, value: Any, path: str) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise _unfit(path, "a string", value)
        return replace_surrogates(value)


class Flag(Kind[bool]):
    zero = False

    def decode(self, value: Any, path: str) -> bool:
        if value is None:
            return False
        if not isinstance(value, bool):
            raise _unfit(path, "true or false", value)
        return value

    def show(self, value: bool, generation: Generation | None) -> str:  # noqa: ARG002
        return "true" if value else "false"


class Integer(Kind[int]):
    zero = 0

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high

    def decode(self, value: Any, path: str) -> int:
        if value is None:
            return 0
        if type(value) is not int or not self.low <= value <= self.high:
            raise _unfit(path, f"an integer from {self.low} to {self.high}", value)
        return value


class Float32(Kind[float]):
    zero = 0.0

    def decode(self, value: Any, path: str) -> float:
        if value is None:
            return 0.0
        if type(value) not in (int, float) or not abs(value) <= _MAX_FLOAT32:
            raise _unfit(path, "a number that 32 bits can hold", value)
        return float(value)

    def encode(self, value: float, generation: Generation | None) -> int | float:  # noqa: ARG002
        """Go writes 1.0 as 1, and only as many digits as distinguish a float32 from its neighbours."""
        if value == math.floor(value):
            return int(value)
        narrow = _narrow(value)
        return next(short for digits in range(1, 10) if _narrow(short := float(f"{narrow:.{digits}g}")) == narrow)

    def show(self, value: float, generation: Generation | None) -> str:
        return f"{self.encode(value, generation)}"


class Octets(Kind[bytes]):
    zero = b""

    def decode(self, value: Any, path: str) -> bytes:
        if value is None:
            return b""
        if not isinstance(value, str):
            raise _unfit(path, "base64", value)
        try:
            return base64.b64decode(value.replace("\r", "").replace("\n", ""), validate=True)
        except (binascii.Error, ValueError) as error:
            raise _unfit(path, "base64", value) from error

    def encode(self, value: bytes, generation: Generation | None) -> str | None:  # noqa: ARG002
        return base64.b64encode(value).decode("ascii") if value else None

    def show(self, value: bytes, generation: Generation | None) -> str:  # noqa: ARG002
        return "[" + " ".join(str(octet) for octet in value) + "]"


class Optional(Kind[T | None]):
    """A pointer. Kata compares pointers by address; here the values count."""

    zero: T | None = None

    def __init__(self, content: Kind[T]) -> None:
        self.content = content

    def decode(self, value: Any, path: str) -> T | None:
        return None if value is None else self.content.decode(value, path)

    def encode(self, value: T | None, generation: Generation | None) -> Any:
        return None if value is None else self.content.encode(value, generation)

    def show(self, value: T | None, generation: Generation | None) -> str:
        return "<nil>" if value is None else self.content.show(value, generation)


class ListOf(Kind[tuple[T, ...]]):
    """A slice. An empty one is written as null, Go's nil; readers and comparisons treat both alike."""

    zero: tuple[T, ...] = ()

    def __init__(self, content: Kind[T]) -> None:
        self.content = content

    def decode(self, value: Any, path: str) -> tuple[T, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise _unfit(path, "a list", value)
        return tuple(self.content.decode(member, f"{path}[{index}]") for index, member in enumerate(value))

    def encode(self, value: tuple[T, ...], generation: Generation | None) -> list[Any] | None:
        return [self.content.encode(member, generation) for member in value] or None

    def show(self, value: tuple[T, ...], generation: Generation | None) -> str:
        return "[" + " ".join(self.content.show(member, generation) for member in value) + "]"


class MapOf(Kind[Mapping[Any, Any]]):
    """A map. An empty one is written as {}: Kata adds to a bridge's devices, and Go panics when adding to null."""

    zero: Mapping[Any, Any] = MappingProxyType({})

    def __init__(self, key: Kind[Any], content: Kind[Any]) -> None:
        self.key = key
        self.content = content

    def decode(self, value: Any, path: str) -> dict[Any, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise _unfit(path, "an object", value)
        return {
            self._decode_key(key, path): self.content.decode(content, f"{path}.{key}") for key, content in value.items()
        }

    def _decode_key(self, key: str, path: str) -> Any:
        if not isinstance(self.key, Integer):
            return key
        if not (key.isascii() and key.isdigit()):
            raise _unfit(path, "an object with numbers as keys", key)
        return self.key.decode(int(key), path)

    def encode(self, value: Mapping[Any, Any], generation: Generation | None) -> dict[str, Any]:
        return {str(key): self.content.encode(content, generation) for key, content in sorted(value.items())}

    def show(self, value: Mapping[Any, Any], generation: Generation | None) -> str:
        shown = (f"{key}:{self.content.show(content, generation)}" for key, content in sorted(value.items()))
        return "map[" + " ".join(shown) + "]"


_MAX_FLOAT32: Final = 3.4028234663852886e38

TEXT: Final = Text()
FLAG: Final = Flag()
INT32: Final = Integer(-(2**31), 2**31 - 1)
INT64: Final = Integer(-(2**63), 2**63 - 1)
UINT32: Final = Integer(0, 2**32 - 1)
UINT64: Final = Integer(0, 2**64 - 1)
FLOAT32: Final = Float32()
OCTETS: Final = Octets()


def _narrow(value: float) -> float:
    (narrow,) = struct.unpack("<f", struct.pack("<f", value))
    assert isinstance(narrow, float)
    return narrow


def _unfit(path: str, wanted: str, value: Any) -> WireError:
    return WireError(path=path, problem=f"must be {wanted}, not {json.dumps(value, default=str)[:80]}")
