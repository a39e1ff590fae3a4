"""The limits of a VM's process, by the shape of its machine, and of the files that it writes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import attrs

from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator

MIB: Final = 2**20

BASE_OVERHEAD_MIB: Final = 192
"""QEMU itself and its device models. 120 MiB were seen beside the guest's memory, 35 MiB of kernel and initramfs and
the translated code included; the limit is for runaway processes."""

OVERHEAD_PER_VCPU_MIB: Final = 8

PAGE_TABLE_SHARE: Final = 128
"""The kernel's page tables take a 512th of the memory that they map, and KVM's own as much again; twice that."""

MAX_TRANSLATION_BUFFER_MIB: Final = 1024
"""TCG's buffer for translated code grows up to this, or to an eighth of the host's memory if that is less."""

EXTRA_CPUS: Final = 1
"""For QEMU's main loop and its work beside the guest."""

EXTRA_PROCESSES: Final = 128
"""Threads beside the vCPUs': QEMU's pool of workers has up to 64."""


SERVICE_MIB: Final = 1024
"""The service itself. Some 100 MiB were seen with 400 VMs; callers' unread data is limited per user."""

SEALED_COPIES: Final = 2
"""Copies of each template's memory, and of an image: the current one, and the next."""

MAX_FILE_BYTES: Final = 32 * 2**20
"""The longest file that QEMU may write. Its logs are on the host's tmpfs, which all VMs share. They are truncated at
1 MiB, every half minute, while the service runs and has the VM. Until then a guest that writes as fast as it can writes
some MB; without this limit, a guest that has taken over QEMU could fill the file system. The largest file that QEMU
itself writes is the device state of a template, with less than a MiB; guest memory is mapped."""


@attrs.frozen(kw_only=True)
class Limits:
    memory_bytes: int
    cpus: int
    processes: int
    """Threads count, as the kernel counts them."""


def service_memory_bytes(specs: Collection[MachineSpec]) -> int:
    """The limit of the service's own process, with the copies that it keeps for the VMs of these machines.

    Above it the kernel reclaims memory and throttles, above one and a half times it kills. Generous, like the others.
    """
    images = sum(path.stat().st_size for spec in specs for path in (spec.kernel, spec.initrd) if path.exists())
    memory_mib = SERVICE_MIB + SEALED_COPIES * sum(spec.memory_mib for spec in specs)
    return memory_mib * MIB + SEALED_COPIES * images


def limits_for(spec: MachineSpec, *, image_bytes: int, host_memory_bytes: int) -> Limits:
    """The limits of a VM that may grow to its maximum. Generous: killing a well-behaved VM is worse than a high limit.

    `image_bytes` is the size of kernel and initramfs, of which QEMU keeps a copy.
    """
    overhead_mib = BASE_OVERHEAD_MIB + OVERHEAD_PER_VCPU_MIB * spec.max_vcpus + spec.max_memory_mib // PAGE_TABLE_SHARE
    if spec.accelerator is Accelerator.TCG:
        overhead_mib += min(MAX_TRANSLATION_BUFFER_MIB, host_memory_bytes // 8 // MIB)
    return Limits(
        memory_bytes=(spec.max_memory_mib + overhead_mib) * MIB + image_bytes,
        cpus=spec.max_vcpus + EXTRA_CPUS,
        processes=spec.max_vcpus + EXTRA_PROCESSES,
    )
