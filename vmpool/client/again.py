"""Calls that are made again while the service restarts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from vmpool.client.connection import pause_after
from vmpool.client.errors import CallError, ClientError, ServiceUnavailableError

T = TypeVar("T")

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0


def may_pass(error: ClientError) -> bool:
    """Whether a later attempt may succeed: there is no service, or it is about to end."""
    match error:
        case ServiceUnavailableError():
            return True
        case CallError(status=status):
            return status == "UNAVAILABLE"
        case _:
            return False


async def again(call: Callable[[], Awaitable[T]], *, within_s: float, after: ClientError) -> T:
    """Makes a call, which has failed with `after`, until it succeeds; raises its last error after `within_s`."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + within_s
    failed = after
    for attempt in itertools.count(1):
        if not may_pass(failed) or loop.time() >= give_up_at:
            break
        pause_s = pause_after(attempt, first_s=_FIRST_PAUSE_S, longest_s=_LONGEST_PAUSE_S)
        await asyncio.sleep(min(pause_s, give_up_at - loop.time()))
        try:
            return await call()
        except ClientError as error:
            failed = error
    raise failed
