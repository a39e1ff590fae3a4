"""Turns: a limited number of tasks at a time do costly work, in the order in which they asked."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio


@attrs.define(eq=False, kw_only=True)
class Turns:
    """A turn that takes longer than `patience_s` goes on, but makes room for the next, so as not to hold up others."""

    at_once: int = attrs.field(validator=attrs.validators.ge(1))
    patience_s: float = math.inf
    _under_way: OrderedDict[object, float] = attrs.field(factory=OrderedDict, init=False)
    """When each running turn stops counting, the oldest first."""
    _waiting: OrderedDict[str, trio.Event] = attrs.field(factory=OrderedDict, init=False)

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Waits for a turn, which the block then is. A name waits once at a time."""
        await self._wait(name)
        mine = object()
        self._under_way[mine] = trio.current_time() + self.patience_s
        self._wake_first()
        try:
            yield
        finally:
            self._under_way.pop(mine, None)
            self._wake_first()

    def hurry(self, name: str) -> None:
        """Puts the waiting `name` first in the queue; does nothing if it does not wait."""
        if name in self._waiting:
            self._waiting.move_to_end(name, last=False)
            self._wake_first()

    async def _wait(self, name: str) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._waiting[name] = trio.Event()
        try:
            while not (self._is_first(name) and self._has_room()):
                with trio.move_on_at(next(iter(self._under_way.values())) if self._is_first(name) else math.inf):
                    await self._waiting[name].wait()
                self._waiting[name] = trio.Event()  # keeps its place in the queue
        finally:
            del self._waiting[name]
            self._wake_first()

    def _is_first(self, name: str) -> bool:
        return next(iter(self._waiting)) == name

    def _has_room(self) -> bool:
        while self._under_way and next(iter(self._under_way.values())) <= trio.current_time():
            self._under_way.popitem(last=False)
        return len(self._under_way) < self.at_once

    def _wake_first(self) -> None:
        for event in self._waiting.values():
            event.set()
            break


@attrs.frozen(kw_only=True)
class Restraint:
    """Work that only a few VMs of a service do at a time, each in its turn. By default, VMs do not share the turns."""

    reaching: Turns = attrs.field(factory=lambda: Turns(at_once=1))
    """Asking the agent of a leased VM: at its adoption, and in each check."""
    ending: Turns = attrs.field(factory=lambda: Turns(at_once=1))
