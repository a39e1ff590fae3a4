"""The built-in agent over vsock, on hosts that can: real QEMU, real vhost-vsock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import psutil
import pytest
import trio

from tests.agents import collect
from tests.contract.subjects import BOOT_LIMIT_S, qemu_spec
from tests.templates import template_store
from vmm.devices.links import vsock_cid
from vmm.devices.usual import usual_devices
from vmm.devices.vsock import VHOST_VSOCK, VSOCK_PARAMETER, connect_vsock
from vmm.errors import AgentUnreachableError, VmExitedError
from vmm.guest.client import AgentClient
from vmm.initramfs.image import GuestImage
from vmm.qemu.adopt import adopt
from vmm.qemu.confinement import UNCONFINED, Confinement
from vmm.qemu.confinement.user import decide_user
from vmm.qemu.launch import launch
from vmm.qemu.template.clone import build_template, load_clone, start_shell
from vmm.qemu.template.fingerprint import fingerprint
from vmm.qemu.template.store import TemplateStore
from vmm.qemu.version import detect_version
from vmm.spec import MachineSpec
from vmm.words.commands import CommandExit, CommandSpec
from vmm.words.machines import AgentChannel, AgentKind
from vmm.words.preparation import Preparation

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.timeout(1800),  # in a VM that is itself emulated, a boot takes a minute
    pytest.mark.skipif(not os.access(VHOST_VSOCK, os.W_OK), reason=f"there is no {VHOST_VSOCK}: modprobe vhost_vsock"),
]

NESTED_BOOT_LIMIT_S = 5 * BOOT_LIMIT_S


@pytest.fixture(autouse=True)
def _checked_for_leaks(leak_check: None) -> None:
    pass


@pytest.fixture
def spec(guest_image: GuestImage) -> MachineSpec:
    return attrs.evolve(
        qemu_spec(guest_image.kernel, guest_image.initrd), devices=usual_devices(channel=AgentChannel.VSOCK)
    )


@pytest.fixture
def store() -> Iterator[TemplateStore]:
    with template_store() as store:
        yield store


@pytest.fixture
def confinement() -> Confinement:
    """For root: QEMU is nobody, who has the device by the descriptor that it inherits, and may not open it."""
    return Confinement(user=decide_user("nobody", euid=0).user) if os.geteuid() == 0 else UNCONFINED


async def test_a_vm_is_used_over_vsock_by_one_host_after_the_other(
    spec: MachineSpec, vm_home: Path, confinement: Confinement, nursery: trio.Nursery
) -> None:
    where = {"vm_id": "vm", "directory": vm_home / "vm"}
    with trio.fail_after(NESTED_BOOT_LIMIT_S):
        vm = await launch(spec, **where, nursery=nursery, confinement=confinement)  # type: ignore[arg-type]
    try:
        assert vsock_cid(vm.instance.argv) is not None
        if confinement.user is not None:
            assert psutil.Process(vm.pid).uids().effective == confinement.user.uid
        await vm.agent.prepare(Preparation(environment={"SHAPE": "round"}))
        data = os.urandom(500_000)
        await vm.agent.put_file("/tmp/file", data)
        assert await vm.agent.get_file("/tmp/file") == data
        left = await vm.agent.start_command(CommandSpec(argv=["sleep", "1000"]))
        identity = vm.identity
        await vm.detach()
        with trio.fail_after(NESTED_BOOT_LIMIT_S):
            vm = await (await adopt(identity, **where)).connect(nursery=nursery)  # type: ignore[arg-type]
        command = await vm.agent.start_command(CommandSpec(argv=["sh", "-c", "echo $SHAPE; pidof sleep"]))
        outcome = await collect(command)
        assert (outcome.stdout, outcome.exit) == (b"round\n", CommandExit(status=1)), "what the first host left is gone"
        await left.aclose()
    finally:
        await vm.stop()
    with pytest.raises((AgentUnreachableError, VmExitedError)):
        await vm.agent.ping()


async def test_clones_have_cids_of_their_own(
    spec: MachineSpec, store: TemplateStore, vm_home: Path, nursery: trio.Nursery
) -> None:
    with trio.fail_after(NESTED_BOOT_LIMIT_S):
        template = await build_template(
            spec,
            store=store,
            fingerprint=await fingerprint(spec, qemu_version=await detect_version(spec.qemu)),
            vm_id="template",
            directory=vm_home / "template-vm",
        )
    vms = []
    try:
        for name in ("one", "two"):
            shell = await start_shell(spec, template=template, vm_id=name, directory=vm_home / name, nursery=nursery)
            with trio.fail_after(NESTED_BOOT_LIMIT_S):
                vms.append(await load_clone(shell, template=template, nursery=nursery))
        for vm in vms:
            report = await vm.agent.prepare(Preparation(entropy=os.urandom(512), hostname=vm.id))
            assert (report.reseeded, report.hostname) == (True, vm.id)
        cids = {vsock_cid(vm.instance.argv) for vm in vms}
        assert len(cids) == 2
    finally:
        for vm in vms:
            await vm.stop()


async def test_an_agent_that_is_others_is_left_to_them(spec: MachineSpec, vm_home: Path, nursery: trio.Nursery) -> None:
    """The guest listens all the same, as Kata's does; vmpool has given it the device, and asks nobody."""
    spec = attrs.evolve(
        spec, devices=usual_devices(agent=AgentKind.NOOP, channel=AgentChannel.VSOCK), kernel_parameters=VSOCK_PARAMETER
    )
    with trio.fail_after(NESTED_BOOT_LIMIT_S):
        vm = await launch(spec, vm_id="vm", directory=vm_home / "vm", nursery=nursery)
    try:
        cid = vsock_cid(vm.instance.argv)
        assert vm.instance.agent_link.agent is AgentKind.NOOP
        assert cid is not None
        assert not (await vm.agent.prepare(Preparation())).was_seen
        with trio.fail_after(NESTED_BOOT_LIMIT_S):
            stream = await connect_vsock(cid, gone=vm.wait_exited)
            others = await AgentClient.connect(stream, nursery=nursery)
        await others.aclose()
    finally:
        await vm.stop()
