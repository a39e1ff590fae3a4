"""Base VMs from the service's pool, for the VMCache service."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from pool.core.coordinator import Coordinator
from pool.kata.cache.client import WaitingVm
from pool.kata.cache.server import BaseVm
from pool.kata.cache.wire import Bridge
from pool.kata.records.config import VMConfig
from pool.ledger.records import Lease, Owner
from vmm.devices.links import vsock_cid
from vmm.qemu.command_line import BRIDGE_SLOTS, machine_uuid, pci_bridge
from vmm.qemu.directory import VmDirectory
from vmm.qemu.process import command_line_of
from vmm.spec import MachineSpec
from vmm.words.leases import LeaseRequest
from vmm.words.life import VmState
from vmm.words.machines import AgentKind


@attrs.define(eq=False, kw_only=True)
class PoolSource:
    """Gives away one profile's VMs, one by one. Implements `pool.kata.cache.server.BaseVmSource`.

    Callers wait without a time limit, through failed productions too: unlike Kata's, this cache never closes itself.
    """

    coordinator: Coordinator
    profile: str
    spec: MachineSpec
    vms_directory: Path
    vm_config: VMConfig
    """Valid, with its defaults."""
    quit: Callable[[], None]
    command_line: Callable[[int], Sequence[str]] = command_line_of
    """The command line of a process: the only record of a VM's vsock CID, which was drawn when QEMU was started."""
    _taken: dict[str, Lease] = attrs.field(factory=dict, init=False)
    """By VM id, until the VM is given away or discarded."""

    def config(self) -> VMConfig:
        return self.vm_config

    async def take_base(self) -> BaseVm:
        lease = await self.coordinator.acquire(
            profile=self.profile, owner=Owner(uid=os.geteuid()), request=LeaseRequest(bare=True)
        )
        self._taken[lease.vm_id] = lease
        home = VmDirectory(self.vms_directory / lease.vm_id)
        return BaseVm(
            id=lease.vm_id,
            pid=lease.pid,
            qmp_socket=home.qmp_socket,
            vcpus=self.spec.vcpus,
            max_vcpus=self.spec.max_vcpus,
            memory_mib=self.spec.memory_mib,
            uuid=machine_uuid(lease.vm_id),
            context_id=vsock_cid(self.command_line(lease.pid)) or 0,
            katas_agent=self.spec.agent is AgentKind.NOOP,
            bridges=tuple(_bridge(number) for number in range(self.spec.pci_bridges)),
        )

    def discard(self, vm: BaseVm) -> None:
        self.coordinator.give_back(self._taken.pop(vm.id))

    def give_away(self, vm: BaseVm) -> None:
        self.coordinator.relinquish(self._taken.pop(vm.id))

    def statuses(self) -> list[WaitingVm]:
        return [
            WaitingVm(pid=vm.pid, vcpus=self.spec.vcpus, memory_mib=self.spec.memory_mib)
            for vm in self.coordinator.snapshot().vms
            if vm.profile == self.profile and vm.state is VmState.READY
        ]

    def request_quit(self) -> None:
        self.quit()


def _bridge(number: int) -> Bridge:
    bridge = pci_bridge(number)
    return Bridge(id=bridge.id, type="pci", addr=bridge.slot, max_capacity=BRIDGE_SLOTS)
