"""The spec of a VM: the record that describes it before it exists."""

from __future__ import annotations

from pathlib import Path

import attrs

from vmm.devices.device import Device
from vmm.devices.usual import usual_devices
from vmm.errors import SpecError
from vmm.words.machines import MAX_MEMORY_MIB, MAX_PCI_BRIDGES, MAX_VCPUS, MIN_MEMORY_MIB, Accelerator, AgentKind


@attrs.frozen(kw_only=True)
class MachineSpec:
    """The shape of one VM. Two VMs of equal spec are interchangeable until they are handed out.

    Paths are not opened here; a missing file is reported when a VM is launched, with the field's name.
    """

    qemu: Path
    kernel: Path
    initrd: Path
    accelerator: Accelerator
    vcpus: int = 1
    memory_mib: int = 256
    max_vcpus: int = 1
    """Upper bound for CPU hot-add; at least `vcpus`."""
    max_memory_mib: int = 256
    """Upper bound for memory hot-add; at least `memory_mib`."""
    machine_type: str = "q35"
    cpu_model: str = "max"
    pci_bridges: int = 0
    """For devices that a VM's taker hot-plugs; the root bus takes none. See `vmm.qemu.command_line.pci_bridge`."""
    kernel_parameters: str = ""
    """Appended to the parameters that `vmm` itself needs."""
    devices: tuple[Device, ...] = attrs.field(factory=usual_devices)
    """In the order in which they are plugged in."""

    @property
    def agent(self) -> AgentKind:
        """The agent in the guest, which one of the devices leads to."""
        return next((one.agent for one in self.devices if one.agent is not AgentKind.NOOP), AgentKind.NOOP)

    def differing_devices(self, other: MachineSpec) -> tuple[Device, ...]:
        """The devices that only one of the two machines has."""
        ours = [one for one in self.devices if one not in other.devices]
        return (*ours, *(one for one in other.devices if one not in self.devices))

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.vcpus <= MAX_VCPUS:
            raise SpecError(field="vcpus", value=self.vcpus, reason=f"must be between 1 and {MAX_VCPUS}")
        if not self.vcpus <= self.max_vcpus <= MAX_VCPUS:
            raise SpecError(
                field="max_vcpus", value=self.max_vcpus, reason=f"must be between vcpus ({self.vcpus}) and {MAX_VCPUS}"
            )
        if not 0 <= self.pci_bridges <= MAX_PCI_BRIDGES:
            raise SpecError(
                field="pci_bridges", value=self.pci_bridges, reason=f"must be between 0 and {MAX_PCI_BRIDGES}"
            )
        if not MIN_MEMORY_MIB <= self.memory_mib <= MAX_MEMORY_MIB:
            raise SpecError(
                field="memory_mib",
                value=self.memory_mib,
                reason=f"must be between {MIN_MEMORY_MIB} and {MAX_MEMORY_MIB} MiB",
            )
        if not self.memory_mib <= self.max_memory_mib <= MAX_MEMORY_MIB:
            raise SpecError(
                field="max_memory_mib",
                value=self.max_memory_mib,
                reason=f"must be between memory_mib ({self.memory_mib}) and {MAX_MEMORY_MIB} MiB",
            )
