"""`[hypervisor.qemu]`: the defaults and limits of Kata's loader, one by one.

The result must equal what a client's own loader makes of the same file, or its VMs serve no client. As there, keys of
the other generation are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs

from pool.kata.config.qemu_verdicts import NO_PORT, judge
from pool.kata.config.section import Section
from pool.kata.records.gojson import fields_of
from pool.kata.records.gokinds import FLAG, FLOAT32, INT32, TEXT, UINT32, UINT64, Generation, ListOf
from pool.kata.records.hypervisor_config import HypervisorConfig
from vmm.words.machines import MAX_VCPUS

_MIN_MEMORY_MIB: Final = 256
_MAX_BRIDGES: Final = 5
_MAX_PORTS: Final = 16
_MAX_LOG_LEVEL: Final = 3
_BLOCK_DRIVERS: Final = ("virtio-scsi", "virtio-blk", "virtio-mmio", "nvdimm", "virtio-blk-ccw")
_BLOCK_AIO: Final = ("io_uring", "native", "threads")
_MONITORS: Final = ("hmp", "qmp", "qmp-pretty")
_VIRTIO_FS: Final = ("virtio-fs", "virtio-fs-nydus")


@attrs.frozen(kw_only=True)
class HostSize:
    """The host's size, from which Kata derives limits."""

    cpus: int
    memory_mib: int

    @classmethod
    def here(cls) -> HostSize:
        pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return cls(cpus=os.cpu_count() or 1, memory_mib=pages * page_bytes // 2**20)


@attrs.frozen(kw_only=True)
class _Defaults:
    """The differences between the generations."""

    qemu: str
    machine_type: str
    shared_fs: str
    shared_fs_choices: tuple[str, ...]
    virtio_fs_cache: str
    max_root_ports: int


_DEFAULTS: Final = MappingProxyType(
    {
        Generation.CURRENT: _Defaults(
            qemu="/usr/bin/qemu-system-x86_64",
            machine_type="q35",
            shared_fs="virtio-fs",
            shared_fs_choices=("virtio-9p", "virtio-fs", "virtio-fs-nydus", "none"),
            virtio_fs_cache="never",
            max_root_ports=_MAX_PORTS,
        ),
        Generation.RUNTIME_1X: _Defaults(
            qemu="/usr/bin/qemu-lite-system-x86_64",
            machine_type="pc",
            shared_fs="virtio-9p",
            shared_fs_choices=("virtio-9p", "virtio-fs"),
            virtio_fs_cache="none",
            max_root_ports=UINT32.high,
        ),
    }
)
_KERNEL: Final = "/usr/share/kata-containers/vmlinuz.container"

_AS_GIVEN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "kernel_verity_params": "kernel_verity_params",
        "tdx_quote_generation_service_socket_port": "qgs_port",
        "enable_virtio_mem": "virtio_mem",
        "enable_mem_prealloc": "mem_prealloc",
        "reclaim_guest_freed_memory": "reclaim_guest_freed_memory",
        "enable_hugepages": "huge_pages",
        "file_mem_backend": "file_backed_mem_root_dir",
        "valid_file_mem_backends": "file_backed_mem_root_list",
        "valid_hypervisor_paths": "hypervisor_path_list",
        "valid_entropy_sources": "entropy_source_list",
        "disable_block_device_use": "disable_block_device_use",
        "block_device_cache_set": "block_device_cache_set",
        "block_device_cache_direct": "block_device_cache_direct",
        "block_device_cache_noflush": "block_device_cache_noflush",
        "block_device_logical_sector_size": "block_device_logical_sector_size",
        "block_device_physical_sector_size": "block_device_physical_sector_size",
        "enable_iothreads": "enable_iothreads",
        "indep_iothreads": "indep_iothreads",
        "virtio_fs_daemon": "virtio_fs_daemon",
        "valid_virtio_fs_daemon_paths": "virtio_fs_daemon_list",
        "virtio_fs_cache_size": "virtio_fs_cache_size",
        "virtio_fs_queue_size": "virtio_fs_queue_size",
        "virtio_fs_extra_args": "virtio_fs_extra_args",
        "enable_iommu": "iommu",
        "enable_iommu_platform": "iommu_platform",
        "numa_mapping": "numa_mapping",
        "enable_debug": "debug",
        "disable_nesting_checks": "disable_nesting_checks",
        "disable_image_nvdimm": "disable_image_nvdimm",
        "hotplug_vfio_on_root_bus": "hotplug_vfio_on_root_bus",
        "disable_vhost_net": "disable_vhost_net",
        "enable_vhost_user_store": "enable_vhost_user_store",
        "valid_vhost_user_store_paths": "vhost_user_store_path_list",
        "vhost_user_reconnect_timeout_sec": "vhost_user_device_reconnect",
        "seccompsandbox": "seccomp_sandbox",
        "guest_hook_path": "guest_hook_path",
        "rx_rate_limiter_max_rate": "rx_rate_limiter_max_rate",
        "tx_rate_limiter_max_rate": "tx_rate_limiter_max_rate",
        "enable_annotations": "enable_annotations",
        "guest_memory_dump_path": "guest_memory_dump_path",
        "guest_memory_dump_paging": "guest_memory_dump_paging",
        "confidential_guest": "confidential_guest",
        "sev_snp_guest": "sev_snp_guest",
        "enable_guest_swap": "guest_swap",
        "rootless": "rootless",
        "use_legacy_serial": "legacy_serial",
        "disable_selinux": "disable_selinux",
        "disable_guest_selinux": "disable_guest_selinux",
        "snp_id_block": "snp_id_block",
        "snp_id_auth": "snp_id_auth",
        "snp_guest_policy": "snp_guest_policy",
    }
)
"""Key to field, for values that the loader takes over as they are; Go's zero value if missing."""

_UNLESS_EMPTY: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "rootfs_type": ("rootfs_type", "ext4"),
        "entropy_source": ("entropy_source", "/dev/urandom"),
        "vhost_user_store_path": ("vhost_user_store_path", "/var/run/kata-containers/vhost-user/"),
        "hot_plug_vfio": ("hot_plug_vfio", NO_PORT),
        "cold_plug_vfio": ("cold_plug_vfio", NO_PORT),
        "measurement_algo": ("measurement_algo", "sha512"),
    }
)
"""Key to field and default."""


def read_hypervisor(section: Section, *, generation: Generation, host: HostSize) -> HypervisorConfig:
    """Everything but the kernel's parameters. Adds problems to the section."""
    defaults = _DEFAULTS[generation]
    old = generation is Generation.RUNTIME_1X
    known = {field.attribute: field.kind for field in fields_of(HypervisorConfig) if generation in field.generations}
    values: dict[str, Any] = {
        field: section.get(key, known[field]) for key, field in _AS_GIVEN.items() if field in known
    }
    values |= {field: section.text(key, default) for key, (field, default) in _UNLESS_EMPTY.items() if field in known}
    machine_type = section.text("machine_type", defaults.machine_type)
    pflashes = section.get("pflashes", ListOf(TEXT))
    for pflash in pflashes:
        section.existing("pflashes", pflash)
    values |= {
        "hypervisor_path": section.file("path", defaults.qemu),
        "kernel_path": section.file("kernel", _KERNEL),
        "initrd_path": section.file("initrd"),
        "image_path": section.file("image"),
        "firmware_path": section.file("firmware"),
        "pflash": pflashes,
        "hypervisor_machine_type": machine_type,
        "machine_accelerators": _comma_list(section.text("machine_accelerators")),
        "cpu_features": _comma_list(section.text("cpu_features")),
        "mem_offset": section.get("memory_offset", UINT32 if old else UINT64),
        "mlock": not (old and section.get("enable_swap", FLAG)),
        "use_vsock": old and section.get("use_vsock", FLAG),
        "default_bridges": min(section.get("default_bridges", UINT32) or 1, _MAX_BRIDGES),
        "msize_9p": section.get("msize_9p", UINT32) or 8192,
        "pcie_root_port": min(section.get("pcie_root_port", UINT32), defaults.max_root_ports),
        "block_device_driver": section.choice(
            "block_device_driver", "block storage driver", "drivers", among=_BLOCK_DRIVERS, default="virtio-scsi"
        ),
        "shared_fs": section.choice(
            "shared_fs",
            "shared file system",
            "file systems",
            among=defaults.shared_fs_choices,
            default=defaults.shared_fs,
        ),
        "virtio_fs_cache": section.text("virtio_fs_cache", defaults.virtio_fs_cache),
    }
    if values["shared_fs"] in _VIRTIO_FS and not values["virtio_fs_daemon"]:
        section.fault(
            "virtio_fs_daemon", f"cannot enable {values['shared_fs']} without daemon path in configuration file"
        )
    if machine_type == "microvm":
        values["disable_image_nvdimm"] = True  # it has none
    if not old:
        values |= _only_current(section)
    config = HypervisorConfig(**values, **_cpus(section, generation, host), **_memory(section, generation, host))
    judge(section, config, generation)
    return config


def _only_current(section: Section) -> dict[str, Any]:
    return {
        "firmware_volume_path": section.file("firmware_volume"),
        "hypervisor_loglevel": min(section.get("hypervisor_loglevel", UINT32) or 1, _MAX_LOG_LEVEL),
        "pcie_switch_port": min(section.get("pcie_switch_port", UINT32), _MAX_PORTS),
        "block_device_aio": section.choice(
            "block_device_aio", "block storage I/O mechanism ", "AIO", among=_BLOCK_AIO, default="io_uring"
        ),
        "extra_monitor_socket": section.choice(
            "extra_monitor_socket", "extra monitor socket", "values", among=_MONITORS, default=""
        ),
    }


def _cpus(section: Section, generation: Generation, host: HostSize) -> dict[str, Any]:
    host_cpus = min(host.cpus, MAX_VCPUS)
    old = generation is Generation.RUNTIME_1X
    wanted: float = section.get("default_vcpus", INT32) if old else section.get("default_vcpus", FLOAT32)
    vcpus = float(host_cpus) if wanted < 0 or wanted > host_cpus else wanted or 1.0
    return {
        "num_vcpus": int(vcpus) or 1,
        "num_vcpus_f": vcpus,
        "default_max_vcpus": min(section.get("default_maxvcpus", UINT32) or host_cpus, host_cpus),
    }


def _memory(section: Section, generation: Generation, host: HostSize) -> dict[str, Any]:
    memory = section.get("default_memory", UINT32)
    current = generation is Generation.CURRENT
    too_small = memory < _MIN_MEMORY_MIB and current
    most = section.get("default_maxmemory", UINT64) if current else 0
    return {
        "memory_size": 2048 if too_small or not memory else memory,
        "mem_slots": section.get("memory_slots", UINT32) or 10,
        "default_max_memory_size": min(most or host.memory_mib, host.memory_mib),
    }


def _comma_list(value: str) -> str:
    return ",".join(member.strip() for member in value.split(",") if member).strip(",")
