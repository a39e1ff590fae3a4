"""The limits of a VM: never below what an honest one may come to use."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from vmm.qemu.confinement.limits import MIB, limits_for
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator

GIB = 2**30


def machine(*, max_vcpus: int, max_memory_mib: int, accelerator: Accelerator = Accelerator.KVM) -> MachineSpec:
    nowhere = Path("/nowhere")
    return MachineSpec(
        qemu=nowhere,
        kernel=nowhere,
        initrd=nowhere,
        accelerator=accelerator,
        memory_mib=64,
        max_vcpus=max_vcpus,
        max_memory_mib=max_memory_mib,
    )


@given(
    max_vcpus=st.integers(1, 240),
    max_memory_mib=st.integers(64, 2**20),
    accelerator=st.sampled_from(Accelerator),
    image_bytes=st.integers(0, GIB),
    host_memory_bytes=st.integers(GIB, 2**46),
)
def test_a_vm_that_has_grown_to_its_maximum_fits(
    max_vcpus: int, max_memory_mib: int, accelerator: Accelerator, image_bytes: int, host_memory_bytes: int
) -> None:
    spec = machine(max_vcpus=max_vcpus, max_memory_mib=max_memory_mib, accelerator=accelerator)
    limits = limits_for(spec, image_bytes=image_bytes, host_memory_bytes=host_memory_bytes)
    translated = min(GIB, host_memory_bytes // 8) if accelerator is Accelerator.TCG else 0
    page_tables = 2 * max_memory_mib * MIB // 512
    assert limits.memory_bytes >= max_memory_mib * MIB + page_tables + translated - MIB + image_bytes + 128 * MIB
    assert limits.cpus > max_vcpus
    assert limits.processes >= max_vcpus + 64 + 8, "vCPUs, the pool of workers, and the main loop's kin"


def test_the_limit_of_a_small_vm_is_still_a_limit() -> None:
    limits = limits_for(machine(max_vcpus=1, max_memory_mib=256), image_bytes=0, host_memory_bytes=64 * GIB)
    assert limits.memory_bytes < 512 * MIB
    assert limits.cpus == 2
