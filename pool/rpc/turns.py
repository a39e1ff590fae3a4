"""Whose turn it is: users one after the other, and of each one its connections one after the other."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Those who wait. However many of one user there are, each other user waits for one of them."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[T]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, user: Hashable, who: T) -> None:
        self._waiting.setdefault(user, deque()).append(who)

    def next(self) -> T:
        """Takes it out. Raises KeyError if nobody waits."""
        user, waiting = self._waiting.popitem(last=False)
        who = waiting.popleft()
        if waiting:
            self._waiting[user] = waiting
        return who
