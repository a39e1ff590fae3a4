"""Watching the pool: a snapshot, then every change; slow watchers get a new snapshot."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import trio

from pool.ledger.news import News
from pool.ledger.records import Lease, VmEntry
from pool.ledger.views import ProfileView
from pool.settings.limits import WATCHERS_PER_USER
from pool.settings.permissions import default_uids

BACKLOG: Final = 1024
"""News that are kept for a watcher; a watcher that is further behind gets a new snapshot."""

MAX_WATCHERS: Final = 128
"""Of all users; each watcher gets all changes, and has a backlog."""

RESERVED_WATCHERS: Final = 16
"""Part of MAX_WATCHERS that is for root and the service's user alone."""


class TooManyWatchersError(Exception):
    """Too many watches are open, of one user or of all."""


@attrs.frozen(kw_only=True)
class Snapshot:
    """The pool at one moment; later messages of a watch are changes after it."""

    profiles: tuple[ProfileView, ...]
    vms: tuple[VmEntry, ...]
    leases: tuple[Lease, ...]


@attrs.define(eq=False)
class Watcher:
    """One open watch. Made by `WatchHub.watch`."""

    _take_snapshot: Callable[[], Snapshot]
    _backlog: int
    _turn: trio.Lock
    """Lets one watcher go on in each round of the scheduler. Writing a message takes as long as a large part of a
    hand-out, which takes several rounds: a hundred watchers in each round would delay all hand-outs."""
    _news: deque[News] = attrs.field(factory=deque)
    _behind: bool = True
    """The next message is a snapshot."""
    _something: trio.Event = attrs.field(factory=trio.Event)

    async def next(self) -> Snapshot | News:
        """Waits for the next message and returns it; the first one is a snapshot."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._behind and not self._news:
            self._something = trio.Event()
            await self._something.wait()
        async with self._turn:
            pass
        if self._behind:
            self._behind = False
            return self._take_snapshot()
        return self._news.popleft()

    def tell(self, news: News) -> None:
        """Queues news; never waits, and never keeps more than the backlog."""
        if self._behind:
            return  # the snapshot will include it
        if len(self._news) >= self._backlog:
            self._behind = True
            self._news.clear()
        else:
            self._news.append(news)
        self._something.set()


@attrs.define(eq=False, kw_only=True)
class WatchHub:
    """Sends news to all watchers. A slow one costs a bounded amount of memory and does not delay others."""

    take_snapshot: Callable[[], Snapshot]
    backlog: int = BACKLOG
    per_user: int = WATCHERS_PER_USER
    administrators: frozenset[int] = attrs.field(factory=default_uids)
    """The uids that may use the reserve."""
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _watchers: set[Watcher] = attrs.field(factory=set, init=False)
    _listeners: set[Callable[[News], None]] = attrs.field(factory=set, init=False)
    _watchers_of: Counter[int] = attrs.field(factory=Counter, init=False)
    """By uid."""

    def tell(self, news: News) -> None:
        for hear in self._listeners:
            hear(news)
        for watcher in self._watchers:
            watcher.tell(news)

    @contextlib.contextmanager
    def heard_by(self, hear: Callable[[News], None]) -> Iterator[None]:
        """Calls `hear` with all news, for a part of the service itself. It must not wait, and counts as no watch."""
        self._listeners.add(hear)
        try:
            yield
        finally:
            self._listeners.discard(hear)

    @contextlib.contextmanager
    def watch(self, *, uid: int) -> Iterator[Watcher]:
        """Opens a watch for a user. Raises TooManyWatchersError."""
        self._check_room(uid)
        watcher = Watcher(self.take_snapshot, self.backlog, self._turn)
        self._watchers.add(watcher)
        self._watchers_of[uid] += 1
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            self._watchers_of[uid] -= 1
            if not self._watchers_of[uid]:
                del self._watchers_of[uid]

    def _check_room(self, uid: int) -> None:
        if self._watchers_of[uid] >= self.per_user:
            raise TooManyWatchersError(
                f"user {uid} already has {self.per_user} watches open; end one of them, use Status, or raise "
                "limits.watchers_per_user"
            )
        reserved = 0 if uid in self.administrators else self._reserve_left()
        if len(self._watchers) + reserved >= MAX_WATCHERS:
            raise TooManyWatchersError(
                f"{len(self._watchers)} watches are already open; try again later, or use Status"
            )

    def _reserve_left(self) -> int:
        taken = sum(self._watchers_of[uid] for uid in self.administrators if uid in self._watchers_of)
        return max(0, RESERVED_WATCHERS - taken)
