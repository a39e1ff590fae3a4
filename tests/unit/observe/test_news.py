"""The news log: what its lines say, how many there are, and that nobody waits for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from pool.ledger.events import FoundVm
from pool.ledger.news import LeaseChange, LeaseNews, News, ProfileChange, ProfileNews, VmNews
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from pool.ledger.reasons import StopReason
from pool.ledger.records import EndReason
from pool.observe.news import LATER_S, LEFT_OUT, LINES, WINDOW_S, NewsLog, fields_of, kind_of
from tests.properties.ledger.world import World
from tests.unit.ledger.test_succession import leased
from tests.unit.ledger.told import granted, pool
from tests.virtual_time import in_virtual_time
from vmm.words.facts import LossCause
from vmm.words.life import VmState

Line = dict[str, Any]


def lines(world: World) -> list[Line]:
    """As the log has them; the world's clock is that of its leases."""
    return [
        {"event": kind, **fields_of(news, now=world.now)}
        for news in world.record.news
        if (kind := kind_of(news)) is not None
    ]


def line(world: World, event: str) -> Line:
    (only,) = [each for each in lines(world) if each["event"] == event]
    return only


# -- what a line says ------------------------------------------------------------------------------------------------


def test_ready() -> None:
    world = pool()
    said = line(world, "ready")
    assert said.pop("production_s") >= 0.0
    assert said == {"event": "ready", "vm": "vm-1", "profile": "p", "made_by": "direct"}


def test_adopted() -> None:
    world = World({"p": PoolPolicy(size=1)}, found=(FoundVm(vm_id="old-1", profile="p"),))
    world.run_undisturbed()
    assert line(world, "adopted") == {"event": "adopted", "vm": "old-1", "profile": "p", "made_by": "direct"}


def test_restored() -> None:
    found = leased(profile="p")
    assert found.lease is not None
    world = World({"p": PoolPolicy(size=0)}, found=(found,))
    world.run_undisturbed()
    said = line(world, "restored")
    assert (said["lease"], said["vm"], said["uid"]) == (found.lease.lease_id, found.vm_id, found.lease.owner.uid)


def test_granted_and_released() -> None:
    world = pool()
    request = world.acquire("p", ttl_s=60.0)
    world.process()
    world.advance(0.5)
    world.progress(world.in_state(VmState.HANDING_OUT)[0])
    world.process()
    lease = granted(world, request)
    said = line(world, "granted")
    figures = {name: said.pop(name) for name in ("queued_s", "total_s", "expires_in_s")}
    of_it = {"lease": lease.lease_id, "vm": lease.vm_id, "profile": "p", "uid": 1000}
    assert said == {"event": "granted", **of_it, "made_by": "direct", "was_ready": True}
    assert figures == {
        "queued_s": lease.terms.queued_s,
        "total_s": lease.terms.queued_s + lease.timings.total_s,
        "expires_in_s": 60.0,
    }

    world.advance(20.0)
    world.release(lease.lease_id, uid=1000)
    world.process()
    assert line(world, "released") == {
        "event": "released",
        **of_it,
        "reason": "released",
        "detail": "by its owner",
        "held_s": 20.0,
    }
    assert not [each for each in lines(world) if each["event"] in ("evicted", "stopped", "discarded")], "one line each"


def test_expired() -> None:
    world = pool()
    request = world.acquire("p", ttl_s=5.0)
    world.process()
    world.progress(world.in_state(VmState.HANDING_OUT)[0])
    world.process()
    world.advance(5.0)
    world.process()
    said = line(world, "expired")
    assert (said["lease"], said["reason"], said["held_s"]) == (granted(world, request).lease_id, "expired", 5.0)


def test_lost_with_its_lease_and_without() -> None:
    world = pool(size=2)
    request = world.acquire("p")
    world.run_undisturbed()
    lease = granted(world, request)
    world.die(lease.vm_id)
    world.process()
    assert line(world, "lost")["lease"] == lease.lease_id

    idle = world.in_state(VmState.READY)[0]
    world.die(idle, cause=LossCause.MUTE)
    world.process()
    assert [each for each in lines(world) if each["event"] == "lost"][1:] == [
        {"event": "lost", "vm": idle, "profile": "p", "was": "ready", "reason": "mute", "detail": "fault"}
    ]


def test_the_log_alone_says_why_a_vm_was_evicted() -> None:
    policies = {"p": PoolPolicy(size=4, memory_mib=256), "q": PoolPolicy(size=0, memory_mib=512)}
    world = World(policies, ServicePolicy(memory_budget_mib=1024))
    world.run_undisturbed()
    world.acquire("q", on_empty=OnEmpty.BOOT)
    world.process()
    evicted = [each for each in lines(world) if each["event"] == "evicted"]
    assert [each["vm"] for each in evicted] == world.in_state(VmState.STOPPING)
    assert evicted[0] == {
        "event": "evicted",
        "vm": evicted[0]["vm"],
        "profile": "p",
        "was": "ready",
        "reason": "memory",
        "detail": "its memory is needed for a claim of profile q",
    }


def test_replaced() -> None:
    world = pool()
    world.change_generation("p")
    world.run_undisturbed()
    said = line(world, "replaced")
    assert (said["vm"], said["reason"]) == ("vm-1", "stale")
    assert line(world, "generation")["profile"] == "p"


def test_what_befalls_a_profile_and_the_host() -> None:
    world = pool()
    world.resize("p", 0)
    world.drain("p")
    world.undrain("p")
    world.reset("p")
    world.host_memory(low=True)
    world.process()
    told = [(each["event"], each.get("profile"), each.get("detail")) for each in lines(world)]
    assert [each for each in told if each[0] not in ("ready", "evicted")] == [
        ("resized", "p", "0"),
        ("drained", "p", "0 VMs are in use"),
        ("undrained", "p", "the pool's size is 0"),
        ("circuit", "p", "closed: its failures were reset by request"),
        ("memory pressure", None, "low: little is left"),
    ]


@pytest.mark.parametrize("change", ProfileChange)
def test_each_change_of_a_profile_has_a_line(change: ProfileChange) -> None:
    assert kind_of(ProfileNews(profile="p", change=change, detail="")) is not None


@pytest.mark.parametrize("reason", StopReason)
def test_each_reason_to_end_an_idle_vm_has_a_line(reason: StopReason) -> None:
    news = VmNews(vm_id="vm-1", profile="p", state=VmState.STOPPING, was=VmState.READY, reason=reason)
    only_of_leases = {StopReason.RELEASED, StopReason.EXPIRED, StopReason.GIVEN_AWAY}
    assert (kind_of(news) is None) == (reason in only_of_leases)


@pytest.mark.parametrize("reason", EndReason)
def test_each_end_of_a_lease_has_a_line(reason: EndReason) -> None:
    found = leased(profile="p").lease
    assert found is not None
    assert kind_of(LeaseNews(lease=found, change=LeaseChange.ENDED, reason=reason))


# -- how many there are, and when ------------------------------------------------------------------------------------


def drained(profile: str = "p") -> News:
    return ProfileNews(profile=profile, change=ProfileChange.DRAINED, detail="")


@asynccontextmanager
async def logging() -> AsyncIterator[tuple[NewsLog, list[Line]]]:
    log = NewsLog()
    with capture_logs() as logged:
        async with trio.open_nursery() as nursery:
            await nursery.start(log.run)
            yield log, logged  # type: ignore[misc]
            nursery.cancel_scope.cancel(reason="the test is over")


def events(logged: Iterable[Line]) -> list[str]:
    return [each["event"] for each in logged]


@in_virtual_time
async def test_a_line_is_written_when_replies_are_out() -> None:
    async with logging() as (log, logged):
        log.tell(drained())
        await trio.testing.wait_all_tasks_blocked()
        assert logged == []
        await trio.sleep(LATER_S)
        await trio.testing.wait_all_tasks_blocked()
        assert logged == [{"event": "drained", "profile": "p", "log_level": "info"}]


@in_virtual_time
async def test_of_a_storm_some_lines_are_written_and_then_how_many_more_there_were() -> None:
    async with logging() as (log, logged):
        for _ in range(LINES + 7):
            log.tell(drained())
        log.tell(ProfileNews(profile="p", change=ProfileChange.UNDRAINED, detail=""))
        await trio.sleep(WINDOW_S / 2)
        assert events(logged) == ["drained"] * LINES + ["undrained"]
        await trio.sleep(WINDOW_S)
        assert logged[-1] == {"event": LEFT_OUT, "kind": "drained", "count": 7, "within_s": 10.0, "log_level": "info"}
        assert len(logged) == LINES + 2

        log.tell(drained("after"))
        await trio.sleep(WINDOW_S)
        assert logged[-1]["profile"] == "after"
        assert events(logged).count(LEFT_OUT) == 1


@in_virtual_time
async def test_a_storm_that_goes_on_costs_a_bounded_number_of_lines() -> None:
    async with logging() as (log, logged):
        for _ in range(100):
            for _ in range(LINES):
                log.tell(drained())
            await trio.sleep(WINDOW_S / 10)
            assert len(log._pending) <= LINES + 1
        assert events(logged).count("drained") <= 11 * LINES
    total = events(logged).count("drained") + sum(each["count"] for each in logged if each["event"] == LEFT_OUT)
    assert total == 100 * LINES


@in_virtual_time
async def test_nothing_is_lost_when_it_ends() -> None:
    async with logging() as (log, logged):
        for _ in range(LINES + 1):
            log.tell(drained())
    assert events(logged) == ["drained"] * LINES + [LEFT_OUT]
