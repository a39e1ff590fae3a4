"""What one user may have, and how much one caller may wish for."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from pool.ledger.demand import AdaptiveSize
from pool.ledger.effects import RefusalCode
from pool.ledger.policy import OnEmpty, PoolPolicy, ServicePolicy
from tests.properties.ledger.world import World
from tests.unit.ledger.told import answered, granted, refusal, refused, view
from vmm.words.life import VmState


def limited(
    *,
    leases_per_uid: float = 2,
    requests_per_uid: float = 2,
    requests: float = math.inf,
    size: int = 3,
    full: bool = True,
    **policy: Any,
) -> World:
    world = World(
        {"p": PoolPolicy(size=size, **policy)},
        ServicePolicy(leases_per_uid=leases_per_uid, requests_per_uid=requests_per_uid, requests=requests),
    )
    if full:
        world.run_undisturbed()
    return world


# -- VMs of one user -----------------------------------------------------------------------------------------------


def test_one_user_gets_so_many_vms_and_no_more() -> None:
    world = limited()
    for _ in range(2):
        world.acquire("p", uid=1)
        world.run_undisturbed()
    third = world.acquire("p", uid=1)
    world.run_undisturbed()
    assert refused(world, third) is RefusalCode.QUOTA
    assert "release one, or raise limits.leases_per_user" in refusal(world, third).message


def test_what_one_user_has_is_no_matter_to_another() -> None:
    world = limited(leases_per_uid=1)
    first, second = world.acquire("p", uid=1), world.acquire("p", uid=2)
    world.run_undisturbed()
    assert granted(world, first) != granted(world, second)


def test_root_has_no_more_than_others() -> None:
    world = limited(leases_per_uid=0)
    request = world.acquire("p", uid=0)
    world.process()
    assert refused(world, request) is RefusalCode.QUOTA


def test_who_still_waits_for_a_vm_is_counted_as_if_he_had_it() -> None:
    """Or whoever asks for many at once would get them all."""
    world = limited(leases_per_uid=1, full=False)
    first, second = world.acquire("p", uid=1), world.acquire("p", uid=1)
    world.run_undisturbed()
    assert granted(world, first)
    assert refused(world, second) is RefusalCode.QUOTA


@pytest.mark.parametrize("how", ["released", "expired", "died", "abandoned"])
def test_a_lease_that_has_ended_counts_no_more(how: str) -> None:
    world = limited(leases_per_uid=1)
    first = world.acquire("p", uid=1, ttl_s=5.0)
    world.process()
    for vm_id in world.busy():
        world.progress(vm_id)
    world.process()
    lease = granted(world, first)
    match how:
        case "released":
            world.release(lease.lease_id, uid=1)
        case "expired":
            world.advance(5.0)
        case "died":
            world.die(lease.vm_id)
        case _:
            world.return_undelivered(first)
    second = world.acquire("p", uid=1)
    world.run_undisturbed()
    assert granted(world, second)


def test_who_stopped_waiting_counts_no_more() -> None:
    world = limited(leases_per_uid=1, full=False)
    world.walk_away(world.acquire("p", uid=1))
    second = world.acquire("p", uid=1)
    world.run_undisturbed()
    assert granted(world, second)


def test_asking_again_with_the_same_key_is_not_asking_for_another() -> None:
    world = limited(leases_per_uid=1)
    first = world.acquire("p", uid=1, key="k")
    world.run_undisturbed()
    second = world.acquire("p", uid=1, key="k")
    world.run_undisturbed()
    assert granted(world, first) == granted(world, second)


# -- requests that wait --------------------------------------------------------------------------------------------


def test_so_many_requests_of_one_user_wait_and_no_more() -> None:
    world = limited(leases_per_uid=9, full=False)
    requests = [world.acquire("p", uid=1) for _ in range(3)]
    others = world.acquire("p", uid=2)
    world.process()
    assert [answered(world, request) for request in requests] == [False, False, True]
    assert refused(world, requests[2]) is RefusalCode.QUOTA
    assert "try again later" in refusal(world, requests[2]).message
    assert not answered(world, others)


def test_retries_with_one_key_wait_each_for_themselves() -> None:
    """They are one claim, but each of them is a connection that is kept."""
    world = limited(full=False)
    requests = [world.acquire("p", uid=1, key="k") for _ in range(3)]
    world.process()
    assert refused(world, requests[2]) is RefusalCode.QUOTA


def test_answered_requests_wait_no_longer() -> None:
    world = limited(requests_per_uid=1, leases_per_uid=9)
    for _ in range(3):
        request = world.acquire("p", uid=1)
        world.run_undisturbed()
        assert granted(world, request)


def test_who_finds_a_vm_ready_does_not_wait_and_is_not_refused_for_those_who_do() -> None:
    """Whoever they are, he himself among them; and what is on its way to somebody waits no longer."""
    policies = {"slow": PoolPolicy(size=1), "p": PoolPolicy(size=3, production_limit=3)}
    world = World(policies, ServicePolicy(requests_per_uid=1, requests=2))
    world.process()
    for vm_id in [vm_id for vm_id, vm in world.record.vms.items() if vm.profile == "p"]:
        world.progress(vm_id)
    world.process()
    slow = [world.acquire("slow", uid=uid) for uid in (1, 2)]
    at_once = [world.acquire("p", uid=uid) for uid in (1, 1, 3)]
    world.process()
    for vm_id in world.in_state(VmState.HANDING_OUT):
        world.progress(vm_id)
    world.process()
    assert not any(answered(world, request) for request in slow)
    assert [granted(world, request).terms.was_ready for request in at_once] == [True] * 3


def test_nobody_may_have_more_requests_waiting_than_are_left_for_others() -> None:
    world = limited(leases_per_uid=99, requests_per_uid=99, requests=9, full=False)
    requests = {uid: [world.acquire("p", uid=uid) for _ in range(9)] for uid in (1, 2, 3, 4)}
    world.process()
    waiting = {uid: sum(not answered(world, request) for request in asked) for uid, asked in requests.items()}
    assert waiting == {1: 5, 2: 2, 3: 1, 4: 1}
    assert refused(world, requests[1][-1]) is RefusalCode.CROWDED
    assert refusal(world, requests[1][-1]).message == (
        "5 requests are already waiting, 5 of them from user 1; one user may have at most as many as remain for "
        "others; try again later, or raise limits.max_open_requests"
    )


def test_as_many_users_have_all_of_theirs_as_there_is_room_for_and_one_more() -> None:
    """As the defaults have it: room for ten, which nine may fill with theirs."""
    world = limited(leases_per_uid=99, requests_per_uid=5, requests=50, full=False)
    for uid in range(1, 11):
        for _ in range(6):
            world.acquire("p", uid=uid)
    world.process()
    waiting = Counter(claim.owner.uid for claim in world.ledger._moves.claims.all())
    assert [waiting[uid] for uid in range(1, 11)] == [5] * 9 + [3]


def test_a_request_that_would_not_wait_is_told_that_nothing_is_ready() -> None:
    world = limited(requests_per_uid=1, full=False)
    world.acquire("p", uid=1)
    request = world.acquire("p", uid=1, on_empty=OnEmpty.FAIL)
    world.process()
    assert refused(world, request) is RefusalCode.NOTHING_READY


# -- wishes --------------------------------------------------------------------------------------------------------


def test_a_wish_beyond_the_maximum_is_refused_with_the_maximum() -> None:
    world = limited(max_vcpus=2, max_memory_mib=1024)
    many_vcpus, much_memory = world.acquire("p", vcpus=4), world.acquire("p", memory_mib=2048)
    world.process()
    assert refused(world, many_vcpus) is refused(world, much_memory) is RefusalCode.OVER_MAXIMUM
    assert refusal(world, many_vcpus).message.startswith("vcpus: 4 exceeds the maximum of profile p (2)")
    assert refusal(world, much_memory).message.startswith("memory_mib: 2048 exceeds the maximum of profile p (1024)")


@pytest.mark.parametrize(
    ("memory_mib", "sizes"),
    [(512, "192, 320, 448"), (320 + 127, "192, 320"), (2048, "192, 320, ..., 1984")],
)
def test_memory_that_no_step_leads_to_is_refused_with_what_can_be_had(memory_mib: int, sizes: str) -> None:
    world = limited(memory_mib=192, max_memory_mib=memory_mib)
    request = world.acquire("p", memory_mib=memory_mib - 1)
    world.process()
    assert refused(world, request) is RefusalCode.OVER_MAXIMUM
    assert refusal(world, request).message == (
        f"memory_mib: {memory_mib - 1} is not available; memory is added in blocks of 128 MiB, "
        f"so a VM of profile p can have {sizes} MiB; "
        "request one of these, or raise max_memory_mib"
    )
    assert view(world).ready == 3


@pytest.mark.parametrize("memory_mib", [1, 192, 193, 320, 448])
def test_memory_that_a_step_leads_to_is_handed_out(memory_mib: int) -> None:
    world = limited(memory_mib=192, max_memory_mib=512)
    request = world.acquire("p", memory_mib=memory_mib)
    world.run_undisturbed()
    assert granted(world, request)


def test_who_is_refused_costs_the_pool_nothing() -> None:
    world = limited(leases_per_uid=0)
    world.acquire("p", on_empty=OnEmpty.BOOT)
    world.process()
    assert (view(world).ready, view(world).producing, view(world).waiting) == (3, 0, 0)
    assert view(world).counters.refused == 1


def test_who_is_refused_is_neither_hit_nor_miss_nor_demand() -> None:
    adaptive = AdaptiveSize(minimum=1, maximum=8)
    world = World({"p": PoolPolicy(size=1, adaptive=adaptive)}, ServicePolicy(leases_per_uid=0))
    world.run_undisturbed()
    for _ in range(8):
        world.acquire("p")
    world.process()
    counters = view(world).counters
    assert (counters.hits, counters.misses, counters.refused) == (0, 0, 8)
    assert view(world).size == 1
