"""A wish that is refused: it is said whose it was, and the VM is nobody's until its end is ordered."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from actors.handout import HAND_OUT_TIMEOUT_S
from tests.unit.actors.stage import SPEC, OneVm, Wrapped, one_vm, paused_vm, story, wanting
from tests.virtual_time import in_virtual_time
from vmm.contract import Vm
from vmm.errors import HotplugError, VmExitedError
from vmm.simulated import Fault, FilesFail, PrepareFails, SimulatedHost, scripted
from vmm.words.facts import Obstacle, VmHandedOut, VmLost, VmReady, WishRefused
from vmm.words.life import VmState
from vmm.words.processes import ExitReport
from vmm.words.wishes import GuestFile

FILE = GuestFile(path="/tmp/file", data=b"x")
GROWING = attrs.evolve(SPEC, max_vcpus=2, max_memory_mib=512)
GROWTH: dict[str, Any] = {"vcpus": 2, "memory_mib": 384}
"""More than it has, each."""


def host_with(*faults: Fault) -> SimulatedHost:
    """Its VM is not rehearsed, or it would be found out before."""
    return SimulatedHost(faults=scripted({0: faults}))


@pytest.mark.parametrize(
    ("wishes", "faults", "field", "obstacle"),
    [
        ({"files": (FILE, GuestFile(path="/nope/x", data=b""))}, (), "files[1].path", Obstacle.REQUEST),
        ({"files": (FILE,)}, (FilesFail(code="ENOSPC"),), "files[0].data", Obstacle.EXHAUSTED),
        ({"files": (FILE,)}, (FilesFail(code="EIO"),), "files[0].path", Obstacle.UNABLE),
        ({"hostname": "name"}, (PrepareFails(part="hostname"),), "hostname", Obstacle.REQUEST),
        (
            {"environment": {"A": "b"}},
            (PrepareFails(part="environment", code="ENOSPC"),),
            "environment",
            Obstacle.EXHAUSTED,
        ),
        ({"vcpus": 1}, (PrepareFails(part="vcpus", code="ETIMEDOUT"),), "vcpus", Obstacle.UNABLE),
        ({"memory_mib": 256}, (PrepareFails(part="memory_mib", code="UNSUPPORTED"),), "memory_mib", Obstacle.UNABLE),
        ({"memory_mib": 4096}, (), "memory_mib", Obstacle.EXHAUSTED),
    ],
)
@in_virtual_time
async def test_a_wish_that_is_refused(
    wishes: dict[str, Any], faults: tuple[Fault, ...], field: str, obstacle: Obstacle
) -> None:
    async with story(producer=one_vm(host_with(*faults))) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(**wishes))
        refused = await one.until(WishRefused)
        assert isinstance(refused, WishRefused)
        assert (refused.vm_id, refused.field, refused.obstacle) == ("vm-1", field, obstacle)
        assert one.actor.state is VmState.HANDING_OUT
        assert one.recorded() is None
        one.actor.stop("its caller's wish was refused")
    assert one.kinds() == ["VmReady", "WishRefused", "VmGone"]


@pytest.mark.parametrize("part", ["", "hostname"])
@in_virtual_time
async def test_what_nobody_wished_for_is_the_vms_fault(part: str) -> None:
    """Every hand-out gives a name."""
    async with story(producer=one_vm(host_with(PrepareFails(part=part)))) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(vcpus=1))
        await one.until(VmLost)
    assert one.kinds() == ["VmReady", "VmLost", "VmGone"]


@in_virtual_time
async def test_a_vm_that_dies_of_a_wish_is_lost_and_no_wish_refused() -> None:
    host = SimulatedHost()

    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery)

        async def prepare(_: object) -> None:
            raise VmExitedError(vm_id="vm-1", reason="killed")

        return Wrapped(vm, agent=Wrapped(vm.agent, prepare=prepare))

    async with story(producer=OneVm(answer=answer)) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(hostname="name"))
        await one.until(VmLost)
    assert "WishRefused" not in one.kinds()


@in_virtual_time
async def test_what_qemu_does_not_add_is_a_wish_refused() -> None:
    host = SimulatedHost()

    async def answer(nursery: trio.Nursery) -> Vm:
        async def grow(**_: int) -> None:
            raise HotplugError(field="memory_mib", what="128 MiB of memory", reason="Cannot allocate memory")

        return Wrapped(await paused_vm(host, nursery), grow=grow)

    async with story(producer=OneVm(answer=answer)) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(memory_mib=384))
        refused = await one.until(WishRefused)
        assert isinstance(refused, WishRefused)
        assert (refused.field, refused.obstacle) == ("memory_mib", Obstacle.EXHAUSTED)
        assert "Cannot allocate memory" in refused.reason
        one.actor.stop("its caller's wish was refused")


@in_virtual_time
async def test_a_vm_that_dies_before_its_end_is_ordered() -> None:
    async with story() as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(files=(GuestFile(path="/nope/x", data=b""),)))
        await one.until(WishRefused)
        one.host.machine("vm-1").exit(ExitReport(signal=9))
    assert one.kinds() == ["VmReady", "WishRefused", "VmLost", "VmGone"]


@in_virtual_time
async def test_each_file_has_its_own_time() -> None:
    host = SimulatedHost()

    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery)

        async def put_file(*_: object, **__: object) -> None:
            await trio.sleep(HAND_OUT_TIMEOUT_S * 0.9)

        return Wrapped(vm, agent=Wrapped(vm.agent, put_file=put_file))

    async with story(producer=OneVm(answer=answer)) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(files=(FILE,) * 5))
        await one.until(VmHandedOut)
        one.actor.stop("enough")


@pytest.mark.parametrize("mute", [False, True])
@pytest.mark.parametrize("what", ["memory_mib", "vcpus", "files[1].data"])
@in_virtual_time
async def test_a_wish_that_takes_too_long_is_refused_if_the_guest_is_there(what: str, mute: bool) -> None:
    """A guest that does not answer either is broken, and another one may do it."""
    host = SimulatedHost()

    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery, spec=GROWING)

        async def go_on_for_ever(*_: object, **__: object) -> None:
            if mute:
                vm.mute()
            await trio.sleep_forever()

        async def put_file(path: str, *_: object, **__: object) -> None:
            if path == "/slow":
                await go_on_for_ever()

        slow = {"put_file": put_file} if what.startswith("files") else {"prepare": go_on_for_ever}
        return Wrapped(vm, agent=Wrapped(vm.agent, **slow))

    slow_file = {"files": (FILE, GuestFile(path="/slow", data=b""))}
    wishes: dict[str, Any] = slow_file if what.startswith("files") else {what: GROWTH[what]}
    async with story(producer=OneVm(answer=answer)) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(**wishes))
        if mute:
            await one.until(VmLost)
        else:
            refused = await one.until(WishRefused)
            assert isinstance(refused, WishRefused)
            assert (refused.field, refused.obstacle) == (what, Obstacle.UNABLE)
            one.actor.stop("its caller's wish was refused")
    assert ("WishRefused" in one.kinds()) is not mute


@pytest.mark.parametrize("is_prepared", [False, True])
@pytest.mark.parametrize("what", ["memory_mib", "vcpus"])
@in_virtual_time
async def test_a_qemu_that_does_not_say_that_its_guest_runs_is_no_fault_of_a_growth(
    what: str, is_prepared: bool
) -> None:
    """Its guest may answer all the same."""
    host = SimulatedHost()

    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery, spec=GROWING)

        async def resume() -> None:
            await vm.resume()
            await trio.sleep_forever()

        async def prepare(*_: object) -> None:
            await trio.sleep_forever()

        agent = vm.agent if is_prepared else Wrapped(vm.agent, prepare=prepare)
        return Wrapped(vm, agent=agent, resume=resume)

    async with story(producer=OneVm(answer=answer)) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(**{what: GROWTH[what]}))
        await one.until(VmLost)
    assert "WishRefused" not in one.kinds()


@pytest.mark.parametrize(("wishes", "blamed"), [({"vcpus": 1}, ""), ({"vcpus": 2, "memory_mib": 256}, "vcpus")])
@in_virtual_time
async def test_a_wish_of_what_the_vm_has_takes_no_time(wishes: dict[str, int], blamed: str) -> None:
    host = SimulatedHost()

    async def answer(nursery: trio.Nursery) -> Vm:
        vm = await paused_vm(host, nursery, spec=GROWING)

        async def prepare(*_: object) -> None:
            await trio.sleep_forever()

        return Wrapped(vm, agent=Wrapped(vm.agent, prepare=prepare))

    async with story(producer=OneVm(answer=answer)) as one:
        await one.until(VmReady)
        one.actor.hand_out(wanting(**wishes))
        if blamed:
            refused = await one.until(WishRefused)
            assert isinstance(refused, WishRefused)
            assert refused.field == blamed
            one.actor.stop("its caller's wish was refused")
        else:
            await one.until(VmLost)
    assert ("WishRefused" in one.kinds()) is bool(blamed)
