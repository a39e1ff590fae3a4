"""From trio to asyncio. Where asyncio need not wait, no task is made for it and no round of the loop goes by."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, ParamSpec, TypeVar

from trio_asyncio import aio_as_trio

P = ParamSpec("P")
T = TypeVar("T")


async def in_asyncio(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs an asyncio function from trio: at once up to where it waits, the rest as a task on the current loop.

    No checkpoint if it does not wait. Up to there it is in no asyncio task, so it may not ask for its own. Cancelled
    while it waits, it is cancelled as a task is.
    """
    coroutine = function(*args, **kwargs)
    try:
        waits_for = coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
    else:
        result = await aio_as_trio(_rest)(coroutine, waits_for)
    return result


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """What is left of a coroutine that has been started, as an awaitable."""
    try:
        while True:
            try:
                came = yield waits_for
            except BaseException as error:  # noqa: BLE001 - whatever is thrown is the coroutine's to take
                waits_for = coroutine.throw(error)
            else:
                waits_for = coroutine.send(came)
    except StopIteration as done:
        result: T = done.value
        return result
