"""Kata Containers' VM cache by its description: one worker for each slot, and a channel that blocks.

Each worker makes a base VM, offers it in the unbuffered channel, and begins again once it is taken; a caller takes a VM
from the channel, and waits there if none is offered. Go's goroutines and channel are Python threads and a rendezvous
here: a model of the algorithm, not of its speed in Go.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class _Rendezvous(Generic[T]):
    """An unbuffered channel: a sender waits until its value is taken."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._offered: deque[tuple[T, threading.Event]] = deque()
        self._closed = False

    def offer(self, value: T) -> bool:
        """Waits until the value is taken; False if the channel was closed instead."""
        taken = threading.Event()
        with self._changed:
            if self._closed:
                return False
            self._offered.append((value, taken))
            self._changed.notify()
        taken.wait()
        return not self._closed

    def take(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._offered)
            value, taken = self._offered.popleft()
        taken.set()
        return value

    def offers(self) -> int:
        with self._changed:
            return len(self._offered)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            for _, taken in self._offered:
                taken.set()


class VmCache(Generic[T]):
    """`slots` workers that make base VMs with `produce`; see `vm_cache`."""

    def __init__(self, *, slots: int, produce: Callable[[], T]) -> None:
        self.slots = slots
        self._produce = produce
        self._channel = _Rendezvous[T]()
        self.workers = [threading.Thread(target=self._work, daemon=True) for _ in range(slots)]

    def _work(self) -> None:
        while self._channel.offer(self._produce()):
            pass

    def get_base_vm(self) -> T:
        """Blocks until a VM is available. Callers are not served in their order: the channel decides."""
        return self._channel.take()

    def full(self) -> bool:
        return self._channel.offers() == self.slots

    def close(self) -> None:
        self._channel.close()


@contextmanager
def vm_cache(*, slots: int, produce: Callable[[], T]) -> Iterator[VmCache[T]]:
    """Fills itself in the background; at the end all workers have ended."""
    cache = VmCache(slots=slots, produce=produce)
    for worker in cache.workers:
        worker.start()
    try:
        yield cache
    finally:
        cache.close()
        for worker in cache.workers:
            worker.join()
