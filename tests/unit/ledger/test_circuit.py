"""The circuit: when production fails again and again callers are told at once, and one trial at a time is made."""

from __future__ import annotations

from pool.ledger.effects import RefusalCode
from pool.ledger.news import ProfileChange, ProfileNews
from pool.ledger.policy import OnEmpty, PoolPolicy
from pool.ledger.views import CircuitState
from tests.properties.ledger.world import World
from tests.unit.ledger.told import answered, granted, refusal, refused, view
from vmm.words.backoff import Backoff
from vmm.words.life import VmState


def failing(*, failures: int = 3, size: int = 1) -> World:
    """The circuit opens at the third failure; the back-off is 1, 2, 4, ... 60 s."""
    backoff = Backoff(initial_s=1.0, maximum_s=60.0, jitter=0.0)
    world = World({"p": PoolPolicy(size=size, production_limit=1, breaker_threshold=3, backoff=backoff)})
    for failure in range(failures):
        if failure:
            world.advance(view(world).retry_in_s)
        fail_production(world)
    return world


def fail_production(world: World) -> None:
    world.process()
    world.die(world.in_state(VmState.PRODUCING)[0])
    world.process()


def half_open() -> World:
    """Of a pool that wants nothing by itself, so that callers make the trials."""
    world = failing(failures=0, size=0)
    for _ in range(3):
        world.acquire("p", on_empty=OnEmpty.BOOT)
        fail_production(world)
    world.advance(4.0)
    assert view(world).circuit is CircuitState.HALF_OPEN
    return world


def told(world: World) -> list[str]:
    of_circuit = [n for n in world.record.news if isinstance(n, ProfileNews) and n.change is ProfileChange.CIRCUIT]
    return [news.detail for news in of_circuit]


# -- open ----------------------------------------------------------------------------------------------------------


def test_it_opens_at_the_threshold_and_says_why() -> None:
    world = failing(failures=2)
    assert view(world).circuit is CircuitState.CLOSED
    assert told(world) == []
    world.advance(2.0)
    fail_production(world)
    assert view(world).circuit is CircuitState.OPEN
    assert told(world) == ["open for 4.0 s after: fault"]


def test_who_wants_to_boot_is_refused_at_once_with_the_last_error() -> None:
    world = failing()
    request = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    assert refused(world, request) is RefusalCode.CIRCUIT_OPEN
    message = refusal(world, request).message
    assert "the last 3 productions failed, the most recent with: fault" in message
    assert "vmpool reset p" in message
    assert view(world).producing == 0


def test_who_waits_to_boot_when_it_opens_is_refused_too() -> None:
    """There was no room for a production of his own, and now none is made."""
    policy = PoolPolicy(size=1, max_vms=1, breaker_threshold=1)
    world = World({"p": policy})
    first, second = world.acquire("p", on_empty=OnEmpty.BOOT), world.acquire("p", on_empty=OnEmpty.BOOT)
    fail_production(world)
    assert refused(world, first) is RefusalCode.PRODUCTION_FAILED
    assert refused(world, second) is RefusalCode.CIRCUIT_OPEN


def test_who_wants_to_boot_and_whose_hand_out_opened_it_is_refused_too() -> None:
    """The claim is in the queue again, and would sit there until the back-off is over."""
    world = World({"p": PoolPolicy(size=1, breaker_threshold=1, backoff=Backoff(initial_s=30.0, jitter=0.0))})
    world.run_undisturbed()
    request = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    world.die(*world.in_state(VmState.HANDING_OUT))
    world.process()
    assert refused(world, request) is RefusalCode.CIRCUIT_OPEN


def test_who_can_wait_waits_through_it() -> None:
    world = failing()
    request = world.acquire("p", on_empty=OnEmpty.WAIT)
    world.process()
    assert not answered(world, request)
    world.run_undisturbed()
    assert granted(world, request)


def test_what_is_ready_is_handed_out_all_the_same() -> None:
    world = failing(failures=0)
    world.run_undisturbed()
    world.resize("p", 2)
    for delay in (1.0, 2.0, 4.0):
        fail_production(world)
        world.advance(delay if delay < 4.0 else 0.0)
    assert view(world).circuit is CircuitState.OPEN
    request = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    assert view(world).handing_out == 1
    world.run_undisturbed()
    assert granted(world, request)


# -- half open -----------------------------------------------------------------------------------------------------


def test_after_the_back_off_one_at_a_time_is_tried() -> None:
    world = half_open()
    requests = [world.acquire("p", on_empty=OnEmpty.BOOT) for _ in range(3)]
    world.process()
    assert view(world).producing == 1
    assert not any(answered(world, request) for request in requests)


def test_a_trial_that_fails_opens_it_for_longer_and_all_who_wait_are_told() -> None:
    world = half_open()
    first, *others = [world.acquire("p", on_empty=OnEmpty.BOOT) for _ in range(3)]
    fail_production(world)
    assert refused(world, first) is RefusalCode.PRODUCTION_FAILED
    assert {refused(world, request) for request in others} == {RefusalCode.CIRCUIT_OPEN}
    assert told(world)[-1] == "open for 8.0 s after: fault"


def test_a_trial_that_succeeds_closes_it_and_all_are_served() -> None:
    world = half_open()
    requests = [world.acquire("p", on_empty=OnEmpty.BOOT) for _ in range(3)]
    world.process()
    world.progress(*world.in_state(VmState.PRODUCING))
    world.process()
    assert view(world).circuit is CircuitState.CLOSED
    assert view(world).producing == 2, "those who still wait"
    assert told(world)[-1].startswith("closed")
    world.run_undisturbed()
    assert all(granted(world, request) for request in requests)


def test_the_pool_makes_the_trial_if_nobody_else_does() -> None:
    world = failing()
    world.advance(3.9)
    assert view(world).producing == 0
    world.advance(0.1)
    assert view(world).producing == 1
    world.run_undisturbed()
    assert (view(world).circuit, view(world).ready) == (CircuitState.CLOSED, 1)


def test_shells_are_not_filled_until_it_is_closed() -> None:
    """The one trial is made from nothing: a shell that cannot be filled would say nothing about production."""
    world = World({"p": PoolPolicy(size=0, shells=1, breaker_threshold=1, backoff=Backoff(jitter=0.0))})
    world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    shell, booting = world.in_state(VmState.PRODUCING)
    world.die(booting)
    world.progress(shell)
    world.process()
    assert view(world).circuit is CircuitState.OPEN
    world.stall(1.0)
    world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    assert world.living[shell] is VmState.SHELL
    assert view(world).producing == 1
