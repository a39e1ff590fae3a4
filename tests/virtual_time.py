"""Tests in virtual time: when all tasks wait, the clock jumps to the next thing that is due."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec

import trio
import trio.testing

P = ParamSpec("P")

FOREVER_S = 1_000_000.0
"""A test that takes so long hangs: the clock jumps there when nobody has anything else to do."""


def in_virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Makes an async test a sync one that runs on a virtual clock of its own.

    Works under `@given`, where a clock from a fixture would be shared by all examples. If all tasks wait for each other
    it ends with TooSlowError.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            with trio.fail_after(FOREVER_S):
                await test(*args, **kwargs)

        trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))

    return run
