"""A machine's vCPUs and memory with their maximum, and the arithmetic of growing it."""

from __future__ import annotations

from typing import Self

import attrs

from vmm.errors import HotplugError
from vmm.spec import MachineSpec
from vmm.words.machines import MEMORY_BLOCK_MIB, grown_memory_mib
from vmm.words.preparation import Growth


@attrs.frozen(kw_only=True)
class Capacity:
    """A machine's vCPUs and memory, plugged in, whether its guest uses them or not."""

    vcpus: int
    max_vcpus: int
    memory_mib: int
    max_memory_mib: int

    @classmethod
    def of(cls, spec: MachineSpec) -> Self:
        """The capacity that a machine of that spec starts with."""
        return cls(
            vcpus=spec.vcpus,
            max_vcpus=spec.max_vcpus,
            memory_mib=spec.memory_mib,
            max_memory_mib=spec.max_memory_mib,
        )

    def growth(self, *, vcpus: int, memory_mib: int) -> Growth:
        """The difference to these totals, memory rounded up to blocks.

        Raises HotplugError if a total is beyond the maximum.
        """
        cpus = max(0, vcpus - self.vcpus)
        if vcpus > self.max_vcpus:
            raise HotplugError(
                field="vcpus",
                what=f"{cpus} vCPUs",
                reason=f"{vcpus} are requested in total; the machine's maximum (max_vcpus) is {self.max_vcpus}",
            )
        grown_mib = grown_memory_mib(self.memory_mib, wished_mib=memory_mib)
        memory = grown_mib - self.memory_mib
        if grown_mib > max(self.memory_mib, self.max_memory_mib):
            raise HotplugError(
                field="memory_mib",
                what=f"{memory} MiB of memory",
                reason=f"{memory_mib} MiB are requested in total; the machine has {self.memory_mib} MiB, memory is "
                f"added in blocks of {MEMORY_BLOCK_MIB} MiB, and the maximum (max_memory_mib) is "
                f"{self.max_memory_mib} MiB",
            )
        return Growth(vcpus=cpus, memory_mib=memory)

    def grown(self, growth: Growth) -> Self:
        return attrs.evolve(self, vcpus=self.vcpus + growth.vcpus, memory_mib=self.memory_mib + growth.memory_mib)
