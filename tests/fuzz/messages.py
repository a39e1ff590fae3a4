"""Messages of every method: good ones, and what becomes of them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any, Final

from grpclib.reflection.v1 import reflection_pb2 as reflection

from tests.fuzz.drawn import DRAWN, LEASE, drawn
from tests.fuzz.http2 import PATHS
from vmpool.wire.generated.vmpool import v1 as wire

_TEXTS: Final = ("", "default", "none", "a" * 129, "x" * 2000, "\0", "ü\N{SNOWMAN}", "../..", "-", " ")
_NUMBERS: Final = (0, 1, 2, 3, 100, 1000, 2**31 - 1, 2**32 - 1)


def _text(rng: random.Random) -> str:
    return rng.choice(_TEXTS)


def _lease_id(rng: random.Random) -> str:
    return rng.choice([LEASE, LEASE, LEASE, LEASE[:-1] + "0", _text(rng)])


def _environment(rng: random.Random) -> dict[str, str]:
    return {_text(rng): _text(rng) for _ in range(rng.choice([0, 0, 1, 3]))}


def _acquire(rng: random.Random) -> wire.AcquireRequest:
    return wire.AcquireRequest(
        profile=rng.choice(["", "default", "default", _text(rng)]),
        idempotency_key=rng.choice(["", "", _text(rng), f"k{rng.randrange(5)}"]),
        on_empty=wire.OnEmpty(rng.randrange(4)),
        vcpus=rng.choice([0, 0, 2, rng.choice(_NUMBERS)]),
        memory_mib=rng.choice([0, 0, 512, rng.choice(_NUMBERS)]),
        hostname=rng.choice(["", "", "host", _text(rng)]),
        environment=_environment(rng),
        name=rng.choice(["", "", "", "one", "two", _text(rng)]),
        files=[
            wire.GuestFile(path=rng.choice(["/tmp/a", _text(rng)]), data=rng.randbytes(9), mode=rng.choice(_NUMBERS))
            for _ in range(rng.choice([0, 0, 1, 2]))
        ],
        labels=rng.choice([{}, {"job": _text(rng)}, _environment(rng), {f"k{n}": "" for n in range(40)}]),
        lease_ttl_ms=rng.choice([0, 0, 1, 50, 2**63, 2**64 - 1]),
        wait_ms=rng.choice([0, 1, 50, 2**64 - 1]),
    )


def _exec(rng: random.Random) -> wire.ExecRequest:
    match rng.randrange(8):
        case 7:
            return wire.ExecRequest(resize=wire.Terminal(rows=rng.choice(_NUMBERS), columns=rng.choice(_NUMBERS)))
        case 0:
            return wire.ExecRequest(stdin=rng.randbytes(rng.choice([0, 1, 1000])))
        case 1:
            return wire.ExecRequest(close_stdin=wire.CloseStdin())
        case 2:
            return wire.ExecRequest(signal=rng.choice([0, 2, 9, 15, 64, 65, -1, 2**31 - 1]))
        case _:
            return wire.ExecRequest(
                start=wire.ExecStart(
                    lease_id=_lease_id(rng),
                    argv=rng.choice([["echo", "x"], ["cat"], ["env"], ["true"], ["nothing"], [], [_text(rng)]]),
                    environment=_environment(rng),
                    working_directory=rng.choice(["", "/", _text(rng)]),
                    time_limit_ms=rng.choice([0, 1, 50, 2**63, 2**64 - 1]),
                    stdin=rng.choice([b"", b"x", bytes(256 * 1024), bytes(256 * 1024 + 1)]),
                )
            )


def _renew(rng: random.Random) -> wire.RenewRequest:
    return wire.RenewRequest(lease_id=_lease_id(rng), ttl_ms=rng.choice([0, 1, 60_000, 2**63, 2**64 - 1]))


def _release(rng: random.Random) -> wire.ReleaseRequest:
    return wire.ReleaseRequest(lease_id=rng.choice([_lease_id(rng), _text(rng), _text(rng), "lease-"]))


def _status(_rng: random.Random) -> wire.StatusRequest:
    return wire.StatusRequest()


def _console(rng: random.Random) -> wire.ConsoleRequest:
    return wire.ConsoleRequest(vm_id=rng.choice([_text(rng), "vm-0123456789ab"]))


def _reflection(rng: random.Random) -> reflection.ServerReflectionRequest:
    """Of v1, and of v1alpha, too: they are the same bytes."""
    name = rng.choice(["", "vmpool.v1.Pool", "vmpool.v1.Pool.Acquire", "vmpool/v1/pool.proto", "cache.CacheService"])
    extension = reflection.ExtensionRequest(containing_type=name, extension_number=rng.randrange(-1, 3))
    questions: list[dict[str, Any]] = [
        {},
        {"list_services": ""},
        {"file_by_filename": name},
        {"file_containing_symbol": name},
        {"file_containing_extension": extension},
        {"all_extension_numbers_of_type": name},
    ]
    return reflection.ServerReflectionRequest(host=rng.choice(["", "x" * 2000]), **rng.choice(questions))


_BUILDERS: Final[dict[bytes, Callable[[random.Random], Any]]] = {
    PATHS[0]: _acquire,
    PATHS[1]: _acquire,
    PATHS[2]: _renew,
    PATHS[3]: _release,
    PATHS[4]: _exec,
    PATHS[5]: _status,
    PATHS[8]: _console,
    PATHS[9]: _reflection,
    PATHS[10]: _reflection,
}


def message_for(path: bytes, rng: random.Random) -> bytes:
    """A message that the method takes; for the health service the text field that its message has."""
    builder = _BUILDERS.get(path)
    if path in DRAWN:
        return bytes(drawn(DRAWN[path].request_type, rng))
    if builder is None:
        name = rng.choice([b"", b"vmpool.v1.Pool", b"vmpool.v1.Pool", b"nothing"])
        return b"\x0a" + bytes([len(name)]) + name if name else b""
    message = builder(rng)
    return bytes(message.SerializeToString())  # betterproto2's messages have it, too


_VARINTS: Final = (b"\xff" * 9 + b"\x01", b"\xff" * 10 + b"\x01", b"\xff" * 300, b"\x80" * 9 + b"\0", b"\x80")


def _tag(number: int, wire_type: int) -> bytes:
    value, encoded = number << 3 | wire_type, bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def odd_field(rng: random.Random) -> bytes:
    """A field as no encoder writes it."""
    number = rng.choice([0, 1, 1, 2, 3, 4, 7, 8, 9, 15, 16, 2**29 - 1, 2**40])
    match rng.randrange(7):
        case 0:
            return _tag(number, rng.randrange(8)) + rng.randbytes(rng.randint(0, 12))
        case 1:
            return _tag(number, 0) + rng.choice(_VARINTS)
        case 2:  # a length that lies
            return _tag(number, 2) + rng.choice([b"\x7f", *_VARINTS]) + rng.randbytes(3)
        case 3:
            return _tag(number, 2) + b"\x04" + rng.choice([b"\xff\xfe\xfd\xfc", b"\xed\xa0\x80x", b"a\0b\xc3"])
        case 4:
            nested = b""
            for _ in range(rng.choice([3, 50, 400])):
                nested = _tag(number or 1, 2) + _length(len(nested)) + nested
                if len(nested) > 1500:
                    break
            return nested
        case 5:  # groups, which proto3 does not have
            depth = rng.choice([1, 100, 700])
            return _tag(number or 1, 3) * depth + _tag(number or 1, 4) * rng.choice([depth, 0])
        case _:  # an entry of a map, whole, double, and with parts missing
            return _tag(number, 2) + rng.choice(
                [b"\0", b"\x02\x0a\0", b"\x06\x0a\1a\x0a\1b", b"\x05\x12\3\xff\xff\xff"]
            )


def _length(size: int) -> bytes:
    return bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])


def bulky(rng: random.Random) -> bytes:
    """More fields than anybody has a use for, in a few bytes: words, variables, files, and what nobody knows."""
    count = rng.choice([999, 1001, 9_999, 12_000])
    words = _tag(2, 2) + b"\0"
    match rng.randrange(4):
        case 0:
            start = words * count
            return _tag(1, 2) + _long_length(len(start)) + start
        case 1:
            return (_tag(7, 2) + b"\0") * count
        case 2:
            return (_tag(8, 2) + b"\0") * count
        case _:
            return (_tag(rng.choice([15, 2**29 - 1]), 0) + b"\0") * min(count, 2000)


def _long_length(size: int) -> bytes:
    return bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Up to three changes."""
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 3])):
        place = rng.randint(0, len(data))
        match rng.randrange(6):
            case 0 if place < len(data):
                data = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
            case 1:
                data = data[:place]
            case 2:
                data = data[:place] + rng.randbytes(rng.randint(1, 5)) + data[place:]
            case 3:
                piece = data[place : place + rng.randint(0, 30)]
                data = data[:place] + piece + data[place:]
            case _:
                data = rng.choice([data + odd_field(rng), odd_field(rng) + data, odd_field(rng)])
    return data[:4000]


def framed(message: bytes, rng: random.Random) -> bytes:
    """With gRPC's prefix, which tells the truth most of the time."""
    compressed = rng.choice([0] * 15 + [1, 255])
    size = rng.choice([len(message)] * 12 + [0, len(message) + 1, max(0, len(message) - 1), 2**22 + 1, 2**32 - 1])
    return struct.pack(">BI", compressed, size) + message
