"""Watchers get a snapshot and then all news; who is too far behind begins anew, and nobody is waited for."""

from __future__ import annotations

import contextlib
import os

import pytest
import trio
import trio.testing

from pool.core.watch import MAX_WATCHERS, RESERVED_WATCHERS, Snapshot, TooManyWatchersError, Watcher, WatchHub
from pool.ledger.news import VmNews
from pool.settings.limits import WATCHERS_PER_USER
from tests.virtual_time import in_virtual_time
from vmm.words.life import VmState

BACKLOG = 3
UID = os.geteuid() + 100_000
"""A user's, and those of the next ones; neither root's nor the service's."""


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
    with pool.hub.watch(uid=UID) as watcher:
        pool.hub.tell(news(1))  # the snapshot will have it
        assert pool.snapshots == []
        assert await watcher.next() is pool.snapshots[0]
        assert await is_waiting(watcher)


@in_virtual_time
async def test_news_come_in_order_after_the_snapshot() -> None:
    pool = Pool()
    with pool.hub.watch(uid=UID) as watcher:
        await watcher.next()
        for number in range(BACKLOG):
            pool.hub.tell(news(number))
        assert [await watcher.next() for _ in range(BACKLOG)] == [news(number) for number in range(BACKLOG)]
        assert await is_waiting(watcher)


@in_virtual_time
async def test_one_who_waits_is_woken() -> None:
    pool = Pool()
    with pool.hub.watch(uid=UID) as watcher:
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
    with pool.hub.watch(uid=UID) as watcher:
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
    with pool.hub.watch(uid=UID) as watcher:
        await watcher.next()
        for number in range(100):
            pool.hub.tell(news(number))
            assert len(watcher._news) <= BACKLOG


@in_virtual_time
async def test_a_slow_watcher_costs_the_others_nothing() -> None:
    pool = Pool()
    with pool.hub.watch(uid=UID) as slow, pool.hub.watch(uid=UID) as quick:
        await slow.next()
        await quick.next()
        for number in range(100):
            pool.hub.tell(news(number))
            assert await quick.next() == news(number)


@in_virtual_time
async def test_a_cancelled_wait_loses_nothing() -> None:
    pool = Pool()
    with pool.hub.watch(uid=UID) as watcher:
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
    all_others = MAX_WATCHERS - RESERVED_WATCHERS
    watches = [pool.hub.watch(uid=UID + number) for number in range(all_others)]
    for watch in watches:
        watch.__enter__()
    with (
        pytest.raises(TooManyWatchersError, match=f"{all_others} watches are already open"),
        pool.hub.watch(uid=UID - 1),
    ):
        pass
    watches[0].__exit__(None, None, None)
    with pool.hub.watch(uid=UID - 1) as watcher:
        assert isinstance(await watcher.next(), Snapshot)


def test_one_user_watches_so_often_and_no_more_and_keeps_nobody_else_out() -> None:
    pool = Pool()
    with contextlib.ExitStack() as watches:
        for uid in (UID, UID + 1, UID + 2, UID + 3):
            for _ in range(WATCHERS_PER_USER):
                watches.enter_context(pool.hub.watch(uid=uid))
            with pytest.raises(
                TooManyWatchersError, match=r"already has 16 watches open; .* raise limits\.watchers_per_user"
            ):
                watches.enter_context(pool.hub.watch(uid=uid))
        for _ in range(WATCHERS_PER_USER):
            watches.enter_context(pool.hub.watch(uid=UID + 4))
    assert not pool.hub._watchers
    assert not pool.hub._watchers_of


def test_root_and_the_services_user_have_a_reserve() -> None:
    """And what they take of it is not kept for them once more."""
    pool = Pool()
    with contextlib.ExitStack() as watches:
        watches.enter_context(pool.hub.watch(uid=0))
        for number in range(MAX_WATCHERS - RESERVED_WATCHERS):
            watches.enter_context(pool.hub.watch(uid=UID + number))
        with pytest.raises(TooManyWatchersError):
            watches.enter_context(pool.hub.watch(uid=UID - 1))
        for _ in range(RESERVED_WATCHERS - 1):
            watches.enter_context(pool.hub.watch(uid=0))
        assert len(pool.hub._watchers) == MAX_WATCHERS


@in_virtual_time
async def test_watchers_go_on_one_by_one_and_leave_the_rounds_of_the_scheduler_to_others() -> None:
    pool, got = Pool(), list[int]()

    async def follow(number: int) -> None:
        with pool.hub.watch(uid=UID + number) as watcher:
            while True:
                await watcher.next()
                got.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(follow, number)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(got) == list(range(20))
        got.clear()
        pool.hub.tell(news(1))
        for rounds in range(1, 10):
            await trio.lowlevel.checkpoint()
            assert len(got) <= rounds
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(got) == list(range(20))
        nursery.cancel_scope.cancel(reason="it is seen")


@in_virtual_time
async def test_who_has_left_is_told_nothing() -> None:
    pool = Pool()
    with pool.hub.watch(uid=UID) as watcher:
        await watcher.next()
    pool.hub.tell(news(1))
    assert not watcher._news
