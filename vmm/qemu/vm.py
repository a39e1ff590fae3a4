"""A VM in QEMU: an instance, and its guest's agent. Implements `vmm.contract.Vm`."""

from __future__ import annotations

from pathlib import Path

import trio

from vmm.contract import Agent
from vmm.errors import QmpError, VmExitedError
from vmm.qemu.command_line import machine_uuid
from vmm.qemu.hotplug import grow
from vmm.qemu.instance import Instance
from vmm.words.preparation import Growth
from vmm.words.processes import ExitReport, ProcessIdentity


class QemuVm:
    """One VM in QEMU. Its owner must call `stop` or `detach` in the end.

    Its background tasks live in the nursery given to `launch`, `connect` or `attach`. Every operation on a VM whose
    QEMU is gone raises VmExitedError, those of the agent AgentUnreachableError.
    """

    def __init__(self, instance: Instance, agent: Agent, *, uuid: str | None = None) -> None:
        """`uuid` is the one on its command line; None: the one that `build_argv` gives a VM of this id."""
        self.instance = instance
        self.uuid = machine_uuid(instance.vm_id) if uuid is None else uuid
        self._agent = agent
        self._growing = trio.Lock()

    @property
    def id(self) -> str:
        return self.instance.vm_id

    @property
    def pid(self) -> int:
        return self.instance.process.pid

    @property
    def identity(self) -> ProcessIdentity:
        """The identity by which `adopt` finds the process."""
        return self.instance.process.identity

    @property
    def directory(self) -> Path:
        return self.instance.directory.root

    @property
    def agent(self) -> Agent:
        return self._agent

    @property
    def is_clone(self) -> bool:
        """See the contract. Read from the command line, so it works for adopted VMs, too."""
        return "-incoming" in self.instance.argv

    async def pause(self) -> None:
        """Stops the vCPUs. Idempotent. Raises VmExitedError, QmpError."""
        await self.instance.execute("stop")

    async def resume(self) -> None:
        """Runs the vCPUs. Idempotent. Raises VmExitedError, QmpError."""
        await self.instance.execute("cont")

    async def run_state(self) -> str:
        """See the contract."""
        if self.instance.process.has_lost_its_main_thread():
            raise VmExitedError(vm_id=self.id, reason="its main thread has ended, and only other threads are left")
        return str((await self.instance.execute("query-status"))["status"])

    async def grow(self, *, vcpus: int, memory_mib: int) -> Growth:
        """See the contract, and `vmm.qemu.hotplug.grow`. Works while the vCPUs are stopped, too."""
        async with self._growing:
            return await grow(self.instance, vcpus=vcpus, memory_mib=memory_mib)

    async def console(self, *, limit: int) -> str:
        """See the contract."""
        return await self.instance.console(limit=limit)

    async def wait_exited(self) -> ExitReport:
        """Returns once the process is dead, at once if it is already. Any number of tasks may wait."""
        return await self.instance.wait_exited()

    async def wait_broken(self) -> QmpError:
        """See the contract."""
        return await self.instance.wait_broken()

    async def stop(self) -> ExitReport:
        """Ends the VM and removes its directory; see `Instance.stop`. Idempotent. Raises StopError."""
        return await self.instance.stop()

    async def disconnect(self) -> None:
        """See the contract. QMP and the agent's channel take one client at a time."""
        await self.instance.disconnect()

    async def detach(self) -> None:
        """Leaves the VM running for a later `adopt` by this or another process."""
        await self.instance.detach()
