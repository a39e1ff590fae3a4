"""The messages of VMCache: Go's JSON inside protocol buffers, converted to records and back.

Messages written without a generation have the fields of both; each generation reads its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from pool.kata.errors import InvalidConfigError, WireError
from pool.kata.records.config import KATA_AGENT, QEMU, KataAgentConfig, VMConfig
from pool.kata.records.gojson import (
    GoRecord,
    decode,
    encode,
    flag,
    int64,
    mapping,
    records,
    struct,
    text,
    uint32,
    uint64,
)
from pool.kata.records.gokinds import ONLY_1X, ONLY_CURRENT, UINT32, Generation, Generations
from vmpool.wire.generated.cache import GrpcVm, GrpcVmConfig

AGENT_VSOCK_PORT: Final = 1024

_PROPOSED: Final = Generations()
"""In neither generation, but in pull request 3906 of kata-containers."""

_NAMES_OF_HYPERVISORS: Final = {"clh": "cloudHypervisor", "mock": "mockHypervisor"}


@attrs.frozen(kw_only=True)
class Bridge(GoRecord):
    """A PCI bridge for hot-plugged devices. Kata's client adds devices only to the bridges that it receives."""

    devices: Mapping[int, str] = mapping("Devices", key=UINT32, former="Address")
    """Slot to device id. Runtime 1.6 to 1.8 use the other name."""
    id: str = text("ID")
    type: str = text("Type")
    addr: int = int64("Addr")
    max_capacity: int = uint32("MaxCapacity")
    parent_id: str = text("ParentID", ONLY_CURRENT)
    parent_addr: int = int64("ParentAddr", ONLY_CURRENT)


@attrs.frozen(kw_only=True)
class HotpluggedVcpu(GoRecord):
    id: str = text("ID")


@attrs.frozen(kw_only=True)
class QemuState(GoRecord):
    uuid: str = text("UUID")
    hot_plug_vfio: str = text("HotPlugVFIO", ONLY_CURRENT)
    bridges: tuple[Bridge, ...] = records("Bridges", Bridge)
    hotplugged_vcpus: tuple[HotpluggedVcpu, ...] = records("HotpluggedVCPUs", HotpluggedVcpu)
    hotplugged_memory: int = int64("HotpluggedMemory")
    """MiB."""
    virtiofs_daemon_pid: int = int64("VirtiofsDaemonPid", ONLY_CURRENT)
    hotplug_vfio: str = text("HotplugVFIO", ONLY_CURRENT)
    """A duplicate of `hot_plug_vfio` that is never read."""
    cold_plug_vfio: str = text("ColdPlugVFIO", ONLY_CURRENT)
    pcie_root_port: int = uint32("PCIeRootPort")
    pcie_switch_port: int = uint32("PCIeSwitchPort", ONLY_CURRENT)
    hotplug_vfio_on_root_bus: bool = flag("HotplugVFIOOnRootBus", ONLY_1X)
    virtiofsd_pid: int = int64("VirtiofsdPid", ONLY_1X)


@attrs.frozen(kw_only=True)
class Smp(GoRecord):
    """QEMU's -smp."""

    cpus: int = uint32("CPUs")
    cores: int = uint32("Cores")
    threads: int = uint32("Threads")
    sockets: int = uint32("Sockets")
    max_cpus: int = uint32("MaxCPUs")


@attrs.frozen(kw_only=True)
class QemuGrpc(GoRecord):
    """Everything that a client receives about its QEMU. The pid is not included."""

    id: str = text("ID")
    qmp_channel_path: str = text("QmpChannelpath")
    state: QemuState = struct("State", QemuState)
    nvdimm_count: int = int64("NvdimmCount")
    qemu_smp: Smp = struct("QemuSMP", Smp)
    context_id: int = uint64("ContextID", _PROPOSED)
    """The guest's vsock CID; 0 if it has none. Without it a current client looks for the agent at a random CID."""


@attrs.frozen(kw_only=True)
class CachedVm:
    """A paused VM on its way from a VMCache server to its client."""

    id: str
    qemu: QemuGrpc
    vcpus: int
    memory_mib: int
    vcpus_offline: int = 0
    """Hot-added, but not online yet."""
    proxy_pid: int = 0
    """The process between client and agent, killed with the VM by a client of runtime 1.x; 0 if there is no proxy."""
    agent_url: str = ""
    """Address of the agent or its proxy. Current servers leave it empty."""


def config_to_grpc(config: VMConfig, generation: Generation | None = None) -> GrpcVmConfig:
    """Raises InvalidConfigError for an agent that runtime 1.x has no configuration for."""
    if config.agent_type not in ("", KATA_AGENT):
        raise InvalidConfigError("agent type is not supported by VM cache")
    return GrpcVmConfig(data=encode(config, generation), agent_config=encode(config.agent_config, generation))


def config_from_grpc(message: GrpcVmConfig) -> VMConfig:
    """The agent's own message, if there is one, takes precedence over Data.

    Raises WireError, InvalidConfigError.
    """
    config = decode(VMConfig, message.data)
    if config.agent_type not in ("", KATA_AGENT):
        raise InvalidConfigError(f"agent type {config.agent_type} is not supported by VM cache")
    try:
        agent_config = decode(KataAgentConfig, message.agent_config)
    except WireError:
        return config
    return attrs.evolve(config, agent_config=agent_config)


def vm_to_grpc(vm: CachedVm) -> GrpcVm:
    """For clients of both generations at once.

    Raises ValueError if `proxy_pid` is not one process. Kata's server sends 0 if there is no proxy; a client of runtime
    1.x that assumes a proxy then sends SIGTERM to 0, its own process group.
    """
    if vm.proxy_pid <= 0:
        raise ValueError(f"proxy_pid: {vm.proxy_pid} is not the pid of one process; a client may signal it")
    return GrpcVm(
        id=vm.id,
        hypervisor=encode(vm.qemu),
        proxy_pid=vm.proxy_pid,
        proxy_url=vm.agent_url,
        cpu=vm.vcpus,
        memory=vm.memory_mib,
        cpu_delta=vm.vcpus_offline,
    )


def vm_from_grpc(message: GrpcVm, *, hypervisor_type: str) -> CachedVm:
    """`hypervisor_type` is that of the server's configuration; only VMs of QEMU can be transferred.

    Raises WireError, InvalidConfigError.
    """
    if hypervisor_type != QEMU:
        name = _NAMES_OF_HYPERVISORS.get(hypervisor_type, hypervisor_type)
        raise InvalidConfigError(f"{name} is not supported by VM cache")
    return CachedVm(
        id=message.id,
        qemu=decode(QemuGrpc, message.hypervisor),
        vcpus=message.cpu,
        memory_mib=message.memory,
        vcpus_offline=message.cpu_delta,
        proxy_pid=message.proxy_pid,
        agent_url=message.proxy_url,
    )


def vsock_url(context_id: int) -> str:
    """The address of Kata's agent, as runtime 1.x spells it."""
    return f"vsock://{context_id}:{AGENT_VSOCK_PORT}"
