"""HTTP/2 on the wire, by hand: frames and header blocks, right ones and others. No state: bytes can be replayed."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20

FLOOD: Final = 200
"""Frames of one flood: beyond h2's limits for floods, and too little to fill a socket's buffer with the answers."""

STORM: Final = 3500
"""Frames of one that is beyond what the service takes."""

Headers = list[tuple[bytes, bytes]]

PATHS: Final = (
    *(b"/vmpool.v1.Pool/" + name for name in (b"Acquire", b"Hold", b"Renew", b"Release", b"Exec", b"Status")),
    b"/grpc.health.v1.Health/Check",
    b"/grpc.health.v1.Health/Watch",
    b"/vmpool.v1.Pool/Console",
    b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0, length: int | None = None) -> bytes:
    """`length` lies about the payload's."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def greeting() -> bytes:
    return PREFACE + frame(SETTINGS)


def request_headers(path: bytes, **others: bytes) -> Headers:
    """Of a gRPC call; `others` replace or add, with "_" for "-"."""
    wanted = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    return list((wanted | {name.replace("_", "-").encode(): value for name, value in others.items()}).items())


def integer(value: int, *, prefix: int, first: int = 0) -> bytes:
    """HPACK's (RFC 7541, 5.1)."""
    limit = (1 << prefix) - 1
    if value < limit:
        return bytes([first | value])
    rest = bytearray([first | limit])
    value -= limit
    while value >= 0x80:
        rest.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*rest, value])


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Literals that enter no table: each block means the same on every connection."""
    return b"".join(
        b"\0" + integer(len(name), prefix=7) + name + integer(len(value), prefix=7) + value for name, value in headers
    )


def any_stream(rng: random.Random) -> int:
    return rng.choice([0, 1, 1, 1, 3, 3, 5, 7, 2, 2**31 - 1, 2**31, rng.getrandbits(32)])


def any_bytes(rng: random.Random, *, most: int) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 4, 5, 8, rng.randint(0, most)]))


def odd_value(rng: random.Random) -> bytes:
    return rng.choice(
        [b"", b" ", b"\0", b"\r\nx: y", b"\xff\xfe", b"a" * 9000, any_bytes(rng, most=60), b"application/grpc+json"]
    )


def odd_timeout(rng: random.Random) -> bytes:
    number = rng.choice([0, 1, 50, 99_999_999, 100_000_000, 10**30, -1])
    return rng.choice([b"%d" % number + rng.choice([b"n", b"u", b"m", b"S", b"M", b"H", b"", b"x"]), odd_value(rng)])


def odd_headers(rng: random.Random) -> Headers:
    """Of a request, with up to three things wrong."""
    headers = request_headers(rng.choice(PATHS), grpc_timeout=b"50m")
    for _ in range(rng.randint(0, 3)):
        place = rng.randrange(len(headers) + 1)
        match rng.randrange(8):
            case 0 if headers:
                del headers[place % len(headers)]
            case 1 if headers:
                headers.insert(place, headers[rng.randrange(len(headers))])
            case 2:
                headers.insert(place, (rng.choice([b":status", b":nothing", b":", b"", b"UPPER", b"a b"]), b"x"))
            case 3:
                headers.insert(place, (rng.choice([b"connection", b"transfer-encoding", b"host"]), b"chunked"))
            case 4 if headers:
                at = place % len(headers)
                headers[at] = (headers[at][0], odd_value(rng))
            case 5:
                headers.insert(place, (rng.choice([b"x-bin", b"grpc-encoding", b"content-length"]), odd_value(rng)))
            case 6:
                headers.insert(place, (b"grpc-timeout", odd_timeout(rng)))
            case _:
                headers += [(b"x-%d" % number, b"v") for number in range(rng.choice([5, 150]))]
    return headers


def odd_block(rng: random.Random) -> bytes:
    """A header block: a good one, a bad one, a bomb, or garbage."""
    good = header_block(odd_headers(rng))
    match rng.randrange(9):
        case 0:
            return rng.randbytes(rng.randint(0, 200))
        case 1:
            return integer(rng.choice([0, 62, 63, 200, 2**32]), prefix=7, first=0x80) + good
        case 2:  # the size of the dynamic table
            return integer(rng.choice([0, 4096, 4097, 2**31]), prefix=5, first=0x20) + good
        case 3:  # a number that does not end
            return b"\xff" * rng.randint(1, 40) + good
        case 4:  # Huffman code that is none
            return b"\0" + integer(4, prefix=7, first=0x80) + b"\xff\xff\xff\xff" + good
        case 5:  # a text that is longer than the block
            return b"\0\1a" + integer(rng.choice([100, 2**20, 2**40]), prefix=7)
        case 6:  # one large entry in the table, and many references to it
            return b"\x40" + b"\1a" + integer(4000, prefix=7) + b"v" * 4000 + b"\xbe" * rng.choice([10, 1000])
        case _:
            return good


def odd_call(rng: random.Random) -> bytes:
    """HEADERS, perhaps in pieces, perhaps padded, perhaps wrongly."""
    stream, block = any_stream(rng), odd_block(rng)
    flags = rng.choice([0, END_STREAM])
    match rng.randrange(6):
        case 0:
            cut = rng.randint(0, len(block))
            after = rng.choice([stream, stream, stream, stream + 2, 0]) % 2**32
            return (
                frame(HEADERS, block[:cut], flags=flags, stream=stream)
                + rng.choice([b"", b"", frame(PING, bytes(8)), frame(0x77)])
                + frame(CONTINUATION, block[cut:], flags=END_HEADERS, stream=after)
            )
        case 1:
            return frame(HEADERS, block, flags=flags, stream=stream) + FLOOD * frame(CONTINUATION, b"", stream=stream)
        case 2:
            pad = rng.choice([0, 5, 255])
            padded = bytes([pad]) + block + bytes(rng.choice([pad, 0]))
            return frame(HEADERS, padded, flags=flags | END_HEADERS | PADDED, stream=stream)
        case 3:
            priority = struct.pack(">IB", rng.choice([0, stream, 2**31 | 5]) % 2**32, 16)
            return frame(HEADERS, priority + block, flags=flags | END_HEADERS | PRIORITIZED, stream=stream)
        case _:
            return frame(HEADERS, block, flags=flags | END_HEADERS, stream=stream)


def odd_frames(rng: random.Random) -> bytes:
    """One frame, or a few that belong together, or a flood of one kind."""
    stream, many = any_stream(rng), rng.choice([1] * 16 + [FLOOD] * 3 + [STORM])
    match rng.randrange(14):
        case 0:
            lie = rng.choice([None, None, 0, 1, 16384, 16385, 2**24 - 1])
            payload = any_bytes(rng, most=60)
            return frame(rng.randrange(256), payload, flags=rng.randrange(256), stream=stream, length=lie)
        case 1:
            setting = struct.pack(
                ">HI", rng.choice([0, *range(1, 10), 0xFFFF]), rng.choice([0, 1, 16384, 2**31 - 1, 2**31, 2**32 - 1])
            )
            cut = rng.choice([6, 6, 6, 5, 0])
            on = rng.choice([0, 0, 0, stream])
            return frame(SETTINGS, setting[:cut], flags=rng.choice([0, 0, ACK]), stream=on) * many
        case 2:
            return frame(PING, bytes(rng.choice([8, 8, 8, 0, 7, 9])), flags=rng.choice([0, ACK])) * many
        case 3:
            return frame(RST_STREAM, struct.pack(">I", rng.choice([0, 8, 2**32 - 1])), stream=stream) * many
        case 4:
            size = rng.choice([0, 1, 65535, 2**31 - 1, 2**31])
            return frame(WINDOW_UPDATE, struct.pack(">I", size), stream=stream) * many
        case 5:
            return frame(DATA, any_bytes(rng, most=300), flags=rng.choice([0, END_STREAM]), stream=stream) * many
        case 6:
            pad = rng.choice([0, 5, 255])
            return frame(DATA, bytes([pad]) + any_bytes(rng, most=20), flags=PADDED, stream=stream)
        case 7:
            return frame(GOAWAY, struct.pack(">II", stream, rng.randrange(20)) + any_bytes(rng, most=40))
        case 8:
            return frame(PUSH_PROMISE, struct.pack(">I", 2) + odd_block(rng), flags=END_HEADERS, stream=stream)
        case 9:
            return frame(PRIORITY, struct.pack(">IB", any_stream(rng), 1), stream=stream) * many
        case 10:  # opened and reset in one breath
            block = header_block(request_headers(rng.choice(PATHS)))
            return b"".join(
                frame(HEADERS, block, flags=END_HEADERS, stream=number) + frame(RST_STREAM, bytes(4), stream=number)
                for number in range(101, 101 + 2 * rng.randint(1, min(30 * many, 1000)), 2)
            )
        case 11:  # more settings in one frame than anybody has
            return frame(SETTINGS, struct.pack(">HI", 0x99, 1) * rng.randint(1, 2730)) * min(many, 3)
        case _:
            return odd_call(rng)
