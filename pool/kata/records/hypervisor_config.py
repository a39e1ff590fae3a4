"""Kata's HypervisorConfig: every field that either generation sends.

The order is the current generation's; `customAssets`, which Go does not export, is never sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from pool.kata.records.gojson import (
    GoRecord,
    flag,
    float32,
    int64,
    mapping,
    octets,
    optional_uint64,
    records,
    text,
    texts,
    uint32,
    uint32s,
    uint64,
)
from pool.kata.records.gokinds import ONLY_1X, ONLY_CURRENT


@attrs.frozen(kw_only=True)
class Param(GoRecord):
    """One parameter of a command line. Without a value it is a bare word."""

    key: str = text("Key")
    value: str = text("Value")


@attrs.frozen(kw_only=True)
class GuestExtensionImage(GoRecord):
    name: str = text("Name")
    path: str = text("Path")
    verity_params: str = text("VerityParams")


@attrs.frozen(kw_only=True)
class GuestNumaNode(GoRecord):
    host_nodes: str = text("HostNodes")
    host_cpus: str = text("HostCPUs")


@attrs.frozen(kw_only=True)
class DeviceInfo(GoRecord):
    driver_options: Mapping[str, str] = mapping("DriverOptions")
    host_path: str = text("HostPath")
    dev_type: str = text("DevType")
    id: str = text("ID")
    major: int = int64("Major")
    minor: int = int64("Minor")
    file_mode: int = uint32("FileMode")
    uid: int = uint32("UID")
    gid: int = uint32("GID")
    pmem: bool = flag("Pmem")
    read_only: bool = flag("ReadOnly")
    discard_unmap: bool = flag("DiscardUnmap")
    cold_plug: bool = flag("ColdPlug")
    port: str = text("Port")


@attrs.frozen(kw_only=True)
class HypervisorConfig(GoRecord):
    """The configuration of a hypervisor. Memory sizes are in MiB.

    The number of CPUs has two names: `num_vcpus` in runtime 1.x, `num_vcpus_f` since, which may be a fraction.
    """

    groups: tuple[int, ...] = uint32s("Groups", ONLY_CURRENT)
    kernel_path: str = text("KernelPath")
    image_path: str = text("ImagePath")
    initrd_path: str = text("InitrdPath")
    guest_extension_images: tuple[GuestExtensionImage, ...] = records(
        "GuestExtensionImages", GuestExtensionImage, ONLY_CURRENT
    )
    rootfs_type: str = text("RootfsType", ONLY_CURRENT)
    firmware_path: str = text("FirmwarePath")
    firmware_volume_path: str = text("FirmwareVolumePath", ONLY_CURRENT)
    machine_accelerators: str = text("MachineAccelerators")
    cpu_features: str = text("CPUFeatures")
    hypervisor_path: str = text("HypervisorPath")
    jailer_path: str = text("JailerPath")
    block_device_driver: str = text("BlockDeviceDriver")
    hypervisor_machine_type: str = text("HypervisorMachineType")
    memory_path: str = text("MemoryPath")
    devices_state_path: str = text("DevicesStatePath")
    entropy_source: str = text("EntropySource")
    shared_fs: str = text("SharedFS")
    shared_path: str = text("SharedPath", ONLY_CURRENT)
    virtio_fs_daemon: str = text("VirtioFSDaemon")
    virtio_fs_cache: str = text("VirtioFSCache")
    vhost_user_store_path: str = text("VhostUserStorePath")
    vhost_user_device_reconnect: int = uint32("VhostUserDeviceReconnect", ONLY_CURRENT)
    guest_memory_dump_path: str = text("GuestMemoryDumpPath", ONLY_CURRENT)
    guest_hook_path: str = text("GuestHookPath")
    vm_id: str = text("VMid")
    vm_store_path: str = text("VMStorePath", ONLY_CURRENT)
    run_store_path: str = text("RunStorePath", ONLY_CURRENT)
    selinux_process_label: str = text("SELinuxProcessLabel")
    hypervisor_path_list: tuple[str, ...] = texts("HypervisorPathList")
    jailer_path_list: tuple[str, ...] = texts("JailerPathList")
    entropy_source_list: tuple[str, ...] = texts("EntropySourceList", ONLY_CURRENT)
    virtio_fs_daemon_list: tuple[str, ...] = texts("VirtioFSDaemonList")
    virtio_fs_extra_args: tuple[str, ...] = texts("VirtioFSExtraArgs")
    enable_annotations: tuple[str, ...] = texts("EnableAnnotations")
    pflash: tuple[str, ...] = texts("PFlash")
    vhost_user_store_path_list: tuple[str, ...] = texts("VhostUserStorePathList")
    seccomp_sandbox: str = text("SeccompSandbox", ONLY_CURRENT)
    block_device_aio: str = text("BlockDeviceAIO", ONLY_CURRENT)
    remote_hypervisor_socket: str = text("RemoteHypervisorSocket", ONLY_CURRENT)
    sandbox_name: str = text("SandboxName", ONLY_CURRENT)
    sandbox_namespace: str = text("SandboxNamespace", ONLY_CURRENT)
    user: str = text("User", ONLY_CURRENT)
    snp_id_block: str = text("SnpIdBlock", ONLY_CURRENT)
    snp_id_auth: str = text("SnpIdAuth", ONLY_CURRENT)
    snp_guest_policy: int | None = optional_uint64("SnpGuestPolicy", ONLY_CURRENT)
    kernel_params: tuple[Param, ...] = records("KernelParams", Param)
    kernel_verity_params: str = text("KernelVerityParams", ONLY_CURRENT)
    hypervisor_params: tuple[Param, ...] = records("HypervisorParams", Param)
    sgx_epc_size: int = int64("SGXEPCSize", ONLY_CURRENT)
    disk_rate_limiter_bw_max_rate: int = int64("DiskRateLimiterBwMaxRate", ONLY_CURRENT)
    disk_rate_limiter_bw_one_time_burst: int = int64("DiskRateLimiterBwOneTimeBurst", ONLY_CURRENT)
    disk_rate_limiter_ops_max_rate: int = int64("DiskRateLimiterOpsMaxRate", ONLY_CURRENT)
    disk_rate_limiter_ops_one_time_burst: int = int64("DiskRateLimiterOpsOneTimeBurst", ONLY_CURRENT)
    rx_rate_limiter_max_rate: int = uint64("RxRateLimiterMaxRate", ONLY_CURRENT)
    tx_rate_limiter_max_rate: int = uint64("TxRateLimiterMaxRate", ONLY_CURRENT)
    net_rate_limiter_bw_max_rate: int = int64("NetRateLimiterBwMaxRate", ONLY_CURRENT)
    net_rate_limiter_bw_one_time_burst: int = int64("NetRateLimiterBwOneTimeBurst", ONLY_CURRENT)
    net_rate_limiter_ops_max_rate: int = int64("NetRateLimiterOpsMaxRate", ONLY_CURRENT)
    net_rate_limiter_ops_one_time_burst: int = int64("NetRateLimiterOpsOneTimeBurst", ONLY_CURRENT)
    mem_offset: int = uint64("MemOffset")
    vfio_devices: tuple[DeviceInfo, ...] = records("VFIODevices", DeviceInfo, ONLY_CURRENT)
    vhost_user_blk_devices: tuple[DeviceInfo, ...] = records("VhostUserBlkDevices", DeviceInfo, ONLY_CURRENT)
    hot_plug_vfio: str = text("HotPlugVFIO", ONLY_CURRENT)
    cold_plug_vfio: str = text("ColdPlugVFIO", ONLY_CURRENT)
    pcie_root_port: int = uint32("PCIeRootPort")
    pcie_switch_port: int = uint32("PCIeSwitchPort", ONLY_CURRENT)
    num_vcpus_f: float = float32("NumVCPUsF", ONLY_CURRENT)
    default_max_vcpus: int = uint32("DefaultMaxVCPUs")
    memory_size: int = uint32("MemorySize")
    default_max_memory_size: int = uint64("DefaultMaxMemorySize", ONLY_CURRENT)
    default_bridges: int = uint32("DefaultBridges")
    msize_9p: int = uint32("Msize9p")
    mem_slots: int = uint32("MemSlots")
    virtio_fs_cache_size: int = uint32("VirtioFSCacheSize")
    virtio_fs_queue_size: int = uint32("VirtioFSQueueSize", ONLY_CURRENT)
    uid: int = uint32("Uid", ONLY_CURRENT)
    gid: int = uint32("Gid", ONLY_CURRENT)
    remote_hypervisor_timeout: int = uint32("RemoteHypervisorTimeout", ONLY_CURRENT)
    block_device_cache_set: bool = flag("BlockDeviceCacheSet")
    block_device_cache_direct: bool = flag("BlockDeviceCacheDirect")
    block_device_cache_noflush: bool = flag("BlockDeviceCacheNoflush")
    block_device_logical_sector_size: int = uint32("BlockDeviceLogicalSectorSize", ONLY_CURRENT)
    block_device_physical_sector_size: int = uint32("BlockDevicePhysicalSectorSize", ONLY_CURRENT)
    disable_block_device_use: bool = flag("DisableBlockDeviceUse")
    enable_iothreads: bool = flag("EnableIOThreads")
    indep_iothreads: int = uint32("IndepIOThreads", ONLY_CURRENT)
    debug: bool = flag("Debug")
    hypervisor_loglevel: int = uint32("HypervisorLoglevel", ONLY_CURRENT)
    mem_prealloc: bool = flag("MemPrealloc")
    reclaim_guest_freed_memory: bool = flag("ReclaimGuestFreedMemory", ONLY_CURRENT)
    huge_pages: bool = flag("HugePages")
    virtio_mem: bool = flag("VirtioMem")
    iommu: bool = flag("IOMMU")
    iommu_platform: bool = flag("IOMMUPlatform")
    guest_numa_nodes: tuple[GuestNumaNode, ...] = records("GuestNUMANodes", GuestNumaNode, ONLY_CURRENT)
    numa_mapping: tuple[str, ...] = texts("NUMAMapping", ONLY_CURRENT)
    disable_nesting_checks: bool = flag("DisableNestingChecks")
    disable_image_nvdimm: bool = flag("DisableImageNvdimm")
    guest_memory_dump_paging: bool = flag("GuestMemoryDumpPaging", ONLY_CURRENT)
    confidential_guest: bool = flag("ConfidentialGuest", ONLY_CURRENT)
    sev_snp_guest: bool = flag("SevSnpGuest", ONLY_CURRENT)
    boot_to_be_template: bool = flag("BootToBeTemplate")
    boot_from_template: bool = flag("BootFromTemplate")
    disable_vhost_net: bool = flag("DisableVhostNet")
    enable_vhost_user_store: bool = flag("EnableVhostUserStore")
    guest_swap: bool = flag("GuestSwap", ONLY_CURRENT)
    rootless: bool = flag("Rootless", ONLY_CURRENT)
    disable_seccomp: bool = flag("DisableSeccomp", ONLY_CURRENT)
    disable_selinux: bool = flag("DisableSeLinux", ONLY_CURRENT)
    disable_guest_selinux: bool = flag("DisableGuestSeLinux", ONLY_CURRENT)
    legacy_serial: bool = flag("LegacySerial", ONLY_CURRENT)
    extra_monitor_socket: str = text("ExtraMonitorSocket", ONLY_CURRENT)
    qgs_port: int = uint32("QgsPort", ONLY_CURRENT)
    initdata: str = text("Initdata", ONLY_CURRENT)
    initdata_digest: bytes = octets("InitdataDigest", ONLY_CURRENT)
    initdata_image: str = text("InitdataImage", ONLY_CURRENT)
    default_gpus: int = uint32("DefaultGPUs", ONLY_CURRENT)
    default_gpu_model: str = text("DefaultGPUModel", ONLY_CURRENT)
    measurement_algo: str = text("MeasurementAlgo", ONLY_CURRENT)
    # Runtime 1.x only.
    num_vcpus: int = uint32("NumVCPUs", ONLY_1X)
    hypervisor_ctl_path_list: tuple[str, ...] = texts("HypervisorCtlPathList", ONLY_1X)
    hypervisor_ctl_path: str = text("HypervisorCtlPath", ONLY_1X)
    file_backed_mem_root_dir: str = text("FileBackedMemRootDir", ONLY_1X)
    file_backed_mem_root_list: tuple[str, ...] = texts("FileBackedMemRootList", ONLY_1X)
    realtime: bool = flag("Realtime", ONLY_1X)
    mlock: bool = flag("Mlock", ONLY_1X)
    use_vsock: bool = flag("UseVSock", ONLY_1X)
    hotplug_vfio_on_root_bus: bool = flag("HotplugVFIOOnRootBus", ONLY_1X)

    @property
    def vcpus(self) -> int:
        """The number of CPUs of a VM; 0 if neither generation's field is set."""
        return math.ceil(self.num_vcpus_f) or self.num_vcpus
