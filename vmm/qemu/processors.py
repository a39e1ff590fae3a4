"""A table of CPUs that may be plugged into an emulated machine later, in a form that Linux accepts.

QEMU's table of CPUs (ACPI's MADT) lists CPUs that are not plugged in as not enabled. Under a hypervisor that it knows,
Linux takes such an entry for a slot; on bare metal, which it takes TCG for, it ignores the entry since 6.18, and in
older kernels with that change, such as Debian 13's 6.12. So an emulated machine gets a second table with all CPUs
enabled, and its kernel parameters select that table and limit the CPUs that are started. Plugged-in CPUs are brought
online as usual. The others are CPUs without a `firmware_node` in the guest's /sys.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator, AgentKind

_LOCAL_APIC_ADDRESS, _IO_APIC_ADDRESS = 0xFEE00000, 0xFEC00000
_PC_COMPATIBLE: Final = 1
_ENABLED: Final = 1
_ACTIVE_HIGH_LEVEL: Final = 0xD
_ALL_PROCESSORS: Final = 0xFF

_HEAD = struct.Struct("<II")
_LOCAL_APIC = struct.Struct("<BBBBI")
_IO_APIC = struct.Struct("<BBBBII")
_OVERRIDE = struct.Struct("<BBBBIH")
_NON_MASKABLE = struct.Struct("<BBBHB")


def needs_table(spec: MachineSpec) -> bool:
    """Whether CPUs could be plugged in that the guest's kernel would ignore.

    Only for vmpool's own agent, which leaves other CPUs alone: trying to start one that is not plugged in takes ten
    seconds.
    """
    emulated = spec.accelerator is Accelerator.TCG
    return emulated and spec.max_vcpus > spec.vcpus and spec.agent is not AgentKind.NOOP


def kernel_parameters(spec: MachineSpec) -> str:
    """The parameters for the possible number of CPUs and, if needed, for the table."""
    told = f" acpi_apic_instance=2 maxcpus={spec.vcpus}" if needs_table(spec) else ""
    return f"nr_cpus={spec.max_vcpus}{told}"


def options(file: Path) -> tuple[str, ...]:
    """QEMU's options for a file with the table, to which it adds the header."""
    return ("-acpitable", f"sig=APIC,rev=3,data={file}")


def table(spec: MachineSpec) -> bytes:
    """QEMU's table for its PC machines without the header, with every CPU enabled. Each CPU has a socket, so that the
    APIC ids are 0, 1, 2...
    """
    parts = [_HEAD.pack(_LOCAL_APIC_ADDRESS, _PC_COMPATIBLE)]
    parts += [_LOCAL_APIC.pack(0, _LOCAL_APIC.size, cpu, cpu, _ENABLED) for cpu in range(spec.max_vcpus)]
    parts.append(_IO_APIC.pack(1, _IO_APIC.size, 0, 0, _IO_APIC_ADDRESS, 0))
    # The timer's line, and those that PCI and ACPI share.
    parts.append(_OVERRIDE.pack(2, _OVERRIDE.size, 0, 0, 2, 0))
    parts += [_OVERRIDE.pack(2, _OVERRIDE.size, 0, line, line, _ACTIVE_HIGH_LEVEL) for line in (5, 9, 10, 11)]
    parts.append(_NON_MASKABLE.pack(4, _NON_MASKABLE.size, _ALL_PROCESSORS, 0, 1))
    return b"".join(parts)
