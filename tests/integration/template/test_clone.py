"""Clones of a real template: alive, apart from each other, and gone when they are stopped."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import attrs
import psutil
import pytest
import trio

from tests import templates
from tests.agents import collect
from vmm.errors import BootError, SnapshotError, TemplateError, VmmError
from vmm.qemu.template.clone import load_clone, start_shell
from vmm.qemu.template.store import Template, TemplateStore
from vmm.qemu.vm import QemuVm
from vmm.spec import MachineSpec
from vmm.words.commands import CommandSpec
from vmm.words.preparation import Preparation

Cloner = Callable[[str], Awaitable[QemuVm]]


@pytest.fixture(autouse=True)
def _checked_for_leaks(template: Template, leak_check: None) -> None:
    pass


@pytest.fixture
async def clone(
    template_spec: MachineSpec, template: Template, vm_home: Path, nursery: trio.Nursery
) -> AsyncIterator[Cloner]:
    made: list[QemuVm] = []

    async def make(vm_id: str) -> QemuVm:
        with trio.fail_after(60):
            made.append(
                await templates.clone(template_spec, template, vm_id=vm_id, directory=vm_home / vm_id, nursery=nursery)
            )
        return made[-1]

    yield make
    for vm in made:
        await vm.stop()


async def shell_output(vm: QemuVm, script: str) -> bytes:
    with trio.fail_after(60):
        return (await collect(await vm.agent.start_command(CommandSpec(argv=["sh", "-c", script])))).stdout


async def test_clones_run_and_do_not_see_each_other(clone: Cloner) -> None:
    one, other = await clone("one"), await clone("other")

    await shell_output(one, "echo one > /tmp/mark")

    assert await shell_output(one, "cat /tmp/mark") == b"one\n"
    assert await shell_output(other, "cat /tmp/mark 2>&1; true") != b"one\n"


async def test_a_clone_leaves_the_template_as_it_is(clone: Cloner, template: Template) -> None:
    vm = await clone("writer")
    await shell_output(vm, "head -c 20000000 /dev/urandom > /tmp/data")

    template.check()
    assert TemplateStore(template.directory).open(fingerprint=template.fingerprint) == template


async def test_a_clone_shares_most_of_its_memory(clone: Cloner) -> None:
    """Proportional set size, against what the machine has: sharing is what a template is for."""
    vms = [await clone(f"clone-{number}") for number in range(4)]
    pss = [psutil.Process(vm.pid).memory_full_info().pss / 2**20 for vm in vms]
    assert max(pss) < 256 / 2, pss


async def test_qemu_runs_without_the_right_to_start_programs(clone: Cloner) -> None:
    vm = await clone("sandboxed")
    assert "spawn=deny" in " ".join(psutil.Process(vm.pid).cmdline())


async def test_a_state_that_is_none_is_an_error_at_once(
    template_spec: MachineSpec, template: Template, vm_home: Path, nursery: trio.Nursery
) -> None:
    store = TemplateStore(vm_home / "broken")
    _, state = store.begin(memory_mib=template_spec.memory_mib)
    state.write_bytes(b"no device state")
    broken = store.publish(fingerprint="broken")
    home = vm_home / "broken-vm"
    with trio.fail_after(20), pytest.raises((SnapshotError, BootError)) as caught:
        await start_shell(template_spec, template=broken, vm_id="broken-vm", directory=home, nursery=nursery)
    assert "QEMU's command line" in "".join(caught.value.__notes__)
    store.clear()


async def test_a_template_that_changed_is_not_cloned(
    template_spec: MachineSpec, template: Template, vm_home: Path, nursery: trio.Nursery
) -> None:
    stale = attrs.evolve(template, identities=((0, 0, 0, 0), (0, 0, 0, 0)))
    with pytest.raises(TemplateError, match="have changed"):
        await start_shell(template_spec, template=stale, vm_id="stale", directory=vm_home / "stale", nursery=nursery)


async def test_a_shell_that_is_killed_cannot_be_filled(
    template_spec: MachineSpec, template: Template, vm_home: Path, nursery: trio.Nursery
) -> None:
    shell = await start_shell(
        template_spec, template=template, vm_id="shell", directory=vm_home / "shell", nursery=nursery
    )
    shell.process.send_signal(signal.SIGKILL)
    await shell.process.wait_exited()
    with trio.fail_after(20), pytest.raises(VmmError):
        await load_clone(shell, template=template, nursery=nursery)


async def test_the_guests_clock_and_hostname_are_set_after_a_clone(clone: Cloner) -> None:
    vm = await clone("named")
    report = await vm.agent.prepare(Preparation(hostname="named", wall_clock_ns=1_900_000_000 * 10**9))
    assert report.hostname == "named"
    assert report.wall_clock_ns >= 1_900_000_000 * 10**9


async def test_a_build_that_is_cancelled_leaves_nothing(template_spec: MachineSpec, vm_home: Path) -> None:
    store = TemplateStore(vm_home / "template")
    with trio.move_on_after(0.5):
        await templates.build(template_spec, store, home=vm_home)
    assert not store.directory.exists()
