"""Adopting a VM that another run of the service made, and detached or lost."""

from __future__ import annotations

from pathlib import Path

import trio

from vmm.errors import VmExitedError
from vmm.qemu.agents import connect_agent, late_agent
from vmm.qemu.instance import Instance
from vmm.qemu.orphans import end_remains
from vmm.qemu.vm import QemuVm
from vmm.words.processes import ExitReport, ProcessIdentity


class QemuSurvivor:
    """A running QEMU, its guest paused or not, without connections. Implements `vmm.contract.Survivor`."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    @property
    def id(self) -> str:
        return self._instance.vm_id

    @property
    def pid(self) -> int:
        return self._instance.process.pid

    async def connect(self, *, nursery: trio.Nursery) -> QemuVm:
        """See the contract."""
        try:
            await self._instance.connect_qmp(nursery=nursery)
            await self._instance.execute("cont")
            agent = await connect_agent(self._instance, nursery=nursery)
        except BaseException:
            await self._instance.disconnect()
            raise
        return QemuVm(self._instance, agent)

    async def hold(self, *, nursery: trio.Nursery) -> QemuVm:
        """See the contract."""
        try:
            await self._instance.connect_qmp(nursery=nursery)
            await self._instance.execute("stop")
        except BaseException:
            await self._instance.disconnect()
            raise
        return QemuVm(self._instance, late_agent(self._instance, nursery=nursery))

    async def console(self, *, limit: int) -> str:
        """See the contract."""
        return await self._instance.console(limit=limit)

    async def wait_exited(self) -> ExitReport:
        return await self._instance.wait_exited()

    async def stop(self) -> ExitReport:
        return await self._instance.stop()

    async def detach(self) -> None:
        await self._instance.detach()


async def adopt(identity: ProcessIdentity, *, vm_id: str, directory: Path) -> QemuSurvivor:
    """Finds the process of a VM, booted or cloned, by its identity and its command line.

    Not a checkpoint when it succeeds: no cancellation comes between the process and its new owner. Raises VmExitedError
    if the process is gone, its pid is reused, or its files cannot be read; the remains of the VM are then ended and
    removed.
    """
    try:
        return QemuSurvivor(Instance.adopt(vm_id=vm_id, directory=directory, identity=identity))
    except (VmExitedError, OSError) as error:
        await end_remains(vm_id, vms_directory=directory.parent)
        if isinstance(error, VmExitedError):
            raise
        raise VmExitedError(vm_id=vm_id, reason=f"it was ended because its files cannot be read: {error}") from error
