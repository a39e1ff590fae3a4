"""Inputs for the service's socket: each follows from a seed and an index, so any one can be made again."""

from __future__ import annotations

import enum
import random
from typing import Final

import attrs

from tests.fuzz.drawn import DRAWN, DRAWN_STREAMS
from tests.fuzz.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PATHS,
    PREFACE,
    RST_STREAM,
    any_bytes,
    frame,
    greeting,
    header_block,
    odd_frames,
    odd_timeout,
    request_headers,
)
from tests.fuzz.messages import bulky, framed, message_for, mutate

CALL_LIMIT: Final = b"150m"
"""The deadline of calls that are not about deadlines: some wait for what does not come."""

_FRAME_BYTES: Final = 16_000
"""HTTP/2 takes 384 more."""


class Leaving(enum.Enum):
    """How a client ends its connection."""

    READ = enum.auto()
    """Sends no more, and reads to the end."""
    CLOSE = enum.auto()
    """At once, with answers unread."""


@attrs.frozen(kw_only=True)
class Stream:
    """Bytes for a connection of its own."""

    data: bytes = attrs.field(repr=False)
    leaving: Leaving


@attrs.frozen(kw_only=True)
class Call:
    """One call on a connection that it shares with others, which must not suffer: its HTTP/2 is right."""

    path: bytes
    headers: bytes = attrs.field(repr=False)
    """The header block."""
    pieces: tuple[bytes, ...] = attrs.field(repr=False)
    ends_stream: bool
    reset: bool
    """By the client, in the same breath."""
    must_end: bool
    """By the server's doing, whatever else happens."""
    plain: bool
    """Its headers are those of a gRPC call, so it must end with a status."""

    def frames(self, stream: int) -> bytes:
        last = len(self.pieces) - 1
        ends_at_once = self.ends_stream and not self.pieces
        sent = [frame(HEADERS, self.headers, flags=END_HEADERS | (END_STREAM if ends_at_once else 0), stream=stream)]
        sent += [
            frame(DATA, piece, flags=END_STREAM if self.ends_stream and index == last else 0, stream=stream)
            for index, piece in enumerate(self.pieces)
        ]
        if self.reset:
            sent.append(frame(RST_STREAM, b"\0\0\0\x08", stream=stream))
        return b"".join(sent)


Input = Stream | Call


def make_input(seed: int, index: int) -> Input:
    """Two of ten are bytes, three are frames, five are messages."""
    rng = random.Random(f"{seed}:{index}")
    make = rng.choices((_bytes, _frames, _call), weights=(2, 3, 5))[0]
    return make(rng)


def _bytes(rng: random.Random) -> Stream:
    match rng.randrange(6):
        case 0:
            data = rng.randbytes(rng.randint(1, 2000))
        case 1:
            data = PREFACE[: rng.randint(1, len(PREFACE))] + any_bytes(rng, most=40)
        case 2:
            data = greeting() + rng.randbytes(rng.randint(1, 300))
        case 3:
            data = rng.choice(
                [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"\0"]
            )
        case _:  # a conversation that breaks off somewhere, or has one bit wrong
            path = _path(rng)
            data = greeting() + _make_call(rng, path=path).frames(1) + _make_call(rng, path=path).frames(3)
            place = rng.randrange(1, len(data))
            if rng.random() < 0.6:
                data = data[:place]
            else:
                data = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    return Stream(data=data, leaving=_leaving(rng))


def _frames(rng: random.Random) -> Stream:
    data = b"".join([greeting(), *(odd_frames(rng) for _ in range(rng.randint(1, 5)))])
    return Stream(data=data, leaving=_leaving(rng))


def _leaving(rng: random.Random) -> Leaving:
    return rng.choice([Leaving.READ, Leaving.READ, Leaving.CLOSE])


_STREAMS: Final = frozenset({PATHS[4], *PATHS[9:], *DRAWN_STREAMS})
"""Methods that take any number of requests."""


def _call(rng: random.Random) -> Call:
    return _make_call(rng, path=_path(rng))


def _path(rng: random.Random) -> bytes:
    """A third are methods whose messages are drawn: there are many."""
    return rng.choice((*DRAWN,) if rng.randrange(3) == 0 else PATHS)


def _make_call(rng: random.Random, *, path: bytes) -> Call:
    body = b"".join(
        framed(mutate(message_for(path, rng), rng), rng)
        for _ in range(rng.choice([0, 1, 1, 1, 1, 2]) if path not in _STREAMS else rng.randint(1, 4))
    )[:8000]
    if rng.random() < 0.02:
        body = framed(bulky(rng), rng)
    cuts = sorted(rng.randint(0, len(body)) for _ in range(rng.choice([0, 0, 1, 5])))
    cuts = sorted([*cuts, *range(_FRAME_BYTES, len(body), _FRAME_BYTES)])
    pieces = tuple(body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)) if body else ()
    others = {"grpc_timeout": CALL_LIMIT}
    plain = rng.random() < 0.85
    if not plain:
        others[rng.choice(["content_type", "x_name", "x_bin", "grpc_encoding", "user_agent"])] = rng.choice(
            [b"text/html", b"application/grpc+json", b"A", b"gzip", b"x" * 3000]
        )
        path = rng.choice([path, b"/vmpool.v1.Pool/Destroy", b"/", b"nothing", path + b"x", path.lower()])
    ends_stream = rng.random() < 0.7
    limited = rng.random() < 0.9
    if not limited:
        others["grpc_timeout"] = odd_timeout(rng).strip(b"\0\r\n \xff\xfe") or b"x"
    reset = rng.random() < 0.1
    # grpclib's own service knows no deadline, and its Watch no end.
    waits = path.startswith(b"/grpc.health") and not (ends_stream and b"Check" in path)
    return Call(
        path=path,
        headers=header_block([(name, _visible(value)) for name, value in request_headers(path, **others)]),
        pieces=pieces,
        ends_stream=ends_stream,
        reset=reset,
        must_end=limited and not reset and not waits,
        plain=plain,
    )


def _visible(value: bytes) -> bytes:
    """What HTTP/2 allows in a header."""
    return bytes(byte for byte in value if 0x20 < byte < 0x7F) or b"x"
