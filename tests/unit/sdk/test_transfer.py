"""Blocking work beside the loop: what it reads is whole, or it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import IO

import pytest

from vmpool.client.transfer import consume


async def pieces(*found: bytes | BaseException) -> AsyncIterator[bytes]:
    for piece in found:
        if isinstance(piece, BaseException):
            raise piece
        yield piece


def test_it_reads_all_to_the_end() -> None:
    seen: list[bytes] = []
    asyncio.run(consume(lambda file: seen.append(file.read()), pieces(b"x" * 300_000, b"y")))
    assert seen == [b"x" * 300_000 + b"y"]


@pytest.mark.parametrize("error", [LookupError, BrokenPipeError, ConnectionResetError, asyncio.CancelledError])
def test_data_that_ends_early_is_not_taken_for_whole(error: type[BaseException]) -> None:
    whole: list[bytes] = []

    def work(file: IO[bytes]) -> None:
        while file.read(1):
            pass
        whole.append(b"")

    with pytest.raises(error):
        asyncio.run(consume(work, pieces(b"x" * 100_000, error())))
    assert whole == []


def test_what_the_work_raises_is_raised() -> None:
    def fail(file: IO[bytes]) -> None:
        file.read(1)
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        asyncio.run(consume(fail, pieces(*[b"x" * 100_000] * 100)))


def test_work_that_has_enough_leaves_the_rest() -> None:
    seen: list[bytes] = []
    asyncio.run(consume(lambda file: seen.append(file.read(1)), pieces(*[b"x" * 100_000] * 100)))
    assert seen == [b"x"]
