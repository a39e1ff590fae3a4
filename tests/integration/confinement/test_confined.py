"""Real VMs, confined: what their processes may do, seen from outside, and that nothing of the cage is left."""

from __future__ import annotations

import os
import secrets
import signal
from pathlib import Path

import attrs
import psutil
import pytest
import trio

from tests.contract.subjects import BOOT_LIMIT_S, MAX_MEMORY_MIB, MAX_VCPUS
from vmm.qemu.adopt import adopt
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.limits import limits_for
from vmm.qemu.confinement.plan import CgroupVersion, Controller
from vmm.qemu.confinement.record import host_memory_bytes
from vmm.qemu.instance import Instance
from vmm.qemu.launch import launch
from vmm.qemu.orphans import end_orphan, find_orphans
from vmm.qemu.template.clone import build_template, load_clone, start_shell
from vmm.qemu.template.store import TemplateStore
from vmm.spec import MachineSpec
from vmm.words.confinement import UidRange
from vmm.words.preparation import Preparation

VM, TEMPLATE = (f"{name}-{secrets.token_hex(4)}" for name in ("vm", "template"))
"""Other runs of these tests have the same cgroups above theirs."""

NO_CAPABILITY = "0000000000000000"


@pytest.fixture(autouse=True)
def _checked_for_leaks(leak_check: None) -> None:
    pass


def assert_unprivileged(pid: int) -> None:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    facts = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert facts["Uid"] == facts["Gid"], "a group of its own, too"
    assert len(set(facts["Uid"])) == 1
    assert int(facts["Uid"][0]) in UidRange()
    assert facts["Groups"] == []
    assert [facts[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [[NO_CAPABILITY]] * 5
    assert facts["NoNewPrivs"] == ["1"]


def assert_held(instance: Instance, confinement: Confinement) -> None:
    """The process is in its group under each controller, and the group has its limits."""
    directories = {place: place / f"vmpool-{instance.vm_id}" for place in confinement.cgroups.places.values()}
    assert set(instance.group.directories) == set(directories.values())
    for directory in directories.values():
        assert (directory / "cgroup.procs").read_text().split() == [str(instance.process.pid)]
    membership = Path(f"/proc/{instance.process.pid}/cgroup").read_text()
    for controller in confinement.cgroups.places:
        line = next(line for line in membership.splitlines() if controller.value in line.split(":")[1].split(","))
        assert line.endswith(f"/vmpool-{instance.vm_id}")


async def abandoned(spec: MachineSpec, home: Path, confinement: Confinement) -> Instance:
    """A QEMU that nobody looks after, as if its service had been killed."""
    instance = Instance.start(spec, vm_id=VM, directory=home / VM, confinement=confinement)
    async with trio.open_nursery() as nursery:
        await instance.connect_qmp(nursery=nursery)
        await instance.detach()
    return instance


async def test_a_booted_vm_is_confined_grows_and_leaves_no_cgroup(
    spec: MachineSpec, vm_home: Path, confinement: Confinement, nursery: trio.Nursery
) -> None:
    with trio.fail_after(BOOT_LIMIT_S):
        vm = await launch(spec, vm_id=VM, directory=vm_home / VM, nursery=nursery, confinement=confinement)
        try:
            assert_unprivileged(vm.pid)
            assert_held(vm.instance, confinement)
            await vm.grow(vcpus=MAX_VCPUS, memory_mib=MAX_MEMORY_MIB)
            report = await vm.agent.prepare(Preparation(vcpus=MAX_VCPUS, memory_mib=MAX_MEMORY_MIB))
            assert (report.cpus_online, report.memory_online_mib) == (MAX_VCPUS, MAX_MEMORY_MIB)
            assert (vm.directory / "console.log").exists()
        finally:
            await vm.stop()
    assert not any(directory.exists() for directory in vm.instance.group.directories)


async def test_the_limits_are_those_of_the_machine(spec: MachineSpec, vm_home: Path, confinement: Confinement) -> None:
    if confinement.cgroups.version is not CgroupVersion.V1 or len(confinement.cgroups.places) < len(Controller):
        pytest.skip("this host has not all controllers under version 1")
    image_bytes = spec.kernel.stat().st_size + spec.initrd.stat().st_size
    limits = limits_for(spec, image_bytes=image_bytes, host_memory_bytes=host_memory_bytes())
    instance = Instance.start(spec, vm_id=VM, directory=vm_home / VM, confinement=confinement)
    try:

        def read(controller: Controller, file: str) -> int:
            return int((confinement.cgroups.places[controller] / f"vmpool-{VM}" / file).read_text())

        page = os.sysconf("SC_PAGE_SIZE")
        assert read(Controller.MEMORY, "memory.limit_in_bytes") == limits.memory_bytes // page * page
        assert read(Controller.CPU, "cpu.cfs_quota_us") == limits.cpus * read(Controller.CPU, "cpu.cfs_period_us")
        assert read(Controller.PIDS, "pids.max") == limits.processes
    finally:
        await instance.kill()


async def test_a_template_is_built_and_cloned_by_an_unprivileged_qemu(
    spec: MachineSpec, vm_home: Path, confinement: Confinement, nursery: trio.Nursery
) -> None:
    store = TemplateStore(vm_home / "templates" / "t")
    with trio.fail_after(2 * BOOT_LIMIT_S):
        template = await build_template(
            spec,
            store=store,
            fingerprint="f",
            vm_id=TEMPLATE,
            directory=vm_home / TEMPLATE,
            confinement=confinement,
        )
        assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in (template.memory, template.state)} == {
            (0, 0o400)
        }, "the user of QEMU has no part in a template that is published"
        shell = await start_shell(
            spec, template=template, vm_id=VM, directory=vm_home / VM, nursery=nursery, confinement=confinement
        )
        vm = await load_clone(shell, template=template, nursery=nursery)
        try:
            assert_unprivileged(vm.pid)
            assert_held(vm.instance, confinement)
            await vm.grow(vcpus=2, memory_mib=512)
            assert (await vm.agent.prepare(Preparation(vcpus=2, memory_mib=512))).cpus_online == 2
        finally:
            await vm.stop()
    store.clear()
    store.directory.parent.rmdir()


async def test_what_a_killed_service_left_is_ended_with_its_cgroup(
    spec: MachineSpec, vm_home: Path, confinement: Confinement
) -> None:
    instance = await abandoned(spec, vm_home, confinement)
    [orphan] = find_orphans(vm_home)
    assert [identity.pid for identity in orphan.processes] == [instance.process.pid]
    await end_orphan(orphan)
    assert not psutil.pid_exists(instance.process.pid)
    assert not any(directory.exists() for directory in instance.group.directories)


async def test_a_process_that_hides_its_command_line_is_found_by_its_cgroup(
    spec: MachineSpec, vm_home: Path, confinement: Confinement
) -> None:
    instance = await abandoned(spec, vm_home, confinement)
    [orphan] = find_orphans(vm_home)
    await end_orphan(attrs.evolve(orphan, processes=()))
    ended = await trio.to_thread.run_sync(os.waitid, os.P_PID, instance.process.pid, os.WEXITED)
    assert ended is not None
    assert ended.si_status == signal.SIGKILL


async def test_a_cgroup_that_nothing_is_in_any_more_is_removed_at_the_next_start(
    spec: MachineSpec, vm_home: Path, confinement: Confinement
) -> None:
    home = vm_home / VM
    home.mkdir()
    group = confinement.make_group(spec, name=VM, record=home / "cgroups")
    assert all(directory.exists() for directory in group.directories)
    [orphan] = find_orphans(vm_home)
    await end_orphan(orphan)
    assert not any(directory.exists() for directory in group.directories)


async def test_a_vm_that_is_taken_over_keeps_its_cgroup_until_its_end(
    spec: MachineSpec, vm_home: Path, confinement: Confinement, nursery: trio.Nursery
) -> None:
    with trio.fail_after(BOOT_LIMIT_S):
        first = await launch(spec, vm_id=VM, directory=vm_home / VM, nursery=nursery, confinement=confinement)
        await first.detach()
        survivor = await adopt(first.identity, vm_id=VM, directory=vm_home / VM)
        vm = await survivor.connect(nursery=nursery)
        assert_held(vm.instance, confinement)
        await vm.stop()
    assert not any(directory.exists() for directory in vm.instance.group.directories)
