"""What the host can bear, and who comes first: boots at a time, the memory budget, memory that gets low."""

from __future__ import annotations

import pytest

from pool.ledger.effects import RefusalCode
from pool.ledger.events import FoundVm
from pool.ledger.news import ProfileChange, ProfileNews
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from pool.ledger.views import ProfileView
from tests.properties.ledger.world import World
from tests.unit.ledger.test_succession import leased
from tests.unit.ledger.told import answered, granted, refusal, refused
from vmm.words.kinds import ProductionCost
from vmm.words.life import VmState


def profile(size: int = 1, *, memory_mib: int = 256, cost: ProductionCost = ProductionCost.BOOT) -> PoolPolicy:
    return PoolPolicy(size=size, memory_mib=memory_mib, cost=cost, production_limit=4)


def views(world: World) -> dict[str, ProfileView]:
    return {view.name: view for view in world.ledger.views(now=world.now)}


def taken_mib(world: World) -> int:
    return sum(vm.memory_mib for vm in world.ledger.vms())


# -- productions at a time -----------------------------------------------------------------------------------------


def test_so_many_boot_at_a_time_in_all_profiles() -> None:
    world = World({"p": profile(3), "q": profile(3)}, ServicePolicy(boots_at_once=2))
    world.process()
    assert len(world.in_state(VmState.PRODUCING)) == 2
    world.run_undisturbed()
    assert [view.ready for view in views(world).values()] == [3, 3]


def test_clones_have_a_limit_of_their_own() -> None:
    policies = {"boots": profile(3), "clones": profile(3, cost=ProductionCost.CLONE)}
    world = World(policies, ServicePolicy(boots_at_once=1, clones_at_once=2))
    world.process()
    assert (views(world)["boots"].producing, views(world)["clones"].producing) == (1, 2)


def test_the_pool_with_the_smallest_part_of_what_it_wants_comes_first() -> None:
    world = World({"p": profile(2), "q": profile(4)}, ServicePolicy(boots_at_once=1))
    order = []
    while productions := world.in_state(VmState.PRODUCING):
        order += [world.record.vms[vm_id].profile for vm_id in productions]
        world.progress(*productions)
        world.process()
    assert order == ["p", "q", "q", "p", "q", "q"]


@pytest.mark.parametrize("on_empty", [OnEmpty.WAIT, OnEmpty.BOOT])
def test_who_waits_comes_before_the_pools(on_empty: OnEmpty) -> None:
    world = World({"p": profile(4), "q": profile(1)}, ServicePolicy(boots_at_once=1))
    (first,) = world.in_state(VmState.PRODUCING)
    request = world.acquire("q", on_empty=on_empty)
    world.process()
    world.progress(first)
    world.process()
    assert views(world)["q"].producing == 1
    world.run_undisturbed()
    assert granted(world, request)


def test_what_is_held_back_says_why() -> None:
    world = World({"p": profile(2)}, ServicePolicy(boots_at_once=1))
    assert views(world)["p"].held_back == "1 VMs are booting already"


# -- the budget ----------------------------------------------------------------------------------------------------


def test_no_more_memory_is_spent_than_there_is() -> None:
    world = World({"p": profile(4)}, ServicePolicy(memory_budget_mib=600))
    world.run_undisturbed()
    assert views(world)["p"].ready == 2
    assert views(world)["p"].held_back == "512 of 600 MiB are taken, and a VM needs 256 MiB"


def test_memory_is_spent_until_the_process_is_gone() -> None:
    world = World({"p": profile(1)}, ServicePolicy(memory_budget_mib=256))
    world.run_undisturbed()
    world.evict(vm_id=world.in_state(VmState.READY)[0])
    world.process()
    assert views(world)["p"].producing == 0
    world.run_undisturbed()
    assert views(world)["p"].ready == 1


def test_who_wants_more_than_all_of_it_is_refused_at_once() -> None:
    world = World({"p": profile(1)}, ServicePolicy(memory_budget_mib=1024))
    request = world.acquire("p", memory_mib=2048)
    world.process()
    assert refused(world, request) is RefusalCode.OVER_MAXIMUM
    assert "limits.memory_budget_mib" in refusal(world, request).message


def test_idle_vms_of_others_make_room_for_who_waits() -> None:
    world = World({"p": profile(4), "q": profile(0, memory_mib=512)}, ServicePolicy(memory_budget_mib=1024))
    world.run_undisturbed()
    request = world.acquire("q", on_empty=OnEmpty.BOOT)
    world.process()
    assert len(world.in_state(VmState.STOPPING)) == 2, "no more than is needed"
    assert views(world)["p"].counters.evicted == 2
    world.run_undisturbed()
    assert granted(world, request)
    assert views(world)["p"].ready == 2


def test_those_who_can_spare_most_make_room_first() -> None:
    world = World(
        {"poor": profile(1), "rich": profile(3), "q": profile(0, memory_mib=512)}, ServicePolicy(memory_budget_mib=1024)
    )
    world.run_undisturbed()
    world.acquire("q", on_empty=OnEmpty.BOOT)
    world.process()
    assert (views(world)["poor"].ready, views(world)["rich"].ready) == (1, 1)


def test_nobodys_lease_makes_room() -> None:
    world = World({"p": profile(2), "q": profile(0, memory_mib=512)}, ServicePolicy(memory_budget_mib=512))
    world.run_undisturbed()
    leases = [world.acquire("p") for _ in range(2)]
    world.run_undisturbed()
    request = world.acquire("q", on_empty=OnEmpty.BOOT, patience_s=5.0)
    world.advance(5.0)
    assert refused(world, request) is RefusalCode.DEADLINE
    assert "512 of 512 MiB are taken" in refusal(world, request).message
    assert all(granted(world, lease).vm_id in world.living for lease in leases)


def test_nothing_is_evicted_where_that_would_not_be_enough() -> None:
    world = World({"p": profile(3), "q": profile(0, memory_mib=2048)}, ServicePolicy(memory_budget_mib=3000))
    world.run_undisturbed()
    world.acquire("q", on_empty=OnEmpty.BOOT)
    world.run_undisturbed()
    second = world.acquire("q", on_empty=OnEmpty.BOOT)
    world.run_undisturbed()
    assert not answered(world, second)
    assert (views(world)["p"].ready, views(world)["p"].counters.evicted) == (3, 0)


# -- more memory at hand-out ---------------------------------------------------------------------------------------


def test_what_a_vm_grows_by_is_counted() -> None:
    world = World({"p": profile(1)}, ServicePolicy(memory_budget_mib=1024))
    world.run_undisturbed()
    request = world.acquire("p", memory_mib=700)
    world.run_undisturbed()
    assert granted(world, request)
    assert taken_mib(world) == 700 + 256
    assert views(world)["p"].ready == 1


def test_idle_vms_make_room_for_one_that_grows() -> None:
    world = World({"p": profile(2), "q": profile(2)}, ServicePolicy(memory_budget_mib=1024))
    world.run_undisturbed()
    request = world.acquire("p", memory_mib=1024)
    world.process()
    assert len(world.in_state(VmState.STOPPING)) == 3, "all but the one that is to grow"
    world.run_undisturbed()
    assert granted(world, request)
    assert taken_mib(world) == 1024


def test_pools_leave_alone_what_somebody_waits_for() -> None:
    """Or whoever needs much would never get it: the pools would take each bit as it comes free."""
    world = World({"p": profile(1), "q": profile(4)}, ServicePolicy(memory_budget_mib=1024))
    world.run_undisturbed()
    leases = [world.acquire("q") for _ in range(3)]
    world.run_undisturbed()
    request = world.acquire("p", memory_mib=1024)
    for lease in leases:
        world.process()
        world.release(granted(world, lease).lease_id, uid=1000)
        world.run_undisturbed()
    assert granted(world, request)


def test_pools_leave_alone_what_was_made_free_for_one_that_waits_for_its_turn() -> None:
    """Or a VM would be produced and evicted without end, for as long as nothing else can be cloned."""
    policies = {
        "busy": profile(1, cost=ProductionCost.CLONE),
        "p": profile(3),
        "q": profile(0, cost=ProductionCost.CLONE),
    }
    world = World(policies, ServicePolicy(memory_budget_mib=1024, clones_at_once=1))
    clone, *boots = world.in_state(VmState.PRODUCING)
    for vm_id in boots:
        world.progress(vm_id)
    world.process()
    request = world.acquire("q", on_empty=OnEmpty.BOOT)
    world.process()
    (evicted,) = world.in_state(VmState.STOPPING)
    world.progress(evicted)
    world.process()
    assert (views(world)["p"].ready, views(world)["p"].producing) == (2, 0)
    world.progress(clone)
    world.run_undisturbed()
    assert granted(world, request)
    assert views(world)["p"].counters.evicted == 1


def test_who_comes_after_one_that_wants_much_waits_behind_it() -> None:
    world = World({"p": profile(1), "q": profile(0)}, ServicePolicy(memory_budget_mib=512))
    world.run_undisturbed()
    other = world.acquire("q", on_empty=OnEmpty.BOOT)
    world.run_undisturbed()
    much, little = world.acquire("p", memory_mib=512), world.acquire("p")
    world.run_undisturbed()
    assert not answered(world, much)
    assert not answered(world, little)
    world.release(granted(world, other).lease_id, uid=1000)
    world.run_undisturbed()
    assert granted(world, much)
    assert not answered(world, little)


def test_a_hand_out_that_fails_gives_back_what_the_vm_grew_by() -> None:
    world = World({"p": profile(1)}, ServicePolicy(memory_budget_mib=1024))
    world.run_undisturbed()
    world.acquire("p", memory_mib=1024)
    world.process()
    assert taken_mib(world) == 1024
    world.die(*world.in_state(VmState.HANDING_OUT))
    for _ in range(2):
        world.process()
        for vm_id in world.in_state(VmState.STOPPING):
            world.progress(vm_id)
    assert taken_mib(world) == 0


# -- a smaller budget than before ----------------------------------------------------------------------------------


def test_adopted_vms_that_do_not_fit_any_more_go() -> None:
    found = tuple(FoundVm(vm_id=f"old-{number}", profile="p") for number in range(4))
    world = World({"p": profile(4)}, ServicePolicy(memory_budget_mib=600), found=found)
    world.run_undisturbed()
    assert views(world)["p"].ready == 2
    assert set(world.living) <= {vm.vm_id for vm in found}


# -- the host's own word -------------------------------------------------------------------------------------------


def test_each_report_of_low_memory_costs_one_idle_vm() -> None:
    world = World({"p": profile(1), "q": profile(3)})
    world.run_undisturbed()
    for ready in ((1, 2), (1, 1), (0, 1)):
        world.host_memory(low=True)
        world.run_undisturbed()
        assert (views(world)["p"].ready, views(world)["q"].ready) == ready
    assert views(world)["q"].held_back == "the host's memory is low: little is left"


def test_what_is_in_production_goes_before_what_is_ready() -> None:
    world = World({"p": profile(1)})
    world.run_undisturbed()
    world.resize("p", 2)
    world.process()
    world.host_memory(low=True)
    world.process()
    assert (views(world)["p"].ready, views(world)["p"].producing) == (1, 0)


def test_nothing_is_produced_until_there_is_enough_again() -> None:
    world = World({"p": profile(1)})
    world.run_undisturbed()
    world.host_memory(low=True)
    request = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.run_undisturbed()
    assert not answered(world, request)
    assert world.living == {}
    world.host_memory(low=False)
    world.run_undisturbed()
    assert granted(world, request)
    assert views(world)["p"].ready == 1


def test_leases_are_not_touched_when_memory_is_low() -> None:
    world = World({"p": profile(1)})
    world.run_undisturbed()
    request = world.acquire("p")
    world.run_undisturbed()
    for _ in range(5):
        world.host_memory(low=True)
        world.run_undisturbed()
    assert world.living == {granted(world, request).vm_id: VmState.LEASED}


def test_it_is_told_when_memory_gets_low_and_when_there_is_enough() -> None:
    world = World({"p": profile(1)})
    for low in (False, True, True, False, False):
        world.host_memory(low=low)
    world.process()
    told = [n.detail for n in world.record.news if isinstance(n, ProfileNews)]
    assert told == ["low: little is left", "enough again"]
    assert all(n.change is ProfileChange.HOST_MEMORY for n in world.record.news if isinstance(n, ProfileNews))


def test_what_takes_no_memory_is_not_stopped_to_get_some() -> None:
    found = (leased(profile="was", memory_mib=1024), FoundVm(vm_id="old-1", profile="p"))
    world = World({"p": profile(1, memory_mib=0)}, ServicePolicy(memory_budget_mib=512), found=found)
    world.run_undisturbed()
    assert world.in_state(VmState.READY) == ["old-1"]


def test_no_vm_grows_while_memory_is_low() -> None:
    world = World({"p": profile(2)})
    world.run_undisturbed()
    world.host_memory(low=True)
    request = world.acquire("p", memory_mib=8192)
    world.run_undisturbed()
    assert not answered(world, request)
    assert views(world)["p"].ready == 1
    world.host_memory(low=False)
    world.run_undisturbed()
    assert granted(world, request)


def test_no_room_is_made_while_memory_is_low() -> None:
    """Nothing could be produced in it."""
    world = World({"p": profile(2), "q": profile(0, memory_mib=512)}, ServicePolicy(memory_budget_mib=512))
    world.run_undisturbed()
    world.host_memory(low=True)
    world.process()
    world.acquire("q", on_empty=OnEmpty.BOOT)
    world.run_undisturbed()
    assert views(world)["p"].ready == 1
