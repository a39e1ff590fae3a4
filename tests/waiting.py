"""Waiting for something that can only be asked for, from outside a process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

LIMIT_S: Final = 60
"""What takes longer will not come; no test is about how long it takes."""

PAUSE_S: Final = 0.02


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Asks again and again until the answer is yes."""
    with trio.fail_after(LIMIT_S):
        while not await condition():
            await trio.sleep(PAUSE_S)
