"""Messages of any kind, drawn field by field from their schema: with values that mean something, and others."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import betterproto2
from grpclib.const import Cardinality, Handler

from vmpool.wire.generated.vmpool import v1 as wire

LEASE: Final = "lease-" + "0123456789abcdef" * 2
"""In the messages for the id of a lease that lives; whoever sends them puts that in its place. It is as long."""

_OF_POOL: Final = frozenset(f"/vmpool.v1.Pool/{name}" for name in ("GetLease", "ListLeases", "VmMetrics"))


def _methods() -> Mapping[bytes, Handler]:
    found: dict[bytes, Handler] = {}
    for service in (wire.PoolBase, wire.ProcessesBase, wire.FilesBase, wire.PortsBase):
        methods: Mapping[str, Handler] = service().__mapping__()
        found |= {
            path.encode(): handler
            for path, handler in methods.items()
            if service is not wire.PoolBase or path in _OF_POOL
        }
    return found


DRAWN: Final = _methods()
"""The methods whose messages are drawn, by path."""

DRAWN_STREAMS: Final = frozenset(
    path
    for path, handler in DRAWN.items()
    if handler.cardinality in (Cardinality.STREAM_UNARY, Cardinality.STREAM_STREAM)
)

_TEXTS: Final[Mapping[str, Sequence[str]]] = {
    "lease_id": (LEASE, LEASE, LEASE, LEASE, LEASE[:-1] + "0", ""),
    "argv": ("echo", "cat", "sleep", "9", "nothing", "", "\0"),
    "shell": ("", "", "", "exit 3", "a\0b"),
    "user": ("", "", "", "user", "1000", "nobody-here", "a:b", "u" * 300),
    "tag": ("", "a", "b", "t" * 129),
    "name": ("nofile", "cpu", "one", "two", "1", ""),
    "host": ("", "", "::1", "127.0.0.1", "localhost", "1.2.3"),
    "working_directory": ("", "", "/", "/tmp", "tmp"),
    "connection_id": ("", "connection-0", "x" * 200),
}
_ANY_TEXT: Final = ("", "x", "\N{SNOWMAN}", "y" * 200, "\0")

_PATHS: Final = (b"/tmp", b"/tmp/a", b"/tmp/a", b"/tmp/b/c", b"/", b"", b"a", b"/\0", b"/\xff", b"/" + b"x" * 256)

_NUMBERS: Final = (0, 0, 1, 2, 3, 9, 80, 0o644, 65535, 65536, 2**31 - 1)
_LARGE: Final = (2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def drawn(kind: type[betterproto2.Message], rng: random.Random) -> Any:
    """A message of this kind. Of a oneof, it has one field, and seldom none or two."""
    description: Any = kind._betterproto  # type: ignore[arg-type]
    groups: dict[str, list[str]] = {}
    fields: dict[str, Any] = {}
    for name, meta in description.meta_by_field_name.items():
        if meta.group:
            groups.setdefault(meta.group, []).append(name)
        elif not meta.optional or rng.random() < 0.5:
            fields[name] = _value(name, meta, description, rng)
    for names in groups.values():
        for name in rng.sample(names, min(len(names), rng.choice([0, 1, 1, 1, 1, 1, 1, 1, 1, 2]))):
            fields[name] = _value(name, description.meta_by_field_name[name], description, rng)
    return kind(**fields)


def _value(name: str, meta: Any, description: Any, rng: random.Random) -> Any:
    if meta.proto_type == betterproto2.TYPE_MAP:
        return {rng.choice(_ANY_TEXT): rng.choice(_ANY_TEXT) for _ in range(rng.choice([0, 0, 1, 3]))}

    def one() -> Any:
        if meta.proto_type == betterproto2.TYPE_MESSAGE:
            return drawn(description.cls_by_field[name], rng)
        if meta.proto_type == betterproto2.TYPE_ENUM:
            return description.cls_by_field[name](rng.randrange(8))
        return _DRAW[meta.proto_type](name, rng)

    return [one() for _ in range(rng.choice([0, 1, 1, 2, 3]))] if meta.repeated else one()


def _text(name: str, rng: random.Random) -> str:
    return rng.choice(_TEXTS.get(name, _ANY_TEXT))


def _bytes(name: str, rng: random.Random) -> bytes:
    if name in ("path", "target", "unix_path"):
        return rng.choice(_PATHS)
    return rng.randbytes(rng.choice([0, 1, 100, 1000]))


_DRAW: Final[Mapping[str, Callable[[str, random.Random], Any]]] = {
    betterproto2.TYPE_STRING: _text,
    betterproto2.TYPE_BYTES: _bytes,
    betterproto2.TYPE_BOOL: lambda _name, rng: rng.random() < 0.3,
    betterproto2.TYPE_UINT32: lambda _name, rng: rng.choice([*_NUMBERS, 2**32 - 1]),
    betterproto2.TYPE_INT32: lambda _name, rng: rng.choice([*_NUMBERS, -1]),
    betterproto2.TYPE_UINT64: lambda _name, rng: rng.choice([*_NUMBERS, *_LARGE]),
    betterproto2.TYPE_INT64: lambda _name, rng: rng.choice([*_NUMBERS, -1, -(2**63)]),
}
