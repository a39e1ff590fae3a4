"""What a caller gets, and when: the pool's hit, the three answers to an empty pool, deadlines, idempotency keys."""

from __future__ import annotations

import pytest

from pool.ledger.effects import RefusalCode
from pool.ledger.policy import OnEmpty
from tests.unit.ledger.told import answered, granted, pool, refusal, refused, view
from vmm.words.leases import LeaseRequest
from vmm.words.life import VmState

# -- hits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_empty", OnEmpty)
def test_a_ready_vm_goes_to_whoever_asks(on_empty: OnEmpty) -> None:
    world = pool()
    request = world.acquire("p", on_empty=on_empty)
    world.run_undisturbed()
    lease = granted(world, request)
    assert lease.terms.was_ready
    assert lease.terms.queued_s == 0.0
    assert (view(world).counters.hits, view(world).counters.misses) == (1, 0)


def test_the_pool_is_filled_up_again() -> None:
    world = pool(size=2)
    world.acquire("p")
    world.run_undisturbed()
    assert (view(world).ready, view(world).leased) == (2, 1)


def test_the_vm_that_is_ready_longest_goes_first() -> None:
    world = pool(size=2)
    first, *_ = world.in_state(VmState.READY)
    request = world.acquire("p")
    world.run_undisturbed()
    assert granted(world, request).vm_id == first


# -- the pool is empty ---------------------------------------------------------------------------------------------


def test_wait_waits_in_the_order_of_arrival() -> None:
    world = pool(size=1, full=False)
    first, second = world.acquire("p"), world.acquire("p")
    world.process()
    world.stall(3.0)
    (vm_id,) = world.in_state(VmState.PRODUCING)
    for _ in range(2):  # ready, handed out
        world.process()
        world.progress(vm_id)
    world.process()
    assert granted(world, first).terms.queued_s == 3.0
    assert not granted(world, first).terms.was_ready
    assert not answered(world, second)


def test_wait_is_refused_where_nothing_will_ever_be_ready() -> None:
    world = pool(size=0)
    request = world.acquire("p", on_empty=OnEmpty.WAIT)
    world.process()
    assert refused(world, request) is RefusalCode.NOTHING_READY


def test_fail_fails_at_once() -> None:
    world = pool(full=False)
    request = world.acquire("p", on_empty=OnEmpty.FAIL)
    world.process()
    assert refused(world, request) is RefusalCode.NOTHING_READY
    assert "set on_empty to WAIT or BOOT" in refusal(world, request).message


def test_boot_boots_on_top_of_the_pools_own() -> None:
    world = pool(size=1, production_limit=1, full=False)
    world.acquire("p", on_empty=OnEmpty.BOOT)
    world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    assert view(world).producing == 3


def test_boot_is_told_when_its_production_fails() -> None:
    world = pool(size=0)
    request = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    world.die(*world.in_state(VmState.PRODUCING))
    world.process()
    assert refused(world, request) is RefusalCode.PRODUCTION_FAILED


def test_boot_that_another_got_served_from_has_a_production_again() -> None:
    """The first in the queue takes what the second one's boot made; the second is not left to the pool's back-off."""
    world = pool(size=1, full=False)
    world.process()
    world.die(*world.in_state(VmState.PRODUCING))
    first = world.acquire("p", on_empty=OnEmpty.WAIT)
    second = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    (booted,) = world.in_state(VmState.PRODUCING)
    world.progress(booted)
    world.process()
    world.progress(booted)
    world.process()
    assert granted(world, first).vm_id == booted
    for vm_id in world.in_state(VmState.PRODUCING):
        world.die(vm_id)
    world.process()
    assert refused(world, second) is RefusalCode.PRODUCTION_FAILED


def test_two_boots_are_told_of_two_failures() -> None:
    """Even when the VMs came in the other order: the first one's production is the second's now."""
    world = pool(size=0)
    first, second = world.acquire("p", on_empty=OnEmpty.BOOT), world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    slow, fast = world.in_state(VmState.PRODUCING)
    for _ in range(2):
        world.progress(fast)
        world.process()
    assert granted(world, first).vm_id == fast
    world.die(slow)
    world.process()
    assert refused(world, second) is RefusalCode.PRODUCTION_FAILED


def test_a_boot_that_nobody_waits_for_any_more_is_stopped() -> None:
    world = pool(size=0)
    request = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    world.walk_away(request)
    world.process()
    assert view(world).producing == 0


def test_an_unknown_profile_is_answered_with_the_known_ones() -> None:
    world = pool()
    request = world.acquire("q")
    world.process()
    assert refused(world, request) is RefusalCode.UNKNOWN_PROFILE
    assert "configured: p" in refusal(world, request).message


# -- deadlines -----------------------------------------------------------------------------------------------------


def test_a_deadline_is_kept_to_the_instant() -> None:
    world = pool(full=False)
    request = world.acquire("p", patience_s=2.0)
    world.process()
    assert world.ledger.next_wakeup() == 2.0
    world.advance(1.999)
    assert not answered(world, request)
    world.advance(0.001)
    assert refused(world, request) is RefusalCode.DEADLINE


def test_a_deadline_that_has_passed_is_refused_though_a_vm_is_ready() -> None:
    world = pool()
    request = world.acquire("p", patience_s=0.0)
    world.process()
    assert refused(world, request) is RefusalCode.DEADLINE
    assert view(world).ready == 1


def test_a_deadline_wins_over_a_vm_that_comes_with_it() -> None:
    """The VM was on its way to nobody else, and is dirty."""
    world = pool()
    request = world.acquire("p", patience_s=2.0)
    world.process()
    (vm_id,) = world.in_state(VmState.HANDING_OUT)
    world.progress(vm_id)
    world.stall(2.0)
    world.process()
    assert refused(world, request) is RefusalCode.DEADLINE
    assert view(world).stopping == 1


# -- idempotency keys ----------------------------------------------------------------------------------------------


def test_the_same_key_waits_for_and_gets_the_same_lease() -> None:
    world = pool(full=False)
    first, second = world.acquire("p", key="k"), world.acquire("p", key="k")
    world.run_undisturbed()
    third = world.acquire("p", key="k")
    world.run_undisturbed()
    assert granted(world, first) == granted(world, second) == granted(world, third)
    assert view(world).leased == 1


def test_another_user_may_use_the_same_key() -> None:
    world = pool(size=2)
    first, second = world.acquire("p", key="k", uid=1), world.acquire("p", key="k", uid=2)
    world.run_undisturbed()
    assert granted(world, first) != granted(world, second)


def test_one_of_two_requests_with_a_key_may_go() -> None:
    world = pool(full=False)
    first, second = world.acquire("p", key="k"), world.acquire("p", key="k")
    world.process()
    world.walk_away(first)
    world.run_undisturbed()
    assert granted(world, second)


def test_a_key_is_free_again_when_its_lease_has_ended() -> None:
    world = pool()
    first = world.acquire("p", key="k")
    world.run_undisturbed()
    world.release(granted(world, first).lease_id, uid=1000)
    second = world.acquire("p", key="k")
    world.run_undisturbed()
    assert granted(world, second) != granted(world, first)


# -- what is kept of it --------------------------------------------------------------------------------------------


def test_a_lease_has_what_was_asked_of_it_but_for_wishes_which_are_fulfilled() -> None:
    """They may hold secrets and whole files, and a lease may last."""
    world = pool()
    request = world.acquire("p", key="k", bound=True, memory_mib=256)
    world.run_undisturbed()
    lease = granted(world, request)
    assert lease.request == LeaseRequest(key="k", bound=True)
    assert world.ledger._moves.fleet[lease.vm_id].terms is None
