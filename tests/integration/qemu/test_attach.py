"""Taking over a QEMU that somebody else started and let go of."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import trio

from tests.templates import clone
from vmm.errors import AttachError
from vmm.qemu.attach import attach
from vmm.qemu.process import command_line_of
from vmm.qemu.template.store import Template
from vmm.qemu.vm import QemuVm
from vmm.spec import MachineSpec
from vmm.words.machines import AgentKind
from vmm.words.preparation import Preparation

BOOT_LIMIT_S = 120.0

VM_ID = f"vm-{secrets.token_hex(4)}"
"""Its UUID is made of it, and looked for on the whole host."""

pytestmark = pytest.mark.usefixtures("template", "leak_check")


@pytest.fixture
async def given(
    template_spec: MachineSpec, template: Template, vm_home: Path, nursery: trio.Nursery
) -> AsyncIterator[QemuVm]:
    """A clone, paused, with nobody connected to it. Its maker only watches it."""
    with trio.fail_after(BOOT_LIMIT_S):
        vm = await clone(template_spec, template, vm_id=VM_ID, directory=vm_home / VM_ID, nursery=nursery)
    await vm.pause()
    await vm.disconnect()
    yield vm
    await vm.stop()


async def test_it_is_paused_runs_when_resumed_and_can_be_asked_and_ended(given: QemuVm, nursery: trio.Nursery) -> None:
    vm = await attach(vm_id=VM_ID, directory=given.directory, uuid=given.uuid, nursery=nursery)
    assert (vm.pid, vm.uuid, vm.identity) == (given.pid, given.uuid, given.identity)
    assert (await vm.instance.execute("query-status"))["status"] == "paused"
    await vm.resume()
    assert (await vm.instance.execute("query-status"))["status"] == "running"
    with trio.fail_after(BOOT_LIMIT_S):
        assert (await vm.agent.ping()).kernel_release
    await vm.agent.put_file("/tmp/file", b"contents")
    assert await vm.agent.get_file("/tmp/file") == b"contents"
    await vm.pause()
    await vm.stop()
    assert not psutil.pid_exists(given.pid)
    assert not given.directory.exists()


async def test_it_can_be_let_go_of_again(given: QemuVm, nursery: trio.Nursery) -> None:
    for _ in range(2):
        vm = await attach(vm_id=VM_ID, directory=given.directory, uuid=given.uuid, nursery=nursery)
        await vm.detach()
    assert psutil.pid_exists(given.pid)


async def test_nobody_is_asked_in_the_guest_of_one_that_vmpool_did_not_start(
    given: QemuVm, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command line does not say that its console is in the directory, as those of Kata's servers do not."""
    monkeypatch.setattr("vmm.qemu.attach.command_line_of", lambda pid: [*command_line_of(pid), "changed"])
    monkeypatch.setattr("vmm.qemu.instance.names_console", lambda argv, _console: argv[-1] != "changed")
    vm = await attach(vm_id=VM_ID, directory=given.directory, uuid=given.uuid, nursery=nursery)
    assert vm.instance.agent_link.agent is AgentKind.NOOP
    await vm.resume()
    assert not (await vm.agent.prepare(Preparation(entropy=b"x"))).was_seen
    await vm.detach()


async def test_one_that_does_not_answer_is_ended_when_it_is_given_up(given: QemuVm, nursery: trio.Nursery) -> None:
    """Another client has its QMP."""
    async with await trio.open_unix_socket(given.directory / "qmp.sock") as other:
        assert b"QMP" in await other.receive_some()
        with trio.move_on_after(0.2) as limit:
            await attach(vm_id=VM_ID, directory=given.directory, uuid=given.uuid, nursery=nursery)
    assert limit.cancelled_caught
    await given.wait_exited()
    assert not psutil.pid_exists(given.pid)
    assert not given.directory.exists()


async def test_one_that_is_another_than_it_was_said_is_left_alone(given: QemuVm, nursery: trio.Nursery) -> None:
    other = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    with pytest.raises(AttachError, match=f"no processes have -uuid {other}"):
        await attach(vm_id=VM_ID, directory=given.directory, uuid=other, nursery=nursery)
    assert psutil.pid_exists(given.pid)
