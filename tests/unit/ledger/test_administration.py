"""What administrators ask for: resize, drain, undrain, evict, reset."""

from __future__ import annotations

import math

from pool.ledger.demand import AdaptiveSize
from pool.ledger.effects import RefusalCode
from pool.ledger.news import ProfileChange, ProfileNews
from pool.ledger.policy import OnEmpty, PoolPolicy
from tests.properties.ledger.world import World
from tests.unit.ledger.told import answered, granted, pool, refusal, refused, view
from vmm.words.backoff import Backoff
from vmm.words.life import VmState


def confirmed(world: World, request_id: int) -> bool:
    return answered(world, request_id) and world.record.requests[request_id].answer is None


def told(world: World, change: ProfileChange) -> list[str]:
    return [news.detail for news in world.record.news if isinstance(news, ProfileNews) and news.change is change]


# -- resize --------------------------------------------------------------------------------------------------------


def test_a_larger_pool_is_filled() -> None:
    world = pool(size=1)
    request = world.resize("p", 4)
    world.run_undisturbed()
    assert confirmed(world, request)
    assert (view(world).size, view(world).ready) == (4, 4)
    assert told(world, ProfileChange.RESIZED) == ["4"]


def test_a_smaller_pool_keeps_the_youngest() -> None:
    world = pool(size=3)
    youngest = list(world.ledger._moves.fleet.pages["p"].ready)[-1]
    world.resize("p", 1)
    world.run_undisturbed()
    assert world.in_state(VmState.READY) == [youngest]


def test_what_is_in_production_goes_before_what_is_ready() -> None:
    world = pool(size=2)
    ready = world.in_state(VmState.READY)
    world.resize("p", 4)
    world.process()
    world.resize("p", 2)
    world.run_undisturbed()
    assert world.in_state(VmState.READY) == ready


def test_leases_are_not_touched_by_a_resize() -> None:
    world = pool(size=1)
    request = world.acquire("p")
    world.run_undisturbed()
    world.resize("p", 0)
    world.run_undisturbed()
    assert world.living == {granted(world, request).vm_id: VmState.LEASED}


def test_a_resize_to_nothing_refuses_those_for_whom_nothing_will_come() -> None:
    world = pool(size=1, full=False)
    waits, boots = world.acquire("p"), world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    world.resize("p", 0)
    world.process()
    assert refused(world, waits) is RefusalCode.NOTHING_READY
    assert not answered(world, boots)
    world.run_undisturbed()
    assert granted(world, boots)


def test_nobody_waits_where_a_hand_out_failed_after_a_resize_to_nothing() -> None:
    world = pool(size=1)
    request = world.acquire("p")
    world.process()
    world.resize("p", 0)
    world.die(*world.in_state(VmState.HANDING_OUT))
    world.process()
    assert refused(world, request) is RefusalCode.HAND_OUT_FAILED


def test_a_resize_to_nothing_takes_stale_vms_too_though_production_fails() -> None:
    """They are not to be replaced, so it does not matter whether they could be."""
    world = World({"p": PoolPolicy(size=2, min_ready=0)})
    world.run_undisturbed()
    world.die(world.in_state(VmState.READY)[0])  # so early that it counts as a failure
    world.process()
    world.change_generation("p")
    world.resize("p", 0)
    world.run_undisturbed()
    assert world.living == {}


# -- drain and undrain ----------------------------------------------------------------------------------------------


def test_a_drained_profile_gives_nothing_away_and_makes_nothing() -> None:
    world = pool(size=2)
    request = world.drain("p")
    world.run_undisturbed()
    assert confirmed(world, request)
    assert world.living == {}
    assert view(world).drained
    asks = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.run_undisturbed()
    assert refused(world, asks) is RefusalCode.DRAINED
    assert "vmpool undrain p" in refusal(world, asks).message


def test_a_drain_refuses_who_waits() -> None:
    world = pool(full=False)
    waits, boots = world.acquire("p"), world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    world.drain("p")
    world.process()
    assert refused(world, waits) is refused(world, boots) is RefusalCode.DRAINED
    assert world.in_state(VmState.PRODUCING) == []


def test_leases_and_what_is_on_its_way_to_one_go_on_in_a_drain() -> None:
    world = pool(size=2)
    leased = world.acquire("p")
    world.run_undisturbed()
    on_its_way = world.acquire("p")
    world.process()
    world.drain("p")
    world.run_undisturbed()
    assert granted(world, leased)
    assert granted(world, on_its_way)
    assert (view(world).leased, view(world).ready) == (2, 0)


def test_a_hand_out_that_fails_in_a_drain_is_not_tried_again() -> None:
    world = pool(size=2)
    request = world.acquire("p")
    world.process()
    world.drain("p")
    world.die(*world.in_state(VmState.HANDING_OUT))
    world.process()
    assert refused(world, request) is RefusalCode.HAND_OUT_FAILED


def test_shells_go_with_the_rest() -> None:
    world = World({"p": PoolPolicy(size=1, shells=2)})
    world.run_undisturbed()
    world.drain("p")
    world.run_undisturbed()
    assert world.living == {}


def test_a_resumed_profile_is_as_before() -> None:
    world = pool(size=2)
    world.drain("p")
    world.run_undisturbed()
    request = world.undrain("p")
    world.run_undisturbed()
    assert confirmed(world, request)
    assert view(world).ready == 2
    assert told(world, ProfileChange.UNDRAINED) == ["the pool's size is 2"]


def test_who_asks_in_a_drain_is_no_demand() -> None:
    world = World({"p": PoolPolicy(size=1, adaptive=AdaptiveSize(minimum=1, maximum=8))})
    world.drain("p")
    for _ in range(8):
        world.acquire("p")
    world.process()
    assert view(world).size == 1


# -- evict ---------------------------------------------------------------------------------------------------------


def test_one_idle_vm_is_evicted_and_another_comes() -> None:
    world = pool(size=2)
    evicted, other = world.in_state(VmState.READY)
    request = world.evict(vm_id=evicted)
    world.process()
    assert confirmed(world, request)
    assert world.living[evicted] is VmState.STOPPING
    world.run_undisturbed()
    assert other in world.in_state(VmState.READY)
    assert (view(world).ready, view(world).counters.evicted) == (2, 1)


def test_what_somebody_has_is_not_evicted() -> None:
    world = pool()
    lease = world.acquire("p")
    world.run_undisturbed()
    request = world.evict(vm_id=granted(world, lease).vm_id)
    world.process()
    assert refused(world, request) is RefusalCode.VM_IN_USE
    assert len(world.ledger.leases()) == 1


def test_who_would_evict_what_is_not_ready_is_told_what_to_do_instead() -> None:
    world = pool()
    leased = world.acquire("p")
    world.process()
    world.progress(*world.in_state(VmState.HANDING_OUT))
    world.process()
    requests = [
        world.evict(vm_id=vm_id) for vm_id in (granted(world, leased).vm_id, *world.in_state(VmState.PRODUCING))
    ]
    world.process()
    advice = [refusal(world, request).message.rpartition("; ")[2] for request in requests]
    assert advice == ["release its lease instead", "try again in a moment"]


def test_what_is_not_there_is_not_evicted() -> None:
    world = pool()
    request = world.evict(vm_id="vm-x")
    world.process()
    assert refused(world, request) is RefusalCode.UNKNOWN_VM


def test_all_idle_vms_of_a_profile_are_replaced_few_at_a_time() -> None:
    world = World({"p": PoolPolicy(size=4, min_ready=2, production_limit=1)})
    world.run_undisturbed()
    before = set(world.in_state(VmState.READY))
    request = world.evict(profile="p")
    world.process()
    assert confirmed(world, request)
    assert (view(world).ready, view(world).stale) == (3, 3)
    world.run_undisturbed()
    assert not before & set(world.in_state(VmState.READY))
    assert (view(world).ready, view(world).stale, view(world).counters.rolled) == (4, 0, 4)


# -- reset ---------------------------------------------------------------------------------------------------------


def test_a_reset_forgets_failures() -> None:
    backoff = Backoff(initial_s=60.0, maximum_s=60.0, jitter=0.0)
    world = World({"p": PoolPolicy(size=1, backoff=backoff, breaker_threshold=1)})
    world.process()
    world.die(*world.in_state(VmState.PRODUCING))
    world.process()
    assert (view(world).producing, view(world).retry_in_s) == (0, 60.0)
    request = world.reset("p")
    world.process()
    assert confirmed(world, request)
    assert (view(world).producing, view(world).failures_in_a_row, view(world).retry_in_s) == (1, 0, 0.0)
    assert world.ledger.next_wakeup() == math.inf


# -- whatever is asked ---------------------------------------------------------------------------------------------


def test_an_unknown_profile_is_answered_with_the_known_ones() -> None:
    world = pool()
    requests = [world.resize("q", 1), world.drain("q"), world.undrain("q"), world.reset("q"), world.evict(profile="q")]
    world.process()
    assert {refused(world, request) for request in requests} == {RefusalCode.UNKNOWN_PROFILE}
    assert "configured: p" in refusal(world, requests[0]).message


def test_nothing_is_changed_in_a_service_that_ends() -> None:
    world = pool()
    world.shut_down()
    request = world.resize("p", 5)
    world.process()
    assert refused(world, request) is RefusalCode.SHUTTING_DOWN
    assert view(world).size == 1
