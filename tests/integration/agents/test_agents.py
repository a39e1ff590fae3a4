"""Guests with qemu-ga, and guests with nothing, on real QEMU."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from actors.handout import HandOutProcedure
from actors.parking import check
from actors.uniqueness import Witness
from tests.agents import collect
from tests.contract.subjects import BOOT_LIMIT_S, qemu_spec
from tests.templates import build, clone, template_store
from vmm.devices.usual import usual_devices
from vmm.errors import AgentRequestError, AgentUnreachableError, BootError, TemplateError, VmExitedError
from vmm.initramfs.image import GuestImage
from vmm.qemu.adopt import adopt
from vmm.qemu.launch import launch
from vmm.qemu.template.store import Template, TemplateStore
from vmm.spec import MachineSpec
from vmm.words.commands import CommandExit, CommandSpec
from vmm.words.machines import AgentKind
from vmm.words.preparation import Preparation
from vmm.words.processes import BootStage
from vmm.words.wishes import Wishes

pytestmark = pytest.mark.qemu


@pytest.fixture(autouse=True)
def _checked_for_leaks(qga_template: Template, leak_check: None) -> None:
    pass


@pytest.fixture
def store() -> Iterator[TemplateStore]:
    with template_store() as store:
        yield store


def spec_of(image: GuestImage, agent: AgentKind) -> MachineSpec:
    return attrs.evolve(qemu_spec(image.kernel, image.initrd), devices=usual_devices(agent=agent))


async def test_clones_of_a_guest_with_qemu_ga_are_handed_out_unlike_each_other(
    qga_spec: MachineSpec, qga_template: Template, vm_home: Path, nursery: trio.Nursery
) -> None:
    procedure = HandOutProcedure(witness=Witness())
    for name in ("one", "two"):
        with trio.fail_after(BOOT_LIMIT_S):
            vm = await clone(qga_spec, qga_template, vm_id=name, directory=vm_home / name, nursery=nursery)
        try:
            await vm.pause()
            report, _ = await procedure.run(vm, Wishes(vcpus=2, memory_mib=512))  # raises if it shows what one showed
            assert (report.reseeded, report.hostname, report.vm_uuid) == (True, name, vm.uuid)
            assert (report.cpus_online, report.memory_online_mib) == (2, 512)
            await vm.agent.put_file("/root/secret", b"key", mode=0o600)
            listing = await collect(await vm.agent.start_command(CommandSpec(argv=["ls", "-l", "/root"])))
            assert b"-rw-------" in listing.stdout
            assert listing.stdout.count(b"secret") == 1, "nothing is left beside it"
        finally:
            await vm.stop()


async def test_qemu_ga_runs_commands_side_by_side_and_its_kill_reaches_them(
    qga_image: GuestImage, vm_home: Path, nursery: trio.Nursery
) -> None:
    with trio.fail_after(BOOT_LIMIT_S):
        spec = spec_of(qga_image, AgentKind.QGA)
        vm = await launch(spec, vm_id="vm", directory=vm_home / "vm", nursery=nursery)
    try:
        long = await vm.agent.start_command(CommandSpec(argv=["sleep", "1000"]))
        short = await collect(await vm.agent.start_command(CommandSpec(argv=["sh", "-c", "echo here; exit 7"])))
        assert (short.stdout, short.exit) == (b"here\n", CommandExit(status=7))
        await long.aclose()
        gone = await collect(
            await vm.agent.start_command(
                CommandSpec(argv=["sh", "-c", "while pidof sleep; do :; done"], time_limit_s=60)
            )
        )
        assert gone.exit == CommandExit(status=0)
    finally:
        await vm.stop()


async def test_a_guest_with_qemu_ga_is_adopted_with_its_environment_and_without_its_commands(
    qga_image: GuestImage, vm_home: Path, nursery: trio.Nursery
) -> None:
    with trio.fail_after(BOOT_LIMIT_S):
        spec = spec_of(qga_image, AgentKind.QGA)
        first = await launch(spec, vm_id="vm", directory=vm_home / "vm", nursery=nursery)
        await first.agent.prepare(Preparation(environment={"SHAPE": "round"}))
        await first.agent.start_command(CommandSpec(argv=["sleep", "1000"]))
        await first.detach()
        vm = await (await adopt(first.identity, vm_id="vm", directory=vm_home / "vm")).connect(nursery=nursery)
    try:
        await vm.pause()
        await check(vm)
        assert not (await vm.instance.execute("query-status"))["running"]
        await vm.resume()
        seen = await collect(await vm.agent.start_command(CommandSpec(argv=["sh", "-c", "echo $SHAPE; pidof sleep"])))
        assert (seen.stdout, seen.exit) == (b"round\n", CommandExit(status=1))
    finally:
        await vm.stop()


async def test_a_guest_without_an_agent_is_adopted_and_checked_from_outside(
    qga_image: GuestImage, vm_home: Path, nursery: trio.Nursery
) -> None:
    with trio.fail_after(BOOT_LIMIT_S):
        spec = spec_of(qga_image, AgentKind.NOOP)
        first = await launch(spec, vm_id="vm", directory=vm_home / "vm", nursery=nursery)
        await first.pause()
        await first.detach()
        vm = await (await adopt(first.identity, vm_id="vm", directory=vm_home / "vm")).connect(nursery=nursery)
    try:
        assert (await vm.instance.execute("query-status"))["running"]
        await vm.pause()
        await check(vm)
        assert not (await vm.instance.execute("query-status"))["running"]
        os.kill(vm.pid, signal.SIGKILL)
        with pytest.raises(VmExitedError):
            await check(vm)
        with pytest.raises(AgentUnreachableError):
            await vm.agent.ping()
    finally:
        await vm.stop()


async def test_a_guest_without_an_agent_is_handed_out_as_it_is(
    qga_image: GuestImage, vm_home: Path, nursery: trio.Nursery
) -> None:
    with trio.fail_after(BOOT_LIMIT_S):
        spec = spec_of(qga_image, AgentKind.NOOP)
        vm = await launch(spec, vm_id="vm", directory=vm_home / "vm", nursery=nursery)
    try:
        await vm.pause()
        report, _ = await HandOutProcedure().run(vm, Wishes())
        assert not report.reseeded
        assert (await vm.instance.execute("query-status"))["running"]
        assert not any("virtserialport" in argument for argument in vm.instance.argv)
        with pytest.raises(AgentRequestError, match='agent = "noop"'):
            await vm.agent.start_command(CommandSpec(argv=["true"]))
    finally:
        await vm.stop()


async def test_a_guest_without_an_agent_that_dies_while_it_boots_is_no_vm(
    qga_image: GuestImage, vm_home: Path, nursery: trio.Nursery
) -> None:
    spec = attrs.evolve(spec_of(qga_image, AgentKind.NOOP), kernel_parameters="rdinit=/absent root=/dev/absent")
    with pytest.raises(BootError) as caught, trio.fail_after(BOOT_LIMIT_S):
        await launch(spec, vm_id="vm", directory=vm_home / "vm", nursery=nursery)
    assert caught.value.stage is BootStage.GUEST
    assert any("Kernel panic" in note for note in caught.value.__notes__)


async def test_there_is_no_template_of_a_guest_that_nobody_can_reseed(
    qga_image: GuestImage, store: TemplateStore, vm_home: Path
) -> None:
    with pytest.raises(TemplateError, match="cannot be reseeded"):
        await build(spec_of(qga_image, AgentKind.NOOP), store, home=vm_home)
    assert not store.directory.exists()
