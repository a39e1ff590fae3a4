"""Times at which something is due, by key."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

import attrs

K = TypeVar("K", str, int)

_FEW: Final = 64
"""So many outdated entries are not worth a clean-up."""


@attrs.define(eq=False)
class Schedule(Generic[K]):
    """At most one time for each key. The amortised cost of each operation grows at most logarithmically."""

    _times: dict[K, float] = attrs.field(factory=dict, init=False)
    _heap: list[tuple[float, K]] = attrs.field(factory=list, init=False)
    """Outdated entries stay until they come up, or until they outnumber the valid ones."""

    def set(self, key: K, at: float) -> None:
        """Sets the time of a key; infinity drops it."""
        if at == math.inf:
            self._times.pop(key, None)
        else:
            self._times[key] = at
            heapq.heappush(self._heap, (at, key))
            if len(self._heap) > 2 * len(self._times) + _FEW:
                self._heap = [(when, each) for each, when in self._times.items()]
                heapq.heapify(self._heap)

    def drop(self, key: K) -> None:
        self._times.pop(key, None)

    def next_at(self) -> float:
        """The earliest time; infinity if there is none. It may be in the past."""
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def take_due(self, *, now: float) -> Iterator[K]:
        """Keys that are due, each once; each is dropped as it is returned."""
        while self.next_at() <= now:
            _, key = heapq.heappop(self._heap)
            del self._times[key]
            yield key

    def __contains__(self, key: K) -> bool:
        return key in self._times
