"""What the ledger makes of failures: back-off, other VMs for whose hand-out failed, and no hiding of either."""

from __future__ import annotations

import pytest

from pool.ledger.effects import RefusalCode
from pool.ledger.facts import EARLY_DEATH_S, MAX_HAND_OUT_ATTEMPTS
from pool.ledger.policy import OnEmpty, PoolPolicy
from tests.properties.ledger.world import World
from tests.unit.ledger.told import answered, granted, pool, refusal, refused, view
from vmm.words.backoff import Backoff
from vmm.words.life import VmState


def steady(*, size: int = 1, production_limit: int = 2) -> World:
    """A pool whose back-off has no jitter: 1, 2, 4, ... 60 s."""
    backoff = Backoff(initial_s=1.0, maximum_s=60.0, jitter=0.0)
    return World({"p": PoolPolicy(size=size, production_limit=production_limit, backoff=backoff)})


def one_vm() -> World:
    """A pool that may have no more than it has."""
    world = World({"p": PoolPolicy(size=1, max_vms=1, backoff=Backoff(initial_s=1.0, maximum_s=60.0, jitter=0.0))})
    world.run_undisturbed()
    return world


def fail_production(world: World) -> None:
    world.die(world.in_state(VmState.PRODUCING)[0])
    world.process()


def test_after_each_failure_the_pool_waits_longer() -> None:
    world = steady()
    for expected in (1.0, 2.0, 4.0, 8.0):
        fail_production(world)
        assert view(world).retry_in_s == expected
        assert view(world).producing == 0
        world.advance(expected)
        assert view(world).producing == 1


def test_a_late_look_at_the_clock_loses_no_retry() -> None:
    """The time may come between the event that set it and the question when it is."""
    world = steady()
    fail_production(world)
    world.stall(5.0)
    assert world.ledger.next_wakeup() == 1.0
    world.advance(0.0)
    assert view(world).producing == 1


def test_after_a_failure_one_vm_at_a_time_is_tried() -> None:
    world = steady(size=4, production_limit=3)
    for _ in range(3):
        fail_production(world)
    world.advance(60.0)
    assert view(world).producing == 1
    world.progress(*world.in_state(VmState.PRODUCING))
    world.process()
    assert view(world).producing == 3


def test_a_success_ends_the_back_off() -> None:
    world = steady()
    fail_production(world)
    world.advance(1.0)
    world.run_undisturbed()
    assert (view(world).failures_in_a_row, view(world).retry_in_s, view(world).ready) == (0, 0.0, 1)


def test_boot_does_not_wait_for_the_back_off() -> None:
    world = steady()
    fail_production(world)
    world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    assert view(world).producing == 1


@pytest.mark.parametrize(("after_s", "failures"), [(EARLY_DEATH_S - 0.1, 4), (EARLY_DEATH_S, 0)])
def test_a_vm_that_dies_soon_after_it_came_up_counts_as_a_failed_production(after_s: float, failures: int) -> None:
    """And follows the failures from before, or a guest that falls over would be rebooted as fast as the host can."""
    world = steady()
    for delay in (1.0, 2.0, 4.0):
        fail_production(world)
        world.advance(delay)
    world.run_undisturbed()
    assert view(world).failures_in_a_row == 0
    world.advance(after_s)
    world.die(*world.in_state(VmState.READY))
    world.process()
    assert view(world).failures_in_a_row == failures
    assert view(world).last_error == "fault"


def test_a_pool_whose_vms_never_survive_the_hand_out_backs_off_more_and_more() -> None:
    world = steady()
    delays = []
    for _ in range(4):
        request = world.acquire("p")
        world.process()
        while not world.in_state(VmState.HANDING_OUT):
            for vm_id in world.in_state(VmState.PRODUCING):
                world.progress(vm_id)
            world.process()
        world.die(*world.in_state(VmState.HANDING_OUT))
        world.process()
        delays.append(view(world).retry_in_s)
        if not answered(world, request):
            world.walk_away(request)
        world.advance(view(world).retry_in_s)
    assert delays == [1.0, 2.0, 4.0, 8.0]


def test_a_claim_whose_hand_out_failed_gets_another_vm() -> None:
    world = pool(size=2)
    request = world.acquire("p", on_empty=OnEmpty.FAIL)
    world.process()
    world.die(*world.in_state(VmState.HANDING_OUT))
    world.run_undisturbed()
    assert granted(world, request)
    assert view(world).counters.hand_out_failures == 1


def test_it_is_not_tried_for_ever() -> None:
    world = pool(size=MAX_HAND_OUT_ATTEMPTS + 1)
    request = world.acquire("p")
    for _ in range(MAX_HAND_OUT_ATTEMPTS):
        world.process()
        world.die(*world.in_state(VmState.HANDING_OUT))
    world.process()
    assert refused(world, request) is RefusalCode.HAND_OUT_FAILED


def test_who_waited_in_vain_for_a_hand_out_is_told_so() -> None:
    """And not that the profile may have no more VMs: this one was to be his."""
    world = one_vm()
    request = world.acquire("p", patience_s=4.0)
    world.process()
    (vm_id,) = world.in_state(VmState.HANDING_OUT)
    world.advance(4.0)
    assert f"{vm_id} was chosen, but its guest has not answered yet" in refusal(world, request).message
    assert "max_vms" not in refusal(world, request).message


@pytest.mark.parametrize("again", [False, True], ids=["waits", "chosen again"])
def test_who_waited_through_a_hand_out_that_failed_is_told_why_it_did(again: bool) -> None:
    world = one_vm()
    request = world.acquire("p", patience_s=8.0)
    world.process()
    world.die(*world.in_state(VmState.HANDING_OUT))
    world.process()
    for vm_id in world.in_state(VmState.STOPPING):
        world.progress(vm_id)
    world.advance(2.0)
    if again:
        for vm_id in world.in_state(VmState.PRODUCING):
            world.progress(vm_id)
        world.process()
        assert world.in_state(VmState.HANDING_OUT)
    world.advance(6.0)
    assert refused(world, request) is RefusalCode.DEADLINE
    assert "the last hand-out to this caller failed: fault" in refusal(world, request).message
    assert "max_vms" not in refusal(world, request).message


def test_fail_does_not_wait_for_another_vm() -> None:
    world = pool(size=1)
    request = world.acquire("p", on_empty=OnEmpty.FAIL)
    world.process()
    world.die(*world.in_state(VmState.HANDING_OUT))
    world.process()
    assert refused(world, request) is RefusalCode.HAND_OUT_FAILED


def test_claims_that_come_back_keep_their_order() -> None:
    """The first to arrive is the first to get another VM, though its hand-out failed first."""
    world = pool(size=2)
    first, second, third = (world.acquire("p") for _ in range(3))
    world.process()
    for vm_id in world.in_state(VmState.HANDING_OUT):
        world.die(vm_id)
        world.process()
    queue = [claim.requests for claim in world.ledger._moves.fleet.pages["p"].waiting]
    assert [list(requests) for requests in queue] == [[first], [second], [third]]


def test_a_vm_whose_actor_ended_without_a_word_is_lost_all_the_same() -> None:
    world = pool()
    world.vanish(*world.in_state(VmState.READY), error="StopError")
    world.process()
    assert view(world).counters.lost_idle == 1
    assert view(world).last_error == "StopError"
    world.run_undisturbed()
    assert view(world).ready == 1


def test_stale_vms_that_are_too_many_do_not_keep_production_from_being_tried_again() -> None:
    """While production fails one more VM is wanted, to see whether it works; an old one does not take its place."""
    world = pool(size=3, production_limit=3, full=False)
    world.process()
    first, second, third = world.in_state(VmState.PRODUCING)
    world.progress(first)
    world.progress(second)
    world.process()
    world.die(third)
    world.evict(profile="p")
    world.resize("p", 1)
    world.process()
    assert (view(world).stale, view(world).failures_in_a_row) == (1, 1)
    world.run_undisturbed()
    assert (view(world).ready, view(world).stale, view(world).failures_in_a_row) == (1, 0, 0)
