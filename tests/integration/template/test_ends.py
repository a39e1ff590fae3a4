"""Why a VM has ended, as QEMU and the guest's kernel say it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from actors.clock import HostClock
from actors.turns import Turns
from actors.vigil import Vigil
from tests.contract.subjects import BOOT_LIMIT_S
from tests.templates import clone
from vmm.errors import AgentUnreachableError, VmSilentError
from vmm.qemu.template.store import Template
from vmm.spec import MachineSpec
from vmm.words.commands import CommandSpec
from vmm.words.processes import ExitReport

NO_MEMORY = "echo 1 > /proc/sys/vm/panic_on_oom; python3 -c 'x = [bytes([1]) * 2**20 for _ in range(1000)]'"


async def end(template: Template, spec: MachineSpec, home: Path, script: str) -> ExitReport:
    """What becomes of a clone in which a shell does this."""
    report: ExitReport | None = None
    async with trio.open_nursery() as nursery:
        with trio.fail_after(BOOT_LIMIT_S):
            vm = await clone(spec, template, vm_id="vm", directory=home / "vm", nursery=nursery)
            try:
                command = await vm.agent.start_command(CommandSpec(argv=["sh", "-c", script]))
                with pytest.raises(AgentUnreachableError):
                    async for _ in command.events():
                        if "host" in script:
                            os.kill(vm.pid, signal.SIGTERM)
                report = await vm.wait_exited()
            finally:
                await vm.stop()
        nursery.cancel_scope.cancel()
    assert report is not None
    return report


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("poweroff -f; sleep 60", "its guest powered off"),
        ("poweroff; sleep 60", "its guest powered off"),
        ("halt; sleep 60", "its guest powered off"),
        ("reboot; sleep 60", "its guest was reset"),
        ("echo c > /proc/sysrq-trigger", "its guest's kernel panicked: sysrq triggered crash"),
        (NO_MEMORY, "its guest ran out of memory, and its kernel panicked: "),
        ("echo the host ends it; sleep 60", "a signal on the host asked it to end"),
    ],
)
async def test_the_end_of_a_vm_has_a_cause(
    template: Template, template_spec: MachineSpec, vm_home: Path, script: str, cause: str
) -> None:
    report = await end(template, template_spec, vm_home, script)
    assert report.cause.startswith(cause)
    assert "(exit status 0)" in str(report)
    assert ("Call Trace" in report.console_tail) is ("panicked" in cause)


async def test_a_qemu_that_was_stopped_is_told_from_a_guest_that_was(
    template: Template, template_spec: MachineSpec, vm_home: Path, nursery: trio.Nursery
) -> None:
    vigil = Vigil(interval_s=0.1, silence_limit_s=0.1, answer_limit_s=1.0)
    told: list[str] = []
    with trio.fail_after(BOOT_LIMIT_S):
        vm = await clone(template_spec, template, vm_id="vm", directory=vm_home / "vm", nursery=nursery)
        try:
            assert await vm.run_state() == "running"
            await vm.pause()
            with trio.move_on_after(5.0):
                await vigil.keep(vm, turns=Turns(at_once=1), host_clock=HostClock(), tell=told.append)
            os.kill(vm.pid, signal.SIGSTOP)
            with pytest.raises(VmSilentError, match="neither QEMU nor its guest has answered 3 checks"):
                await vigil.keep(vm, turns=Turns(at_once=1), host_clock=HostClock(), tell=told.append)
            os.kill(vm.pid, signal.SIGCONT)
            assert await vm.run_state() == "paused"
            os.kill(vm.pid, signal.SIGSTOP)
        finally:
            await vm.stop()
    assert told == ["its guest has not answered 3 checks in a row; QEMU reports paused"]


@pytest.mark.parametrize(
    ("script", "cause"), [("poweroff", "its guest powered off"), ("reboot", "its guest was reset")]
)
async def test_the_guest_with_qemu_ga_obeys_too(
    qga_template: Template, qga_spec: MachineSpec, vm_home: Path, script: str, cause: str
) -> None:
    assert (await end(qga_template, qga_spec, vm_home, f"{script}; sleep 60")).cause == cause
