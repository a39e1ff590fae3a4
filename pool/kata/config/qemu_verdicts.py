"""`[hypervisor.qemu]`: values that Kata's loader refuses, in Kata's words, and keys that vmpool does not support."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

from pool.kata.config.section import Section
from pool.kata.records.gokinds import (
    BOTH,
    FLAG,
    INT64,
    ONLY_1X,
    ONLY_CURRENT,
    TEXT,
    UINT32,
    Generation,
    Generations,
    Kind,
    ListOf,
)
from pool.kata.records.hypervisor_config import HypervisorConfig

NO_PORT: Final = "no-port"
_PORTS: Final = (NO_PORT, "bridge-port", "root-port", "switch-port")
_SPELLED_OUT: Final = (*_PORTS, "invalid-port")
_PCIE_MACHINES: Final = ("q35", "virt")

_SECTOR_BYTES: Final = tuple(2**power for power in range(9, 17))

_LIMITS: Final = tuple(
    f"{what}_rate_limiter_{unit}_{limit}"
    for what in ("disk", "net")
    for unit in ("bw", "ops")
    for limit in ("max_rate", "one_time_burst")
)
_OTHERS: Final[dict[str, tuple[Kind[Any], Generations]]] = {
    "jailer_path": (TEXT, BOTH),
    "valid_jailer_paths": (ListOf(TEXT), BOTH),
    "ctlpath": (TEXT, ONLY_1X),
    "valid_ctlpaths": (ListOf(TEXT), ONLY_1X),
    "remote_hypervisor_socket": (TEXT, ONLY_CURRENT),
    "remote_hypervisor_timeout": (UINT32, ONLY_CURRENT),
    "disable_seccomp": (FLAG, ONLY_CURRENT),
}
_READ_IN_VAIN: Final = MappingProxyType(_OTHERS | dict.fromkeys(_LIMITS, (INT64, ONLY_CURRENT)))
"""Keys of other hypervisors. The loader ignores them here, but refuses values of the wrong type."""


def judge(section: Section, config: HypervisorConfig, generation: Generation) -> None:
    """Adds problems for values that no client's loader accepts, and for features that our VMs lack."""
    for key, (kind, generations) in _READ_IN_VAIN.items():
        if generation in generations:
            section.get(key, kind)
    if generation is Generation.CURRENT:
        _judge_ports(section, config)
        _judge_sectors(section, config)
        _refuse_what_is_not_made(section)


def _judge_ports(section: Section, config: HypervisorConfig) -> None:
    cold, hot = config.cold_plug_vfio, config.hot_plug_vfio
    if NO_PORT not in (cold, hot):
        section.fault(
            "cold_plug_vfio",
            f"invalid hot-plug={_port(hot)} and cold-plug={_port(cold)} settings, only one of them can be set",
        )
    elif config.hypervisor_machine_type in _PCIE_MACHINES:
        for key, port in (("cold_plug_vfio", cold), ("hot_plug_vfio", hot)):
            if port not in _PORTS:
                section.fault(key, f"invalid vfio_port={_port(port)} setting, allowed values {', '.join(_PORTS)}")


def _port(port: str) -> str:
    """As Kata prints it."""
    return port if port in _SPELLED_OUT else f"<unknown PCIePort: {port}>"


def _judge_sectors(section: Section, config: HypervisorConfig) -> None:
    logical, physical = config.block_device_logical_sector_size, config.block_device_physical_sector_size
    sizes = {"block_device_logical_sector_size": logical, "block_device_physical_sector_size": physical}
    wrong = {key: size for key, size in sizes.items() if size and size not in _SECTOR_BYTES}
    for key, size in wrong.items():
        section.fault(key, f"invalid {key} {size}: must be 0 or a power of 2 between 512 and 65536")
    if not wrong and logical > physical > 0:
        section.fault(
            "block_device_logical_sector_size",
            f"invalid sector sizes: logical ({logical}) must not be larger than physical ({physical})",
        )


def _refuse_what_is_not_made(section: Section) -> None:
    """These would enter the configuration that a client's loader compares with the server's."""
    if section.get("enable_numa", FLAG):
        section.fault("enable_numa", "vmpool's machines have no NUMA nodes; remove it")
    if section.table.get("guest_extension_images"):
        section.fault("guest_extension_images", "vmpool's machines have no disks; remove it")
