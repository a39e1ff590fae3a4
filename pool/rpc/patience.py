"""Ends connections that do not do something in time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs
import trio

T = TypeVar("T")


@attrs.define(eq=False, kw_only=True)
class Patience(Generic[T]):
    """One time limit for many objects, watched by one task. asyncio's timers would pile up: it keeps cancelled ones."""

    limit_s: float
    give_up: Callable[[T], object]
    """Called once for each overdue object. Must not wait or raise."""
    _since: OrderedDict[T, float] = attrs.field(factory=OrderedDict, init=False)
    _waking: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __len__(self) -> int:
        return len(self._since)

    def expect(self, who: T) -> None:
        """Starts the object's time."""
        self._since[who] = trio.current_time()
        self._waking.set()

    def satisfied(self, who: T) -> None:
        """Stops the object's time, if it runs: the object was in time, or is gone."""
        self._since.pop(who, None)

    def give_up_all(self) -> None:
        """Gives up all objects at once."""
        while self._since:
            who, _since = self._since.popitem(last=False)
            self.give_up(who)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            while not self._since:
                self._waking = trio.Event()
                await self._waking.wait()
            who, since = next(iter(self._since.items()))
            await trio.sleep_until(since + self.limit_s)
            if self._since.get(who) == since:
                del self._since[who]
                self.give_up(who)
