"""A machine that is given more CPUs and memory than it started with, seen from inside."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.contract.subjects import MAX_MEMORY_MIB, MAX_VCPUS
from tests.contract.test_guest import run
from vmm.contract import Vm
from vmm.errors import HotplugError
from vmm.words.preparation import Preparation, PreparationReport


async def cpus(vm: Vm) -> int:
    return int((await run(vm.agent, "nproc")).stdout)


async def mem_total_mib(vm: Vm) -> int:
    lines = (await run(vm.agent, "cat", "/proc/meminfo")).stdout.decode().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:")) // 1024


async def shape(vm: Vm, *, vcpus: int, memory_mib: int) -> PreparationReport:
    with trio.fail_after(60):
        return await vm.agent.prepare(Preparation(vcpus=vcpus, memory_mib=memory_mib))


async def test_a_paused_vm_grows_and_has_it_all_when_it_has_answered(fresh_vm: Vm) -> None:
    before = await mem_total_mib(fresh_vm)
    await fresh_vm.pause()
    await fresh_vm.grow(vcpus=3, memory_mib=1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fresh_vm.resume)
        report = await shape(fresh_vm, vcpus=3, memory_mib=1024)
    assert (report.cpus_online, report.memory_online_mib) == (3, 1024)
    assert await cpus(fresh_vm) == 3
    assert await mem_total_mib(fresh_vm) == report.memory_mib
    assert before < 256 < 256 + 512 < report.memory_mib <= 1024


async def test_a_vm_grows_again_and_never_shrinks(fresh_vm: Vm) -> None:
    for wanted, added, there in (
        ((2, 300), (1, 128), (2, 384)),
        ((1, 64), (0, 0), (2, 384)),
        ((0, 0), (0, 0), (2, 384)),
        ((2, 512), (0, 128), (2, 512)),
        ((3, 512), (1, 0), (3, 512)),
    ):
        growth = await fresh_vm.grow(vcpus=wanted[0], memory_mib=wanted[1])
        assert (growth.vcpus, growth.memory_mib) == added
        report = await shape(fresh_vm, vcpus=there[0], memory_mib=there[1])
        assert (report.cpus_online, report.memory_online_mib) == there
    assert await cpus(fresh_vm) == 3


async def test_what_is_plugged_in_after_the_request_is_waited_for(fresh_vm: Vm) -> None:
    reports: list[PreparationReport] = []

    async def prepare() -> None:
        reports.append(await shape(fresh_vm, vcpus=2, memory_mib=384))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(prepare)
        await trio.testing.wait_all_tasks_blocked()
        await fresh_vm.agent.ping()
        assert reports == []
        await fresh_vm.grow(vcpus=2, memory_mib=384)
    assert (reports[0].cpus_online, reports[0].memory_online_mib) == (2, 384)


@pytest.mark.parametrize(
    ("vcpus", "memory_mib", "limit"),
    [
        (MAX_VCPUS + 1, 256, f"maximum .* is {MAX_VCPUS}"),
        (1, MAX_MEMORY_MIB + 1, f"maximum .* is {MAX_MEMORY_MIB} MiB"),
        (MAX_VCPUS + 1, MAX_MEMORY_MIB, "vCPUs"),
        (MAX_VCPUS, MAX_MEMORY_MIB * 2, "memory"),
    ],
)
async def test_more_than_the_maximum_adds_nothing(vm: Vm, vcpus: int, memory_mib: int, limit: str) -> None:
    with pytest.raises(HotplugError, match=limit):
        await vm.grow(vcpus=vcpus, memory_mib=memory_mib)
    report = await shape(vm, vcpus=1, memory_mib=256)
    assert (report.cpus_online, report.memory_online_mib) == (1, 256)
    assert await cpus(vm) == 1


async def test_what_is_there_already_needs_no_waiting_and_changes_nothing(vm: Vm) -> None:
    report = await shape(vm, vcpus=1, memory_mib=1)
    assert (report.cpus_online, report.memory_online_mib) == (1, 256)
