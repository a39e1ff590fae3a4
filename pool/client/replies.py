"""What comes in on a call, one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Replies(Generic[T]):
    """An iterator that may be left in the middle, unlike an async generator."""

    def __init__(self, next_one: Callable[[], Awaitable[T | None]]) -> None:
        self._next_one = next_one

    def __aiter__(self) -> Replies[T]:
        return self

    async def __anext__(self) -> T:
        one = await self._next_one()
        if one is None:
            raise StopAsyncIteration
        return one
