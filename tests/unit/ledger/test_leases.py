"""Leases: who may end them, what is remembered of them, and what a drain leaves."""

from __future__ import annotations

import attrs
import pytest

from pool.ledger.effects import RefusalCode
from pool.ledger.events import FoundVm
from pool.ledger.leases import REMEMBERED_LEASES, LeaseRegister
from pool.ledger.news import LeaseChange, LeaseNews, VmNews
from pool.ledger.policy import OnEmpty, PoolPolicy
from pool.ledger.reasons import StopReason
from pool.ledger.records import EndReason, Lease, Owner
from tests.properties.ledger.vms import REPORT, TIMINGS
from tests.properties.ledger.world import World
from tests.unit.ledger.told import answered, granted, pool, refusal, refused, view
from vmm.words.leases import LeaseTerms
from vmm.words.life import VmState


def leased(*, uid: int = 1000, key: str = "") -> tuple[World, int, Lease]:
    world = pool()
    request = world.acquire("p", uid=uid, key=key)
    world.run_undisturbed()
    return world, request, granted(world, request)


@pytest.mark.parametrize("uid", [1000, 0], ids=["owner", "root"])
def test_owner_and_root_may_release(uid: int) -> None:
    world, _, lease = leased()
    release = world.release(lease.lease_id, uid=uid)
    world.process()
    assert answered(world, release)
    assert world.record.requests[release].answer is None
    assert (view(world).leased, view(world).stopping) == (0, 1)


def test_a_stranger_may_not_even_learn_that_it_has_ended() -> None:
    world, _, lease = leased()
    while_it_lives = world.release(lease.lease_id, uid=1001)
    world.release(lease.lease_id, uid=1000)
    when_it_has_ended = world.release(lease.lease_id, uid=1001)
    world.process()
    assert refused(world, while_it_lives) is RefusalCode.FOREIGN_LEASE
    assert refused(world, when_it_has_ended) is RefusalCode.FOREIGN_LEASE


def test_releasing_twice_is_told_apart_from_releasing_what_never_was() -> None:
    world, _, lease = leased()
    world.release(lease.lease_id, uid=1000)
    twice, never = world.release(lease.lease_id, uid=1000), world.release("lease-x", uid=1000)
    world.process()
    assert refused(world, twice) is RefusalCode.LEASE_ENDED
    assert "released: by its owner" in refusal(world, twice).message
    assert refused(world, never) is RefusalCode.UNKNOWN_LEASE


def test_a_lease_whose_vm_died_says_so() -> None:
    world, _, lease = leased()
    world.die(*world.in_state(VmState.LEASED))
    release = world.release(lease.lease_id, uid=1000)
    world.process()
    assert refused(world, release) is RefusalCode.LEASE_ENDED
    assert "vm_lost: fault" in refusal(world, release).message
    assert view(world).counters.lost_leased == 1
    assert (view(world).last_error, view(world).last_evidence) == ("", ""), "the pool has not failed"


def test_of_a_lease_that_is_silent_is_told_and_it_goes_on() -> None:
    world, _, lease = leased()
    (vm_id,) = world.in_state(VmState.LEASED)
    world.record.news.clear()
    world.fall_silent(vm_id)
    world.fall_silent(vm_id, detail="")
    world.process()
    told = [news for news in world.record.news if isinstance(news, LeaseNews)]
    assert [(news.change, news.detail) for news in told] == [
        (LeaseChange.SILENT, "its guest does not answer"),
        (LeaseChange.ANSWERING, ""),
    ]
    assert world.ledger.leases() == (lease,)


def test_a_silence_that_is_told_after_the_end_is_nobodys() -> None:
    world, _, lease = leased()
    (vm_id,) = world.in_state(VmState.LEASED)
    world.release(lease.lease_id, uid=1000)
    world.fall_silent(vm_id)
    world.process()
    assert LeaseChange.SILENT not in [getattr(news, "change", None) for news in world.record.news]


def test_a_grant_that_could_not_be_delivered_ends_the_lease() -> None:
    world, request, _ = leased()
    world.return_undelivered(request)
    world.process()
    assert world.ledger.leases() == ()
    assert view(world).stopping == 1


def test_a_lease_lives_while_one_of_its_callers_has_it() -> None:
    world, first, _ = leased(key="k")
    second = world.acquire("p", key="k")
    world.process()
    world.return_undelivered(first)
    world.process()
    assert len(world.ledger.leases()) == 1
    world.return_undelivered(second)
    world.process()
    assert world.ledger.leases() == ()


def test_a_caller_who_left_while_the_grant_was_on_its_way_leaves_no_lease() -> None:
    """The crossing: the ledger grants, then reads that nobody waits."""
    world = pool()
    request = world.acquire("p")
    world.process()
    world.progress(*world.in_state(VmState.HANDING_OUT))
    world.walk_away(request)
    world.run_undisturbed()
    assert world.ledger.leases() == ()
    assert view(world).ready == 1


def test_a_drain_refuses_who_waits_ends_every_lease_and_stops_every_vm() -> None:
    world, _, lease = leased()
    on_its_way = world.acquire("p")
    waiting = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    world.shut_down()
    late = world.acquire("p")
    release = world.release(lease.lease_id, uid=1000)
    world.process()
    assert {refused(world, request) for request in (on_its_way, waiting, late)} == {RefusalCode.SHUTTING_DOWN}
    assert "shutdown" in refusal(world, release).message
    assert not world.ledger.empty
    world.run_undisturbed()
    assert world.ledger.empty


def test_what_watchers_see_of_a_vm_names_no_lease() -> None:
    """Everybody may watch, and a lease id is what its owner has to show."""
    world, _, lease = leased()
    world.release(lease.lease_id, uid=1000)
    world.process()
    told = [news for news in world.record.news if isinstance(news, VmNews) and news.vm_id == lease.vm_id]
    assert [news.reason for news in told if news.reason] == [StopReason.RELEASED]
    assert not any(lease.lease_id in news.detail for news in told)


def test_a_lease_that_was_renewed_and_then_expired_says_no_more_than_that() -> None:
    world = pool(size=1)
    request = world.acquire("p", ttl_s=5.0)
    world.process()
    world.progress(*world.in_state(VmState.HANDING_OUT))
    world.process()
    lease = granted(world, request)
    world.advance(4.0)
    world.renew(lease.lease_id, uid=1000, ttl_s=5.0)
    world.advance(5.0)
    release = world.release(lease.lease_id, uid=1000)
    world.process()
    assert "(expired: it was not renewed in time)" in refusal(world, release).message


def test_so_many_ended_leases_are_remembered_and_no_more() -> None:
    register, owner = LeaseRegister(), Owner(uid=1000)
    for number in range(REMEMBERED_LEASES + 1):
        lease = Lease(
            vm_id="vm-1",
            pid=1,
            profile="p",
            terms=LeaseTerms(lease_id=f"lease-{number}", owner_uid=owner.uid),
            granted_at=0.0,
            report=REPORT,
            timings=TIMINGS,
        )
        register.open(lease, holders=1)
        register.end(lease, EndReason.RELEASED, detail="by its owner")
    codes = [register.find(f"lease-{number}", owner=owner) for number in (0, 1, REMEMBERED_LEASES)]
    assert [getattr(found, "code", None) for found in codes] == [
        RefusalCode.UNKNOWN_LEASE,
        RefusalCode.LEASE_ENDED,
        RefusalCode.LEASE_ENDED,
    ]


def test_a_renewal_that_cannot_be_recorded_is_refused_and_the_lease_ends_when_it_was_to_end() -> None:
    world = pool()
    request = world.acquire("p", uid=1000, ttl_s=5.0)
    world.process()
    for vm_id in world.busy():
        world.progress(vm_id)
    world.process()
    lease = granted(world, request)
    world.disk_is_full = True
    renewal = world.renew(lease.lease_id, uid=1000, ttl_s=60.0)
    world.process()
    world.process()
    assert refused(world, renewal) is RefusalCode.NOT_RECORDED
    assert world.ledger.leases() == (lease,)


def test_a_lease_that_ends_while_its_renewal_is_recorded_is_not_renewed() -> None:
    world, _, lease = leased()
    renewal = world.renew(lease.lease_id, uid=1000, ttl_s=60.0)
    world.release(lease.lease_id, uid=1000)
    world.process()
    world.process()
    assert refused(world, renewal) is RefusalCode.LEASE_ENDED


def test_a_lease_whose_time_came_while_no_service_ran_ends_as_it_is_found() -> None:
    lease = leased()[2]
    found = FoundVm(vm_id="vm-old", profile="p", lease=attrs.evolve(lease, vm_id="vm-old", expires_at=10.0))
    world = World({"p": PoolPolicy(size=0)}, now=10.0, found=(found,))
    assert world.ledger.leases() == ()
    assert [vm.state for vm in world.ledger.vms()] == [VmState.STOPPING]


def test_a_renewal_for_less_than_it_takes_to_record_ends_the_lease() -> None:
    world, _, lease = leased()
    renewal = world.renew(lease.lease_id, uid=1000, ttl_s=0.25)
    world.process()
    world.stall(0.25)
    world.process()
    assert refused(world, renewal) is RefusalCode.LEASE_ENDED
    assert world.ledger.leases() == ()


@pytest.mark.parametrize("bound", [True, False])
def test_a_key_of_a_lease_that_is_held_open_is_not_for_one_that_is_not(bound: bool) -> None:
    """Or who joins a lease without end that is held by a call would keep it for ever."""
    world = pool()
    first = world.acquire("p", key="k", bound=bound)
    second = world.acquire("p", key="k", bound=not bound, ttl_s=5.0)
    world.run_undisturbed()
    third = world.acquire("p", key="k", bound=not bound, ttl_s=5.0)
    world.process()
    assert granted(world, first).request.bound is bound
    assert refused(world, second) is RefusalCode.KEY_REUSED
    assert refused(world, third) is RefusalCode.KEY_REUSED
