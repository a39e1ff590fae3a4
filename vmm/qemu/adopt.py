"""Taking over a VM that another run of the service made, and detached or lost."""

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
    """A QEMU that runs, paused or not, and to which nothing is connected. Fulfils `vmm.contract.Survivor`."""

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
    """Finds the process of a VM again, booted or cloned, by its identity and its command line.

    Not a checkpoint when it succeeds: no cancellation comes between the process and its new owner. Raises VmExitedError
    if the process is gone or another one has its pid, or what is written down of it cannot be read; whatever is left of
    the VM is ended and removed then.
    """
    try:
        return QemuSurvivor(Instance.adopt(vm_id=vm_id, directory=directory, identity=identity))
    except (VmExitedError, OSError) as error:
        await end_remains(vm_id, vms_directory=directory.parent)
        if isinstance(error, VmExitedError):
            raise
        raise VmExitedError(vm_id=vm_id, reason=f"it was ended, its files cannot be read: {error}") from error
