"""The configuration of a Kata factory, and Kata's validation of it."""

from __future__ import annotations

import enum
from typing import Final

import attrs

from pool.kata.errors import InvalidConfigError
from pool.kata.records.gojson import GoRecord, flag, struct, text, texts, uint32
from pool.kata.records.gokinds import ONLY_1X, ONLY_CURRENT, Generation
from pool.kata.records.hypervisor_config import HypervisorConfig
from vmm.words.machines import MAX_VCPUS, AgentChannel, AgentKind

QEMU: Final = "qemu"
KATA_AGENT: Final = "kata"

DEFAULT_TEMPLATE_PATH: Final = "/run/vc/vm/template"
DEFAULT_CACHE_ENDPOINT: Final = "/var/run/kata-containers/cache.sock"

_DEFAULT_MEMORY_MIB: Final = 2048
_DEFAULT_BRIDGES: Final = 1
_DEFAULT_MSIZE_9P: Final = 8192
_S390_MACHINE: Final = "s390-ccw-virtio"


@attrs.frozen(kw_only=True)
class KataAgentConfig(GoRecord):
    """How Kata talks to the agent in the guest. Timeouts are in seconds."""

    kernel_modules: tuple[str, ...] = texts("KernelModules")
    container_pipe_size: int = uint32("ContainerPipeSize")
    dial_timeout: int = uint32("DialTimeout", ONLY_CURRENT)
    cdh_api_timeout: int = uint32("CdhApiTimeout", ONLY_CURRENT)
    launch_process_timeout: int = uint32("LaunchProcessTimeout", ONLY_CURRENT)
    long_live_conn: bool = flag("LongLiveConn")
    debug: bool = flag("Debug")
    trace: bool = flag("Trace")
    enable_debug_console: bool = flag("EnableDebugConsole", ONLY_CURRENT)
    visible_cdi_devices: bool = flag("VisibleCdiDevices", ONLY_CURRENT)
    policy: str = text("Policy", ONLY_CURRENT)
    use_vsock: bool = flag("UseVSock", ONLY_1X)
    trace_mode: str = text("TraceMode", ONLY_1X)
    trace_type: str = text("TraceType", ONLY_1X)


@attrs.frozen(kw_only=True)
class ProxyConfig(GoRecord):
    path: str = text("Path")
    debug: bool = flag("Debug")


@attrs.frozen(kw_only=True)
class VMConfig(GoRecord):
    """The properties that decide whether a VM can serve a request. Types of agent and proxy are runtime 1.x's only."""

    hypervisor_type: str = text("HypervisorType")
    agent_config: KataAgentConfig = struct("AgentConfig", KataAgentConfig)
    hypervisor_config: HypervisorConfig = struct("HypervisorConfig", HypervisorConfig)
    agent_type: str = text("AgentType", ONLY_1X)
    proxy_type: str = text("ProxyType", ONLY_1X)
    proxy_config: ProxyConfig = struct("ProxyConfig", ProxyConfig, ONLY_1X)

    def valid(self, generation: Generation = Generation.CURRENT) -> VMConfig:
        """This configuration with Kata's defaults filled in. Raises InvalidConfigError.

        Checks and their order are those of Kata's `VMConfig.Valid`. Files are not checked.
        """
        return attrs.evolve(self, hypervisor_config=_valid(self.hypervisor_config, generation))

    def check_request(self) -> None:
        """Runtime 1.x's additional checks of a request's configuration. Raises InvalidConfigError."""
        if not self.agent_type:
            raise InvalidConfigError("Missing agent type")
        if not self.proxy_type:
            raise InvalidConfigError("Missing proxy type")


def _valid(config: HypervisorConfig, generation: Generation) -> HypervisorConfig:
    current = generation is Generation.CURRENT
    if current and config.remote_hypervisor_socket:
        return config
    if not config.kernel_path:
        raise InvalidConfigError("Missing kernel path")
    _check_rootfs(config, current=current)
    _check_template(config, current=current)
    if current:
        filled = attrs.evolve(config, num_vcpus_f=config.num_vcpus_f or 1.0)
    else:
        filled = attrs.evolve(config, num_vcpus=config.num_vcpus or 1)
    driver = filled.block_device_driver or "virtio-scsi"
    if current and config.block_device_driver == "virtio-blk" and config.hypervisor_machine_type == _S390_MACHINE:
        driver = "virtio-blk-ccw"
    if current and config.confidential_guest and driver == "virtio-mmio":
        raise InvalidConfigError(
            "confidential guests must not use virtio-mmio (use virtio-blk-pci); virtio-mmio is not hardened for CoCo"
        )
    too_many = current and filled.default_max_vcpus > MAX_VCPUS
    return attrs.evolve(
        filled,
        memory_size=filled.memory_size or _DEFAULT_MEMORY_MIB,
        default_bridges=filled.default_bridges or _DEFAULT_BRIDGES,
        block_device_driver=driver,
        default_max_vcpus=MAX_VCPUS if too_many else filled.default_max_vcpus or MAX_VCPUS,
        msize_9p=filled.msize_9p or (0 if filled.shared_fs == "virtio-fs" else _DEFAULT_MSIZE_9P),
    )


def _check_rootfs(config: HypervisorConfig, *, current: bool) -> None:
    if current and config.confidential_guest and config.hypervisor_machine_type == _S390_MACHINE:
        if config.image_path or config.initrd_path:
            raise InvalidConfigError("Neither the image or initrd path may be set for Secure Execution")
    elif not (config.image_path or config.initrd_path):
        raise InvalidConfigError("Missing image and initrd path")
    elif current and config.image_path and config.initrd_path:
        raise InvalidConfigError("Image and initrd path cannot be both set")


def _check_template(config: HypervisorConfig, *, current: bool) -> None:
    if config.boot_to_be_template and config.boot_from_template:
        raise InvalidConfigError("Cannot set both 'to be' and 'from' vm tempate")  # Kata's spelling
    if not (config.boot_to_be_template or config.boot_from_template):
        return
    if not config.memory_path:
        raise InvalidConfigError("Missing MemoryPath for vm template")
    if config.boot_from_template and not config.devices_state_path:
        raise InvalidConfigError(f"Missing DevicesStatePath to {'Load' if current else 'load'} from vm template")


class FactoryKind(enum.Enum):
    """The source of a factory's base VMs."""

    DIRECT = "direct"
    TEMPLATE = "template"
    CACHE_CLIENT = "grpccache"


@attrs.frozen(kw_only=True)
class FactoryConfig:
    """A factory. With `vm_cache` and no `cache` of its own it is a client of another cache."""

    template: bool = False
    vm_cache: bool = False
    cache: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    """Number of VMs kept ready."""
    template_path: str = DEFAULT_TEMPLATE_PATH
    vm_cache_endpoint: str = DEFAULT_CACHE_ENDPOINT
    vm_config: VMConfig = attrs.field(factory=VMConfig)
    agent: AgentKind = AgentKind.NOOP
    """The agent that vmpool uses in the guest. Kata's own agent answers Kata only."""
    channel: AgentChannel = AgentChannel.VIRTIO_SERIAL
    """The device that leads to that agent, or else to the agent of the VM's taker."""

    def choose(self, *, fetch_only: bool, generation: Generation = Generation.CURRENT) -> FactoryKind:
        """The kind that Kata's `NewFactory` would make, with `cache` kept VMs if not 0. Raises InvalidConfigError.

        With `fetch_only` a factory uses what exists and makes nothing.
        """
        self.vm_config.valid(generation)
        if fetch_only and self.cache:
            raise InvalidConfigError("cache factory does not support fetch")
        if self.vm_cache and not self.cache:
            return FactoryKind.CACHE_CLIENT
        return FactoryKind.TEMPLATE if self.template else FactoryKind.DIRECT
