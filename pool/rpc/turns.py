"""Round robin over users, and over the connections of each user."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Waiting items by user. However many one user has, each other user waits for only one of them."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[T]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, user: Hashable, who: T) -> None:
        self._waiting.setdefault(user, deque()).append(who)

    def next(self) -> T:
        """Removes and returns the next item. Raises KeyError if none waits."""
        user, waiting = self._waiting.popitem(last=False)
        who = waiting.popleft()
        if waiting:
            self._waiting[user] = waiting
        return who
