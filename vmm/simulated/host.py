"""Simulated VMs: the contract of real ones, under trio's clock, with faults on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio

from vmm.contract import ExitReport
from vmm.errors import BootError
from vmm.simulated.agent import SimulatedAgent
from vmm.simulated.faults import BootFails, BootHangs, Fault, FaultPlan, Moment, StopIsSlow, no_faults
from vmm.simulated.machine import Machine, Power, simulated_uuid
from vmm.spec import MachineSpec


class SimulatedVm:
    """A VM without a process. Fulfils `vmm.contract.Vm`; `crash` and `mute` are for tests."""

    def __init__(self, machine: Machine, host: SimulatedHost) -> None:
        self.machine = machine
        self._agent = SimulatedAgent(machine)
        self._host = host
        self._stopping = trio.Lock()

    @property
    def id(self) -> str:
        return self.machine.vm_id

    @property
    def uuid(self) -> str:
        return simulated_uuid(self.id)

    @property
    def pid(self) -> int:
        return 0

    @property
    def agent(self) -> SimulatedAgent:
        return self._agent

    async def pause(self) -> None:
        await trio.lowlevel.checkpoint()
        self.machine.power(Power.PAUSED)

    async def resume(self) -> None:
        await trio.lowlevel.checkpoint()
        self.machine.power(Power.RUNNING)

    async def grow(self, *, vcpus: int, memory_mib: int) -> None:
        await trio.lowlevel.checkpoint()
        self.machine.grow(vcpus=vcpus, memory_mib=memory_mib)

    async def wait_exited(self) -> ExitReport:
        await trio.lowlevel.checkpoint()
        await self.machine.state.wait_value(lambda state: state.power is Power.DEAD)
        return self._exit_report

    async def stop(self) -> ExitReport:
        """See the contract. Afterwards the host does not know the VM any more."""
        with trio.CancelScope(shield=True):
            async with self._stopping:
                if self.id in self._host.alive:
                    for fault in self.machine.faults:
                        if isinstance(fault, StopIsSlow):
                            await trio.sleep(fault.delay_s)
                    self.machine.exit(ExitReport(status=0))
                    self._host.forget(self.id)
        return self._exit_report

    def crash(self, report: ExitReport) -> None:
        """The process dies now."""
        self.machine.exit(report)

    def mute(self) -> None:
        """The agent answers nothing from now on."""
        self.machine.mute()

    @property
    def _exit_report(self) -> ExitReport:
        assert self.machine.exit_report is not None, "the machine is dead"
        return self.machine.exit_report


class SimulatedHost:
    """A host for simulated VMs. `launch` has the signature of `vmm.qemu.launch.launch`."""

    def __init__(self, *, boot_s: float = 0.0, faults: FaultPlan = no_faults) -> None:
        self._boot_s = boot_s
        self._faults = faults
        self._alive: set[str] = set()
        self._launched = 0

    @property
    def alive(self) -> frozenset[str]:
        """The VMs that were launched and are not stopped; those booting and those that died by themselves included."""
        return frozenset(self._alive)

    @property
    def launched(self) -> int:
        """How many launches there were, failed ones included."""
        return self._launched

    async def launch(
        self,
        spec: MachineSpec,
        *,
        vm_id: str,
        directory: Path,  # noqa: ARG002 - as for a real VM; a simulated one has nothing on disk
        nursery: trio.Nursery,
        boot_s: float | None = None,
    ) -> SimulatedVm:
        """Boots for `boot_s`, or the host's, and returns the VM running and ready, unless the faults want it otherwise.

        Raises BootError. On error and cancellation nothing is left. The caller must `stop` the VM.
        """
        if vm_id in self._alive:
            raise ValueError(f"there is a VM {vm_id} already")
        faults = tuple(self._faults(self._launched))
        self._launched += 1
        self._alive.add(vm_id)
        try:
            await self._boot(faults, boot_s=self._boot_s if boot_s is None else boot_s)
        except BaseException:
            self.forget(vm_id)
            raise
        machine = Machine(spec, vm_id=vm_id, faults=faults, nursery=nursery)
        machine.reach(Moment.READY)
        return SimulatedVm(machine, self)

    async def _boot(self, faults: Sequence[Fault], *, boot_s: float) -> None:
        for fault in faults:
            match fault:
                case BootHangs():
                    await trio.sleep_forever()
                case BootFails(stage=stage, reason=reason, after_s=after_s):
                    await trio.sleep(after_s)
                    raise BootError(stage=stage, reason=reason)
        await trio.sleep(boot_s)

    def remember(self, vm_id: str) -> None:
        """For a shell or a template: it is started."""
        self._alive.add(vm_id)

    def forget(self, vm_id: str) -> None:
        """For a VM, a shell or a template: it is stopped."""
        self._alive.discard(vm_id)
