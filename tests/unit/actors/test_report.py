"""What a guest says of its hand-out is held against what was asked for, and against what a machine can have at all."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from tests.unit.actors.stage import OneVm, Wrapped, paused_vm, story, wanting
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.simulated import SimulatedHost
from vmm.words.facts import Obstacle, VmHandedOut, VmLost, VmReady, WishRefused
from vmm.words.preparation import Preparation, PreparationReport


def saying(host: SimulatedHost, **lies: Any) -> OneVm:
    """A VM whose guest does what it is asked, and says something else."""

    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery)

        async def prepare(preparation: Preparation) -> PreparationReport:
            return attrs.evolve(await vm.agent.prepare(preparation), **lies)

        return Wrapped(vm, agent=Wrapped(vm.agent, prepare=prepare))

    return OneVm(answer=answer)


@pytest.mark.parametrize(
    ("wishes", "lies", "reason"),
    [
        ({"vcpus": 1}, {"cpus_online": 0}, "asked for 1 CPUs and reports success with 0"),
        ({"memory_mib": 256}, {"memory_online_mib": 255}, "asked for 256 MiB of memory .* with 255"),
        ({"memory_mib": 256}, {"memory_online_mib": None}, "asked for 256 MiB of memory .* with None"),
        ({}, {"cpus_online": -1}, "impossible cpus_online: -1"),
        ({}, {"cpus_online": True}, "impossible cpus_online: True"),
        ({}, {"cpus_online": 2**62}, "impossible cpus_online: .*"),
        ({}, {"memory_mib": 2**32}, "impossible memory_mib: .*"),
        ({}, {"memory_online_mib": -1}, "impossible memory_online_mib: -1"),
        ({}, {"wall_clock_ns": -1}, "impossible wall_clock_ns: -1"),
        ({}, {"wall_clock_ns": 2**63}, "impossible wall_clock_ns: .*"),
        ({}, {"hostname": "x" * 65}, "an invalid hostname: 'x{64}...'"),
        ({}, {"hostname": "\ud800"}, "an invalid hostname"),
        ({}, {"machine_id": "x" * 100_000}, "an invalid machine_id"),
        ({}, {"vm_uuid": b"bytes"}, "an invalid vm_uuid"),
    ],
)
@in_virtual_time
async def test_a_guest_that_says_what_cannot_be_is_not_handed_out(
    wishes: dict[str, Any], lies: dict[str, Any], reason: str
) -> None:
    host = SimulatedHost()
    async with story(producer=saying(host, **lies)) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(**wishes))
        lost = await one.until(VmLost)
        assert isinstance(lost, VmLost)
        assert lost.reason.startswith("the guest ")
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(lost.reason)
        assert "runtime directory" not in lost.reason, "that is the host's"
        assert len(lost.reason) < 200
    assert "VmHandedOut" not in one.kinds()


@in_virtual_time
async def test_a_guest_that_keeps_its_name_does_not_have_the_one_that_was_wished_for() -> None:
    host = SimulatedHost()
    async with story(producer=saying(host, hostname="debian")) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(hostname="mine"))
        refused = await one.until(WishRefused)
        assert isinstance(refused, WishRefused)
        assert (refused.field, refused.obstacle) == ("hostname", Obstacle.UNABLE)
        assert refused.reason == "the guest's hostname is still 'debian'"
        one.actor.stop("its caller's wish was refused")


@pytest.mark.parametrize(
    "lies",
    [
        {"hostname": "debian"},
        {"cpus_online": 0, "memory_mib": 0, "wall_clock_ns": 0, "hostname": ""},
        {"cpus_online": 4, "memory_mib": 2**20},
    ],
)
@in_virtual_time
async def test_what_nobody_asked_for_may_be_as_it_is(lies: dict[str, Any]) -> None:
    """Without an agent nobody looks."""
    host = SimulatedHost()
    async with story(producer=saying(host, **lies)) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting())
        await one.until(VmHandedOut)
        one.actor.stop("enough")
