"""Configurations and samples for the tests of Kata compatibility."""

from __future__ import annotations

from pathlib import Path

from pool.kata.records.config import VMConfig
from pool.kata.records.hypervisor_config import HypervisorConfig

SAMPLES = Path(__file__).parent / "samples"
"""What Go's encoding/json makes of Kata's structs, run; one line each."""


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.json").read_bytes().strip()


def hypervisor(**fields: object) -> HypervisorConfig:
    """Kernel and initrd, which every configuration needs, and `fields`."""
    return HypervisorConfig(**({"kernel_path": "/k", "initrd_path": "/i"} | fields))  # type: ignore[arg-type]


def vm_config(**fields: object) -> VMConfig:
    return VMConfig(hypervisor_type="qemu", hypervisor_config=hypervisor(**fields))
