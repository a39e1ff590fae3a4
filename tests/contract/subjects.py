"""The implementations of the VM contract, and how tests look at them from outside."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Protocol

import psutil
import trio

from tests.templates import clone
from vmm.contract import Vm
from vmm.qemu.adopt import adopt
from vmm.qemu.launch import launch
from vmm.qemu.template.store import Template
from vmm.qemu.vm import QemuVm
from vmm.simulated import SimulatedHost, SimulatedVm
from vmm.spec import MachineSpec
from vmm.words.commands import CommandSpec
from vmm.words.machines import Accelerator
from vmm.words.processes import ExitReport, ProcessIdentity

BOOT_LIMIT_S = 120.0
"""Far more than a boot under emulation takes on a busy machine; a test that reaches it has failed."""

MAX_VCPUS = 3
MAX_MEMORY_MIB = 1024
"""What the machines may be grown to; they start with 1 CPU and 256 MiB."""

_STDIN = "qemu-ga accepts stdin only when it starts a command"
_CONNECTIONS = "qemu-ga carries no connections"
_PROCESS = "is about QEMU's process, which is the same whatever agent the guest has"

_MORE = "qemu-ga refuses it by its name"

NOT_OVER_QGA = {
    "test_a_process_is_listed_while_it_runs_and_after_its_end": _MORE,
    "test_numbers_go_up_and_are_not_used_again": _MORE,
    "test_a_command_is_listed_as_its_callers": _MORE,
    "test_who_comes_later_gets_what_was_kept_and_what_follows": _MORE,
    "test_a_process_does_not_wait_for_readers_and_the_gap_is_told": _MORE,
    "test_a_mebibyte_is_kept_unless_less_is_asked_for": _MORE,
    "test_of_running_processes_one_has_a_tag": _MORE,
    "test_what_is_not_there_is_refused": _MORE,
    "test_what_a_running_process_does_not_have_is_refused": _MORE,
    "test_a_wait_that_is_given_up_leaves_the_process_alone": _MORE,
    "test_processes_survive_the_service": _MORE,
    "test_a_user_finds_its_home": _MORE,
    "test_what_the_guest_does_not_have_is_refused_by_its_part": _MORE,
    "test_a_terminal_has_the_size_that_it_was_given": _MORE,
    "test_a_terminal_can_be_resized_by_each_of_its_holders": _MORE,
    "test_stdin_goes_in_whole_until_it_is_closed": _STDIN,
    "test_stdin_of_a_command_that_does_not_read_is_ignored_once_it_ended": _STDIN + "; later, it is refused always",
    "test_commands_run_side_by_side": _STDIN,
    "test_a_command_continues_after_a_pause": _STDIN,
    "test_a_flood_of_output_waits_for_its_reader_and_ends_with_its_command": "qemu-ga gives output when a command ends",
    "test_a_server_in_the_guest_is_reached": _CONNECTIONS,
    "test_several_connections_do_not_mix": _CONNECTIONS,
    "test_where_nobody_listens": _CONNECTIONS,
    "test_a_server_is_waited_for": _CONNECTIONS,
    "test_a_program_in_the_guest_connects": _CONNECTIONS,
    "test_what_is_open_when_the_vm_dies": _CONNECTIONS,
    "test_usage_is_of_the_guest": "qemu-ga has no such request",
    "test_the_clock_is_set_and_read": "qemu-ga sets the clock, and does not tell it with a ping",
    "test_pausing_and_resuming_twice_is_pausing_and_resuming_once": _PROCESS,
    "test_stop_leaves_nothing_and_may_be_repeated": _PROCESS,
    "test_stop_of_a_paused_vm_by_several_tasks": _PROCESS,
    "test_stop_runs_to_its_end_under_cancellation": _PROCESS,
    "test_a_cancelled_launch_leaves_nothing": _PROCESS,
    "test_more_than_the_maximum_adds_nothing": _PROCESS,
}
"""Tests of the contract that are not for a guest with qemu-ga, and why."""


MODULES_NOT_OVER_QGA = {"tests.contract.test_files": "qemu-ga has no such requests"}
"""As NOT_OVER_QGA, whole modules."""


class Subject(Protocol):
    async def launch(self, vm_id: str, nursery: trio.Nursery) -> Vm:
        """A new VM, which the caller stops."""

    async def clone(self, vm_id: str, nursery: trio.Nursery) -> Vm:
        """One that was had for less, where that is possible. The caller stops it."""

    async def borrow(self, nursery: trio.Nursery) -> Vm:
        """A VM for a test that leaves it as it was."""

    async def give_back(self, vm: Vm) -> None:
        """The end of a loan."""

    async def change_hands(self, vm: Vm, nursery: trio.Nursery) -> Vm:
        """The VM, as the next service adopts it."""

    def exists(self, vm_id: str) -> bool:
        """Whether there is anything of this VM: a process, a directory."""

    async def write_to_console(self, vm: Vm, text: str) -> None:
        """The guest does."""

    def kill(self, vm: Vm) -> None:
        """The process dies of SIGKILL, of which the service knows nothing."""


class SimulatedSubject:
    def __init__(self, spec: MachineSpec) -> None:
        self._spec = spec
        self._host = SimulatedHost(boot_s=0.05)

    async def launch(self, vm_id: str, nursery: trio.Nursery) -> SimulatedVm:
        return await self._host.launch(self._spec, vm_id=vm_id, directory=Path("/nowhere"), nursery=nursery)

    async def clone(self, vm_id: str, nursery: trio.Nursery) -> SimulatedVm:
        return await self.launch(vm_id, nursery)

    async def borrow(self, nursery: trio.Nursery) -> SimulatedVm:
        return await self.launch("borrowed", nursery)

    async def give_back(self, vm: Vm) -> None:
        await vm.stop()

    async def change_hands(self, vm: Vm, nursery: trio.Nursery) -> SimulatedVm:
        identity = vm.identity
        await vm.detach()
        survivor = await self._host.adopt(identity, vm_id=vm.id, directory=Path("/nowhere"))
        return await survivor.connect(nursery=nursery)

    def exists(self, vm_id: str) -> bool:
        return vm_id in self._host.alive

    async def write_to_console(self, vm: Vm, text: str) -> None:
        assert isinstance(vm, SimulatedVm)
        vm.machine.console += text.encode()

    def kill(self, vm: Vm) -> None:
        assert isinstance(vm, SimulatedVm)
        vm.crash(ExitReport(signal=signal.SIGKILL))


class QemuSubject:
    """Boots one VM for all tests that leave it as it was; each adopts it as a restarted service would."""

    def __init__(self, spec: MachineSpec, template: Template) -> None:
        self._spec = spec
        self._template = template
        self._home = Path(tempfile.mkdtemp(prefix="vmpool-"))
        self._shared: ProcessIdentity = trio.run(self._boot_shared)

    async def launch(self, vm_id: str, nursery: trio.Nursery) -> QemuVm:
        return await launch(self._spec, vm_id=vm_id, directory=self._home / vm_id, nursery=nursery)

    async def clone(self, vm_id: str, nursery: trio.Nursery) -> QemuVm:
        return await clone(self._spec, self._template, vm_id=vm_id, directory=self._home / vm_id, nursery=nursery)

    async def borrow(self, nursery: trio.Nursery) -> QemuVm:
        survivor = await adopt(self._shared, vm_id="shared", directory=self._home / "shared")
        return await survivor.connect(nursery=nursery)

    async def give_back(self, vm: Vm) -> None:
        assert isinstance(vm, QemuVm)
        with trio.CancelScope(shield=True):
            await self._let_go_of(vm)

    async def change_hands(self, vm: Vm, nursery: trio.Nursery) -> QemuVm:
        identity = vm.identity
        await vm.detach()
        survivor = await adopt(identity, vm_id=vm.id, directory=self._home / vm.id)
        return await survivor.connect(nursery=nursery)

    def exists(self, vm_id: str) -> bool:
        commands = (process.cmdline() for process in psutil.Process().children())
        named = any(argument.startswith(f"guest={vm_id},") for command in commands for argument in command)
        return named or (self._home / vm_id).exists()

    async def write_to_console(self, vm: Vm, text: str) -> None:
        command = await vm.agent.start_command(
            CommandSpec(argv=("sh", "-c", f"printf {shlex.quote(text)} >/dev/ttyS0"))
        )
        try:
            async for _event in command.events():
                pass
        finally:
            await command.aclose()

    def kill(self, vm: Vm) -> None:
        os.kill(vm.pid, signal.SIGKILL)

    def close(self) -> None:
        trio.run(self._stop_shared)
        shutil.rmtree(self._home)

    async def _boot_shared(self) -> ProcessIdentity:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(BOOT_LIMIT_S):
                vm = await self.launch("shared", nursery)
            await self._let_go_of(vm)
        return vm.identity

    @staticmethod
    async def _let_go_of(vm: QemuVm) -> None:
        """Paused: an idle guest is not idle for the host, for as long as the tests run."""
        await vm.pause()
        await vm.detach()

    async def _stop_shared(self) -> None:
        async with trio.open_nursery() as nursery:
            await (await self.borrow(nursery)).stop()


def qemu_spec(kernel: Path, initrd: Path) -> MachineSpec:
    """A small machine under emulation, with room to grow."""
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu is not None, "install QEMU: apt-get install qemu-system-x86"
    return MachineSpec(
        qemu=Path(qemu),
        kernel=kernel,
        initrd=initrd,
        accelerator=Accelerator.TCG,
        max_vcpus=MAX_VCPUS,
        max_memory_mib=MAX_MEMORY_MIB,
    )
