"""From one run of the service to the next: what is found is kept, and what can be kept is let go alive."""

from __future__ import annotations

import math

from pool.ledger.effects import RefusalCode
from pool.ledger.events import FoundVm
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from pool.ledger.records import Lease
from tests.properties.ledger.vms import REPORT, TIMINGS
from tests.properties.ledger.world import World
from tests.unit.ledger.told import answered, granted, pool, refused, view
from vmm.words.leases import LeaseRequest, LeaseTerms
from vmm.words.life import VmState


def idle(*vm_ids: str, profile: str = "p") -> tuple[FoundVm, ...]:
    return tuple(FoundVm(vm_id=vm_id, profile=profile) for vm_id in vm_ids)


def leased(
    *, profile: str = "p", key: str = "", expires_at: float = math.inf, bound: bool = False, memory_mib: int = 0
) -> FoundVm:
    lease = Lease(
        vm_id="old-leased",
        pid=1,
        profile=profile,
        terms=LeaseTerms(lease_id="old-lease", owner_uid=1000, request=LeaseRequest(key=key, bound=bound)),
        granted_at=-60.0,
        expires_at=expires_at,
        report=REPORT,
        timings=TIMINGS,
    )
    return FoundVm(vm_id=lease.vm_id, profile=profile, lease=lease, memory_mib=memory_mib)


def after(*found: FoundVm, size: int = 1, service: ServicePolicy | None = None) -> World:
    """The first moment of a run that follows another."""
    return World(
        {"p": PoolPolicy(size=size, memory_mib=256, production_limit=4)}, service or ServicePolicy(), found=found
    )


# -- idle VMs ------------------------------------------------------------------------------------------------------


def test_nothing_is_produced_that_is_there_already() -> None:
    world = after(*idle("old-1", "old-2"), size=3)
    assert len(world.in_state(VmState.ADOPTING)) == 2
    assert len(world.in_state(VmState.PRODUCING)) == 1
    world.run_undisturbed()
    assert {"old-1", "old-2"} < set(world.in_state(VmState.READY))
    assert (view(world).ready, view(world).counters.adopted) == (3, 2)


def test_what_is_found_costs_no_boot() -> None:
    world = after(*idle("old-1", "old-2"), size=3, service=ServicePolicy(boots_at_once=1))
    assert len(world.in_state(VmState.PRODUCING)) == 1


def test_what_is_too_much_goes() -> None:
    world = after(*idle("old-1", "old-2", "old-3"), size=1)
    world.run_undisturbed()
    assert view(world).ready == 1


def test_one_that_is_no_good_any_more_costs_no_back_off() -> None:
    """It says nothing about production."""
    world = after(*idle("old-1"))
    world.die("old-1")
    world.process()
    assert (view(world).producing, view(world).failures_in_a_row) == (1, 0)
    assert (view(world).counters.lost_idle, view(world).counters.production_failures) == (1, 0)
    world.run_undisturbed()
    assert view(world).ready == 1


def test_one_that_was_made_of_something_else_is_replaced() -> None:
    world = after(*idle("old-1"))
    world.run_undisturbed()
    world.change_generation("p")
    world.run_undisturbed()
    assert "old-1" not in world.living
    assert view(world).ready == 1


def test_who_asks_at_once_gets_what_was_found() -> None:
    world = after(*idle("old-1"))
    request = world.acquire("p", on_empty=OnEmpty.WAIT)
    world.run_undisturbed()
    assert granted(world, request).vm_id == "old-1"


def test_what_is_missing_is_produced_while_the_rest_is_looked_at() -> None:
    world = World({"p": PoolPolicy(size=8, production_limit=2)}, found=idle("old-1", "old-2", "old-3"))
    assert len(world.in_state(VmState.ADOPTING)) == 3
    assert len(world.in_state(VmState.PRODUCING)) == 2


def test_who_wants_to_boot_waits_for_what_was_found_and_boots_if_that_is_no_good() -> None:
    world = World({"p": PoolPolicy(size=1, max_vms=1)}, found=idle("old-1"))
    request = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    assert world.in_state(VmState.PRODUCING) == []
    world.die("old-1")
    world.run_undisturbed()
    assert granted(world, request).vm_id != "old-1"


# -- many idle VMs -------------------------------------------------------------------------------------------------

MANY = 1000
FEW = 4


def reached(world: World) -> set[str]:
    return set(world.in_state(VmState.ADOPTING)) - world.unreached


def test_few_are_reached_at_a_time_however_many_there_are() -> None:
    found = idle(*(f"old-{number}" for number in range(MANY)))
    world = World({"p": PoolPolicy(size=MANY)}, ServicePolicy(adoptions_at_once=FEW), found=found, only=())
    while world.in_state(VmState.ADOPTING):
        turn = reached(world)
        assert len(turn) == min(FEW, len(world.in_state(VmState.ADOPTING)))
        world.progress(turn.pop())
        world.process()
    assert (view(world).ready, view(world).counters.adopted) == (MANY, MANY)


def test_the_next_one_has_its_turn_when_one_is_no_good() -> None:
    world = after(*idle("old-1", "old-2"), size=2, service=ServicePolicy(adoptions_at_once=1))
    assert reached(world) == {"old-1"}
    world.die("old-1")
    world.process()
    assert reached(world) == {"old-2"}


def test_one_that_dies_before_its_turn_has_none() -> None:
    world = after(*idle("old-1", "old-2", "old-3"), size=3, service=ServicePolicy(adoptions_at_once=1))
    world.die("old-2")
    world.process()
    world.progress("old-1")
    world.process()
    assert reached(world) == {"old-3"}


def test_who_waits_for_a_vm_comes_first() -> None:
    world = World(
        {"p": PoolPolicy(size=2), "q": PoolPolicy(size=2)},
        ServicePolicy(adoptions_at_once=1),
        found=(*idle("p-1", "p-2"), *idle("q-1", "q-2", profile="q")),
    )
    request = world.acquire("q")
    world.process()
    world.progress("p-1")
    world.process()
    assert reached(world) == {"q-1"}
    world.progress("q-1")
    world.process()
    assert reached(world) == {"q-2"}, "none of its pool is ready, one of the other is"
    world.run_undisturbed()
    assert granted(world, request).vm_id == "q-1"


def test_the_agents_of_those_that_were_adopted_are_asked_in_turn() -> None:
    """Nobody has, and that one is there says nothing of its guest."""
    world = World(
        {"p": PoolPolicy(size=3, check_interval_s=60.0)},
        ServicePolicy(checks_at_once=1),
        found=idle("old-1", "old-2", "old-3"),
    )
    for vm_id in ("old-1", "old-2", "old-3"):
        world.progress(vm_id)
    world.process()
    assert len(world.checking) == 1
    world.run_undisturbed()
    assert [world.record.vms[vm_id].checks_ordered for vm_id in ("old-1", "old-2", "old-3")] == [1, 1, 1]


def test_one_whose_agent_does_not_answer_then_costs_no_back_off() -> None:
    world = World({"p": PoolPolicy(size=1, check_interval_s=60.0)}, found=idle("old-1"))
    world.progress("old-1")
    world.process()
    world.die("old-1")
    world.process()
    assert (view(world).producing, view(world).failures_in_a_row) == (1, 0)


def test_a_handover_keeps_those_whose_turn_has_not_come() -> None:
    world = after(*idle("old-1", "old-2", "old-3"), size=3, service=ServicePolicy(adoptions_at_once=1))
    world.hand_over()
    world.run_undisturbed()
    assert world.detached == {"old-1", "old-2", "old-3"}
    assert world.ledger.empty


def test_a_drain_ends_those_whose_turn_has_not_come() -> None:
    world = after(*idle("old-1", "old-2"), size=2, service=ServicePolicy(adoptions_at_once=1))
    world.shut_down()
    world.run_undisturbed()
    assert (world.ledger.empty, world.detached) == (True, set())


# -- leases --------------------------------------------------------------------------------------------------------


def test_a_lease_goes_on_as_if_nothing_had_happened() -> None:
    world = after(leased())
    world.run_undisturbed()
    assert world.living["old-leased"] is VmState.LEASED
    assert (view(world).leased, view(world).ready, view(world).counters.restored) == (1, 1, 1)
    release = world.release("old-lease", uid=1000)
    world.run_undisturbed()
    assert answered(world, release)
    assert "old-leased" not in world.living


def test_it_ends_when_it_was_to_end() -> None:
    world = after(leased(expires_at=5.0))
    world.advance(4.9)
    assert len(world.ledger.leases()) == 1
    world.advance(0.1)
    assert world.ledger.leases() == ()


def test_it_can_be_renewed() -> None:
    world = after(leased(expires_at=5.0))
    world.renew("old-lease", uid=1000, ttl_s=60.0)
    world.advance(59.9)
    assert len(world.ledger.leases()) == 1
    assert world.expiries == {"old-leased": 60.0}, "for the next run"
    world.advance(0.1)
    assert world.ledger.leases() == ()


def test_its_key_still_leads_to_it() -> None:
    world = after(leased(key="k"))
    request = world.acquire("p", key="k")
    world.run_undisturbed()
    assert granted(world, request).lease_id == "old-lease"
    assert view(world).leased == 1


def test_its_holder_comes_back_by_its_key_and_holds_it_as_before() -> None:
    """It was held open by a call, which ended with the earlier run; the lease waited for the next one."""
    world = after(leased(key="k", bound=True, expires_at=30.0))
    request = world.acquire("p", key="k", bound=True)
    world.process()
    world.process()
    assert granted(world, request).expires_at == math.inf
    world.advance(60.0)
    assert len(world.ledger.leases()) == 1
    world.return_undelivered(request)  # the call has ended
    world.process()
    assert world.ledger.leases() == ()


def test_who_comes_back_is_told_the_old_end_if_the_new_one_cannot_be_recorded() -> None:
    """A run of the service after this one would know of no other."""
    world = after(leased(key="k", bound=True, expires_at=30.0))
    world.disk_is_full = True
    request = world.acquire("p", key="k", bound=True)
    world.process()
    world.process()
    assert granted(world, request).expires_at == 30.0
    assert [lease.expires_at for lease in world.ledger.leases()] == [30.0]


def test_who_comes_back_to_a_lease_that_ends_meanwhile_gets_another() -> None:
    world = after(leased(key="k", bound=True, expires_at=30.0))
    request = world.acquire("p", key="k", bound=True)
    world.release("old-lease", uid=1000)
    world.run_undisturbed()
    assert granted(world, request).lease_id != "old-lease"


def test_who_comes_back_and_is_answered_too_late_has_it_no_longer() -> None:
    world = after(leased(key="k", bound=True, expires_at=30.0))
    request = world.acquire("p", key="k", bound=True, patience_s=1.0)
    world.process()
    world.stall(1.0)
    world.process()
    assert refused(world, request) is RefusalCode.DEADLINE
    assert world.ledger.leases() == ()


def test_who_comes_back_and_leaves_before_he_is_answered_has_it_no_longer() -> None:
    world = after(leased(key="k", bound=True, expires_at=30.0))
    request = world.acquire("p", key="k", bound=True)
    world.walk_away(request)
    world.run_undisturbed()
    assert not answered(world, request)
    assert world.ledger.leases() == ()


def test_who_does_not_come_back_has_it_no_longer() -> None:
    world = after(leased(key="k", bound=True, expires_at=30.0))
    world.advance(30.0)
    assert world.ledger.leases() == ()


def test_a_lease_of_a_profile_that_is_no_more_is_kept_all_the_same() -> None:
    world = after(leased(profile="was"))
    world.run_undisturbed()
    assert world.living["old-leased"] is VmState.LEASED
    assert [shown.name for shown in world.ledger.views(now=world.now)] == ["p"]
    world.release("old-lease", uid=1000)
    world.run_undisturbed()
    assert world.record.closed == ["was"]
    assert "old-leased" not in world.living


def test_leases_count_for_quota_and_budget() -> None:
    service = ServicePolicy(leases_per_uid=1, memory_budget_mib=1024)
    world = after(leased(memory_mib=1024), service=service)
    request = world.acquire("p", on_empty=OnEmpty.BOOT)
    world.run_undisturbed()
    assert refused(world, request) is RefusalCode.QUOTA
    assert view(world).ready == 0
    assert view(world).held_back == "1024 of 1024 MiB are taken, and a VM needs 256 MiB"


def test_a_leased_vm_that_died_meanwhile_ends_its_lease() -> None:
    world = after(leased())
    world.die("old-leased")
    release = world.release("old-lease", uid=1000)
    world.run_undisturbed()
    assert refused(world, release) is RefusalCode.LEASE_ENDED
    assert view(world).failures_in_a_row == 0
    assert (view(world).counters.restored, view(world).counters.lost_leased) == (0, 1)


def test_a_lease_that_is_released_before_its_vm_is_found_was_not_restored() -> None:
    world = after(leased())
    world.release("old-lease", uid=1000)
    world.run_undisturbed()
    assert view(world).counters.restored == 0


def test_nothing_is_booted_for_a_profile_that_is_no_more() -> None:
    world = after(leased(profile="was", key="k"))
    boots, knows_the_key = world.acquire("was", on_empty=OnEmpty.BOOT), world.acquire("was", key="k")
    world.process()
    assert refused(world, boots) is RefusalCode.UNKNOWN_PROFILE
    assert granted(world, knows_the_key).lease_id == "old-lease"


# -- the end of a run ----------------------------------------------------------------------------------------------


def test_a_handover_lets_go_of_idle_and_leased_vms_and_ends_the_rest() -> None:
    world = pool(size=2)
    lease = world.acquire("p")
    world.run_undisturbed()
    ready = set(world.in_state(VmState.READY))
    dirty, producing = world.acquire("p"), world.resize("p", 5)
    world.process()
    (on_its_way,) = world.in_state(VmState.HANDING_OUT)
    world.hand_over()
    world.process()
    assert answered(world, producing)
    assert world.detached == {granted(world, lease).vm_id, *ready} - {on_its_way}
    assert refused(world, dirty) is RefusalCode.SHUTTING_DOWN
    world.run_undisturbed()
    assert world.ledger.empty


def test_leases_are_not_ended_by_a_handover() -> None:
    world = pool()
    request = world.acquire("p")
    world.run_undisturbed()
    world.hand_over()
    world.run_undisturbed()
    assert granted(world, request).lease_id not in world.record.ended_leases


def test_a_drain_ends_everything() -> None:
    world = pool()
    request = world.acquire("p")
    world.run_undisturbed()
    world.shut_down()
    world.run_undisturbed()
    assert world.ledger.empty
    assert world.detached == set()
    assert world.record.ended_leases == [granted(world, request).lease_id]


def test_a_handover_after_a_drain_has_nothing_to_hand_over() -> None:
    world = pool()
    world.shut_down()
    world.hand_over()
    world.run_undisturbed()
    assert world.ledger.empty
    assert world.detached == set()


def test_who_asks_after_that_is_sent_away() -> None:
    world = pool()
    world.hand_over()
    request = world.acquire("p")
    world.process()
    assert refused(world, request) is RefusalCode.SHUTTING_DOWN
    assert world.ledger.next_wakeup() == math.inf


def test_who_has_a_lease_that_was_handed_over_is_sent_to_the_next_run() -> None:
    world = pool()
    request = world.acquire("p")
    world.run_undisturbed()
    lease = granted(world, request)
    world.hand_over()
    mine = [world.release(lease.lease_id, uid=1000), world.renew(lease.lease_id, uid=1000, ttl_s=60.0)]
    strangers = world.release(lease.lease_id, uid=1001)
    world.process()
    assert {refused(world, request) for request in mine} == {RefusalCode.SHUTTING_DOWN}
    assert refused(world, strangers) is RefusalCode.FOREIGN_LEASE
