"""Watching the pool: a snapshot, then every change; and a new snapshot for who cannot keep up."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import trio

from pool.ledger.news import News
from pool.ledger.records import Lease, VmEntry
from pool.ledger.views import ProfileView

BACKLOG: Final = 1024
"""News that are kept for a watcher; one who is further behind begins anew with a snapshot."""

MAX_WATCHERS: Final = 64


class TooManyWatchersError(Exception):
    """More watch than the service feeds."""


@attrs.frozen(kw_only=True)
class Snapshot:
    """The pool at one moment; what comes after it in a watch has happened after it."""

    profiles: tuple[ProfileView, ...]
    vms: tuple[VmEntry, ...]
    leases: tuple[Lease, ...]


@attrs.define(eq=False)
class Watcher:
    """One who watches. Made by `WatchHub.watch`."""

    _take_snapshot: Callable[[], Snapshot]
    _backlog: int
    _news: deque[News] = attrs.field(factory=deque)
    _behind: bool = True
    """The next thing to see is a snapshot."""
    _something: trio.Event = attrs.field(factory=trio.Event)

    async def next(self) -> Snapshot | News:
        """What comes next, a snapshot first. Waits until there is something."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._behind and not self._news:
            self._something = trio.Event()
            await self._something.wait()
        if self._behind:
            self._behind = False
            return self._take_snapshot()
        return self._news.popleft()

    def tell(self, news: News) -> None:
        """Never waits, and never takes more than the backlog."""
        if self._behind:
            return  # the snapshot will have it
        if len(self._news) >= self._backlog:
            self._behind = True
            self._news.clear()
        else:
            self._news.append(news)
        self._something.set()


@attrs.define(eq=False, kw_only=True)
class WatchHub:
    """Tells all watchers. A slow one costs a bounded amount of memory and nobody any time."""

    take_snapshot: Callable[[], Snapshot]
    backlog: int = BACKLOG
    _watchers: set[Watcher] = attrs.field(factory=set, init=False)

    def tell(self, news: News) -> None:
        for watcher in self._watchers:
            watcher.tell(news)

    @contextlib.contextmanager
    def watch(self) -> Iterator[Watcher]:
        """Raises TooManyWatchersError."""
        if len(self._watchers) >= MAX_WATCHERS:
            raise TooManyWatchersError(f"{MAX_WATCHERS} watch already; end one of them, or use Status")
        watcher = Watcher(self.take_snapshot, self.backlog)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
