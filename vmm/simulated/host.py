"""Simulated VMs: the contract of real ones, under trio's clock, with faults on demand."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import trio

from vmm.contract import Agent
from vmm.errors import AttachError, BootError, QmpError, VmExitedError
from vmm.guest.noop import NoopAgent
from vmm.simulated.agent import SimulatedAgent
from vmm.simulated.faults import BootFails, BootHangs, Fault, FaultPlan, Moment, StopIsSlow, no_faults
from vmm.simulated.machine import Machine, Power, simulated_uuid
from vmm.spec import MachineSpec
from vmm.words.machines import AgentKind
from vmm.words.preparation import Growth
from vmm.words.processes import ExitReport, ProcessIdentity


class _Handle:
    """One run's handle of a machine; it has no effect once that run was killed."""

    def __init__(self, machine: Machine, host: SimulatedHost) -> None:
        self.machine = machine
        self._host = host
        self._service = host.service
        self._stopping = trio.Lock()
        self._waiting = 0

    @property
    def id(self) -> str:
        return self.machine.vm_id

    @property
    def pid(self) -> int:
        return self.machine.identity.pid

    async def console(self, *, limit: int) -> str:
        """See the contract."""
        await trio.lowlevel.checkpoint()
        return self.machine.console[-limit:].decode("utf-8", "backslashreplace").strip()

    async def wait_exited(self) -> ExitReport:
        self._waiting += 1
        try:
            await trio.lowlevel.checkpoint()
            await self.machine.state.wait_value(lambda state: state.power is Power.DEAD)
        finally:
            self._waiting -= 1
        return self._exit_report

    async def stop(self) -> ExitReport:
        """See the contract. Afterwards the host no longer knows the VM."""
        with trio.CancelScope(shield=True):
            async with self._stopping:
                if self._service is not self._host.service:
                    return ExitReport()  # the service is dead, and with it the caller
                if self._host.has(self.id):
                    for fault in self.machine.faults:
                        if isinstance(fault, StopIsSlow):
                            await trio.sleep(fault.delay_s)
                    if self._service is not self._host.service:
                        return ExitReport()  # the service was killed during the wait
                    self.machine.exit(ExitReport(status=0))
                    self._host.forget(self.id)
        return self._exit_report

    async def detach(self) -> None:
        """See the contract. The host keeps the machine."""
        assert not self._waiting, f"{self.id}: a task waits for the end of a VM that is being detached"
        await trio.lowlevel.cancel_shielded_checkpoint()

    def crash(self, report: ExitReport) -> None:
        """The process dies now."""
        self.machine.exit(report)

    def mute(self) -> None:
        """The agent stops answering."""
        self.machine.mute()

    @property
    def _exit_report(self) -> ExitReport:
        assert self.machine.exit_report is not None, "the machine is dead"
        return self.machine.exit_report


class SimulatedVm(_Handle):
    """A VM without a process. Implements `vmm.contract.Vm`; `crash` and `mute` are for tests."""

    def __init__(self, machine: Machine, host: SimulatedHost) -> None:
        super().__init__(machine, host)
        self._agent = (
            SimulatedAgent(machine) if machine.spec.agent is not AgentKind.NOOP else NoopAgent(look=machine.look)
        )

    @property
    def uuid(self) -> str:
        return simulated_uuid(self.id)

    @property
    def identity(self) -> ProcessIdentity:
        return self.machine.identity

    @property
    def agent(self) -> Agent:
        return self._agent

    @property
    def is_clone(self) -> bool:
        return self.machine.is_clone

    async def pause(self) -> None:
        await self.machine.process_runs()
        self.machine.power(Power.PAUSED)

    async def resume(self) -> None:
        await self.machine.process_runs()
        self.machine.power(Power.RUNNING)

    async def run_state(self) -> str:
        await self.machine.process_runs()
        power: Power = self.machine.state.value.power
        return power.value

    async def grow(self, *, vcpus: int, memory_mib: int) -> Growth:
        await self.machine.process_runs()
        return self.machine.grow(vcpus=vcpus, memory_mib=memory_mib)

    async def wait_broken(self) -> QmpError:
        """See the contract. There is no monitor."""
        await trio.sleep_forever()

    async def disconnect(self) -> None:
        """See the contract."""
        await trio.lowlevel.cancel_shielded_checkpoint()


class SimulatedSurvivor(_Handle):
    """A machine whose service is gone. Implements `vmm.contract.Survivor`."""

    async def connect(self, *, nursery: trio.Nursery) -> SimulatedVm:
        """See the contract. Waits for a mute agent."""
        await trio.lowlevel.checkpoint()
        self.machine.begin_session(nursery)
        self.machine.power(Power.RUNNING)
        vm = SimulatedVm(self.machine, self._host)
        await vm.agent.ping()
        return vm

    async def hold(self, *, nursery: trio.Nursery) -> SimulatedVm:
        """See the contract."""
        await trio.lowlevel.checkpoint()
        self.machine.begin_session(nursery)
        self.machine.power(Power.PAUSED)
        return SimulatedVm(self.machine, self._host)


class SimulatedHost:
    """A host of simulated VMs; `vmm.simulated.backend` makes it usable for a service."""

    def __init__(self, *, boot_s: float = 0.0, faults: FaultPlan = no_faults, on_disk: bool = False) -> None:
        """`on_disk`: each launched VM has a directory, for its record; otherwise nothing is on disk."""
        self._on_disk = on_disk
        self._directories: dict[str, Path] = {}
        self._boot_s = boot_s
        self._faults = faults
        self._alive: dict[str, Machine | None] = {}
        """None for a VM that boots, a shell, or a template being built."""
        self._launched = 0
        self.service = object()
        """Stands for the service's process."""

    @property
    def alive(self) -> frozenset[str]:
        """The VMs that were launched and not stopped, including those that boot or died by themselves."""
        return frozenset(self._alive)

    def has(self, vm_id: str) -> bool:
        """Whether the VM is in `alive`, without building the set."""
        return vm_id in self._alive

    @property
    def launched(self) -> int:
        """The number of launches, including failed ones."""
        return self._launched

    async def launch(
        self,
        spec: MachineSpec,
        *,
        vm_id: str,
        directory: Path,
        nursery: trio.Nursery,
        boot_s: float | None = None,
    ) -> SimulatedVm:
        """Boots for `boot_s`, or the host's, and returns the VM running and ready, unless a fault strikes.

        Raises BootError. On error and cancellation nothing is left. The caller must `stop` the VM.
        """
        if vm_id in self._alive:
            raise ValueError(f"VM {vm_id} exists already")
        faults = tuple(self._faults(self._launched))
        self._launched += 1
        self._alive[vm_id] = None
        identity = ProcessIdentity(pid=0, start_time=self._launched)
        if self._on_disk:
            directory.mkdir(mode=0o700)  # noqa: ASYNC240 - quick enough
            self._directories[vm_id] = directory
        try:
            await self._boot(faults, boot_s=self._boot_s if boot_s is None else boot_s)
        except BaseException:
            self.forget(vm_id)
            raise
        machine = Machine(spec, vm_id=vm_id, identity=identity, faults=faults, nursery=nursery)
        self._alive[vm_id] = machine
        machine.reach(Moment.READY)
        return SimulatedVm(machine, self)

    async def adopt(
        self,
        identity: ProcessIdentity,
        *,
        vm_id: str,
        directory: Path,  # noqa: ARG002 - as for a real VM
    ) -> SimulatedSurvivor:
        """As `vmm.qemu.adopt.adopt`."""
        machine = self._alive.get(vm_id)
        if machine is not None and machine.identity == identity and machine.exit_report is None:
            return SimulatedSurvivor(machine, self)
        await trio.lowlevel.cancel_shielded_checkpoint()
        self.end(vm_id)
        raise VmExitedError(vm_id=vm_id, reason="it is no longer running")

    async def attach(
        self,
        *,
        vm_id: str,
        directory: Path,  # noqa: ARG002 - as for a real VM
        uuid: str,  # noqa: ARG002 - idem
        nursery: trio.Nursery,
    ) -> SimulatedVm:
        """As `vmm.qemu.attach.attach`."""
        await trio.lowlevel.cancel_shielded_checkpoint()
        machine = self._alive.get(vm_id)
        if machine is None or machine.exit_report is not None:
            raise AttachError(vm_id=vm_id, reason="it is no longer running")
        vm = SimulatedVm(machine, self)
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:
            await vm.stop()
            raise
        machine.begin_session(nursery)
        return vm

    def kill_service(self) -> None:
        """Kills the service's process: its VMs go on, and the actions of its remaining tasks have no effect.

        The caller cancels those tasks. Booting VMs and shells are forgotten, as after a sweep for orphans.
        """
        self.service = object()
        self._alive = {vm_id: machine for vm_id, machine in self._alive.items() if machine is not None}

    def machine(self, vm_id: str) -> Machine:
        """The living machine of that id."""
        machine = self._alive[vm_id]
        assert machine is not None, f"{vm_id} has not booted yet"
        return machine

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
        """Records that a shell or a template was started."""
        self._alive[vm_id] = None

    def forget(self, vm_id: str) -> None:
        """Records that a VM, a shell or a template was stopped."""
        self._alive.pop(vm_id, None)
        if directory := self._directories.pop(vm_id, None):
            shutil.rmtree(directory)

    def end(self, vm_id: str) -> None:
        """Kills and forgets a VM, a shell or a template."""
        if (machine := self._alive.get(vm_id)) is not None:
            machine.exit(ExitReport(signal=signal.SIGKILL))
        self.forget(vm_id)
