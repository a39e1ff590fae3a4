"""Data that is sent: all at once, or as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Protocol, runtime_checkable

CHUNK_BYTES = 64 * 1024
"""One message of the wire."""


@runtime_checkable
class Readable(Protocol):
    """A binary file."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


Chunks = str | bytes | bytearray | memoryview | Readable | Iterable[bytes] | AsyncIterable[bytes]
"""A str is sent as UTF-8. A binary file is read from where it stands; an iterable gives one piece after the other."""

BlockingChunks = str | bytes | bytearray | memoryview | Readable | Iterable[bytes]
"""As Chunks, for code that blocks."""


async def pieces(data: Chunks) -> AsyncIterator[bytes]:
    """None empty, none longer than CHUNK_BYTES."""
    async for whole in _wholes(data):
        if not isinstance(whole, bytes | bytearray | memoryview):
            raise TypeError(f"data: a piece is of type {type(whole).__name__}; send bytes")
        for start in range(0, len(whole), CHUNK_BYTES):
            yield bytes(whole[start : start + CHUNK_BYTES])


async def _wholes(data: Chunks) -> AsyncIterator[bytes | memoryview]:
    match data:
        case str():
            yield data.encode()
        case bytes() | bytearray() | memoryview():
            yield memoryview(data).cast("B")
        case AsyncIterable():
            async for piece in data:
                yield piece
        case Readable():
            while piece := data.read(CHUNK_BYTES):
                yield piece
        case _:
            for piece in data:
                yield piece
