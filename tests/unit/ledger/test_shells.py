"""Shells: filled for whoever waits, never at the pool's cost, and no worse than none when they fail."""

from __future__ import annotations

import math

from pool.ledger.demand import AdaptiveSize
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from tests.properties.ledger.world import World
from tests.unit.ledger.told import answered, granted, view
from vmm.words.life import VmState


def empty_pool(*, shells: int = 1) -> World:
    """Nothing is ready, and the shells wait."""
    world = World({"p": PoolPolicy(size=0, shells=shells)})
    world.run_undisturbed()
    assert view(world).shells == shells
    return world


def test_a_claim_that_waits_gets_a_shell_filled() -> None:
    world = empty_pool()
    (shell,) = world.in_state(VmState.SHELL)
    request = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    assert world.living[shell] is VmState.PRODUCING

    world.run_undisturbed()
    assert granted(world, request).vm_id == shell
    assert view(world).shells == 1, "its place was taken by another"


def test_a_shell_is_replaced_while_it_is_filled() -> None:
    """Whoever misses next would else have to wait for one that has only just been started."""
    world = empty_pool()
    (shell,) = world.in_state(VmState.SHELL)
    world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    assert world.living[shell] is VmState.PRODUCING
    assert len(world.living) == 2


def test_a_shell_that_cannot_be_filled_costs_its_claim_nothing_but_time() -> None:
    """Its template may be gone: the claim is not refused for that, it gets a production of its own."""
    world = empty_pool()
    (shell,) = world.in_state(VmState.SHELL)
    request = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    world.die(shell)
    world.process()

    world.run_undisturbed()
    assert granted(world, request).vm_id != shell
    assert view(world).counters.lost_shells == 1
    assert view(world).failures_in_a_row == 0, "the pool's own production did not fail"


def test_the_refill_leaves_the_shells_alone() -> None:
    world = World({"p": PoolPolicy(size=2, shells=1)})
    world.run_undisturbed()
    (shell,) = world.in_state(VmState.SHELL)
    for _ in range(3):
        world.acquire("p")
        world.process()
        world.run_undisturbed()
    assert world.living[shell] is VmState.SHELL


def test_shells_of_an_older_generation_go_at_once() -> None:
    world = empty_pool(shells=2)
    old = set(world.in_state(VmState.SHELL))
    world.change_generation("p")
    world.process()
    assert {world.living[vm_id] for vm_id in old} == {VmState.STOPPING}
    world.run_undisturbed()
    assert view(world).shells == 2


def test_what_was_filled_for_one_who_waits_for_memory_is_kept_for_him() -> None:
    """However small the pool has become meanwhile: or what was filled would be stopped as too much, without end."""
    adaptive = AdaptiveSize(minimum=0, maximum=3, window_s=6.0, hold_s=1.0)
    policies = {"p": PoolPolicy(size=0, adaptive=adaptive, shells=1), "q": PoolPolicy(size=1, memory_mib=1024)}
    world = World(policies, ServicePolicy(memory_budget_mib=1024))
    world.run_undisturbed()
    taken = world.acquire("q")
    world.run_undisturbed()
    request = world.acquire("p", memory_mib=512, patience_s=math.inf)
    world.run_undisturbed()
    world.advance(600.0)
    world.run_undisturbed()
    assert not answered(world, request)
    assert len(world.in_state(VmState.READY)) == 1
    world.release(granted(world, taken).lease_id, uid=1000)
    world.process()
    world.run_undisturbed()
    assert granted(world, request)
    world.advance(600.0)
    assert {view.name: view.size for view in world.ledger.views(now=world.now)} == {"p": 0, "q": 1}


def test_what_is_stopped_for_one_shell_makes_room_for_the_next() -> None:
    """The profile was full: two of its own in production, and one for each of two claims."""
    world = World({"p": PoolPolicy(size=2, max_vms=4, shells=2, production_limit=3)})
    world.process()
    leaves = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    for on_empty in (OnEmpty.BOOT, OnEmpty.WAIT):
        world.acquire("p", on_empty=on_empty, patience_s=math.inf)
        world.process()
    for shell in ("vm-3", "vm-4"):
        world.progress(shell)
        world.process()
    assert len(world.in_state(VmState.SHELL)) == 2
    world.walk_away(leaves)
    world.process()
    assert not world.in_state(VmState.SHELL), "each fills one, for each who waits"
