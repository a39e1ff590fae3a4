"""Watchers get a snapshot and then all news; who is too far behind begins anew, and nobody is waited for."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from actors.life import VmState
from pool.ledger.news import VmNews
from pool.watch import MAX_WATCHERS, Snapshot, TooManyWatchersError, Watcher, WatchHub
from tests.virtual_time import in_virtual_time

BACKLOG = 3


def news(number: int) -> VmNews:
    return VmNews(vm_id=f"vm-{number}", profile="default", state=VmState.READY)


class Pool:
    """Makes snapshots that differ."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.hub = WatchHub(take_snapshot=self.take, backlog=BACKLOG)

    def take(self) -> Snapshot:
        self.snapshots.append(Snapshot(profiles=(), vms=(), leases=()))
        return self.snapshots[-1]


async def is_waiting(watcher: Watcher) -> bool:
    """Nothing is there for it."""
    with trio.move_on_after(1) as scope:
        await watcher.next()
    return scope.cancelled_caught


@in_virtual_time
async def test_a_snapshot_comes_first_and_is_taken_when_it_is_asked_for() -> None:
    pool = Pool()
    with pool.hub.watch() as watcher:
        pool.hub.tell(news(1))  # the snapshot will have it
        assert pool.snapshots == []
        assert await watcher.next() is pool.snapshots[0]
        assert await is_waiting(watcher)


@in_virtual_time
async def test_news_come_in_order_after_the_snapshot() -> None:
    pool = Pool()
    with pool.hub.watch() as watcher:
        await watcher.next()
        for number in range(BACKLOG):
            pool.hub.tell(news(number))
        assert [await watcher.next() for _ in range(BACKLOG)] == [news(number) for number in range(BACKLOG)]
        assert await is_waiting(watcher)


@in_virtual_time
async def test_one_who_waits_is_woken() -> None:
    pool = Pool()
    with pool.hub.watch() as watcher:
        await watcher.next()
        async with trio.open_nursery() as nursery:

            async def tell_later() -> None:
                await trio.testing.wait_all_tasks_blocked()
                pool.hub.tell(news(7))

            nursery.start_soon(tell_later)
            assert await watcher.next() == news(7)


@in_virtual_time
async def test_who_is_too_far_behind_gets_a_new_snapshot_in_place_of_what_was_missed() -> None:
    pool = Pool()
    with pool.hub.watch() as watcher:
        await watcher.next()
        for number in range(100):
            pool.hub.tell(news(number))
        assert await watcher.next() is pool.snapshots[1]
        assert await is_waiting(watcher)
        pool.hub.tell(news(100))
        assert await watcher.next() == news(100)


@in_virtual_time
async def test_a_backlog_takes_no_more_than_it_may() -> None:
    pool = Pool()
    with pool.hub.watch() as watcher:
        await watcher.next()
        for number in range(100):
            pool.hub.tell(news(number))
            assert len(watcher._news) <= BACKLOG


@in_virtual_time
async def test_a_slow_watcher_costs_the_others_nothing() -> None:
    pool = Pool()
    with pool.hub.watch() as slow, pool.hub.watch() as quick:
        await slow.next()
        await quick.next()
        for number in range(100):
            pool.hub.tell(news(number))
            assert await quick.next() == news(number)


@in_virtual_time
async def test_a_cancelled_wait_loses_nothing() -> None:
    pool = Pool()
    with pool.hub.watch() as watcher:
        await watcher.next()
        pool.hub.tell(news(1))
        with trio.CancelScope() as scope:
            scope.cancel()
            await watcher.next()
        assert scope.cancelled_caught
        assert await watcher.next() == news(1)


@in_virtual_time
async def test_the_number_of_watchers_is_limited_and_who_leaves_makes_room() -> None:
    pool = Pool()
    watches = [pool.hub.watch() for _ in range(MAX_WATCHERS)]
    for watch in watches:
        watch.__enter__()
    with pytest.raises(TooManyWatchersError, match=f"{MAX_WATCHERS} watch already"), pool.hub.watch():
        pass
    watches[0].__exit__(None, None, None)
    with pool.hub.watch() as watcher:
        assert isinstance(await watcher.next(), Snapshot)


@in_virtual_time
async def test_who_has_left_is_told_nothing() -> None:
    pool = Pool()
    with pool.hub.watch() as watcher:
        await watcher.next()
    pool.hub.tell(news(1))
    assert not watcher._news
