"""Converts Kata's configuration file to settings of this service: one profile, for the Kata factory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from pool.kata.config.agent_table import Client
from pool.kata.config.factory_table import FactoryTable
from pool.kata.config.kernel_params import serialize_params
from pool.kata.config.own_table import USE_VSOCK, GuestAgent
from pool.kata.config.qemu_section import HostSize
from pool.kata.config.runtime_config import RuntimeConfig, load_runtime_config
from pool.kata.errors import InvalidConfigError
from pool.kata.records.config import FactoryConfig, FactoryKind, VMConfig
from pool.kata.records.gokinds import Generation
from pool.kata.records.hypervisor_config import HypervisorConfig
from pool.observe.tracing import TracingSettings
from pool.producers.direct import DirectSettings
from pool.producers.template import TemplateSettings
from pool.settings.config import DEFAULT_QEMU, ConfigError, ProfileSettings, Settings
from pool.settings.limits import UNREACHED, LimitSettings
from vmm.devices.vsock import LOAD_MODULE, check_vsock
from vmm.errors import MissingFileError, SpecError, TemplateError
from vmm.words.machines import MAX_MEMORY_MIB, MAX_PCI_BRIDGES, Accelerator, AgentChannel, AgentKind

LIMITS: Final = LimitSettings(leases_per_user=UNREACHED, requests_per_user=1000, max_open_requests=2000)
"""Kata's file names no users: all sandboxes of a host are requested by a single one, so per-user limits are lifted."""

PROFILE: Final = "default"

TEMPLATE_SUBDIRECTORY: Final = "vmpool"
"""Below Kata's template_path. Kata's own template has the same file names there, in a different format."""

UNLIKE_CLONES: Final = (
    "clones must be reseeded, and vmpool cannot use Kata's agent for that; use a guest with another agent, and name it "
    'under [vmpool]: agent = "builtin" or "qga"'
)

NO_CLIENT_OF_CURRENT_KATA: Final = (
    "a client of Kata 2 or later looks for the agent of a cached VM at the wrong address, with any server; vmpool's "
    "clients and clients made from cache.proto can use these VMs; if the file is of runtime 1.x, set under "
    '[vmpool]: kata = "runtime 1.x"'
)

_KEYS: Final = {
    "size": "factory.vm_cache_number",
    "memory_mib": "hypervisor.qemu.default_memory",
    "max_memory_mib": "hypervisor.qemu.default_maxmemory",
    "vcpus": "hypervisor.qemu.default_vcpus",
    "max_vcpus": "hypervisor.qemu.default_maxvcpus",
    "kernel_parameters": "hypervisor.qemu.kernel_params",
    "cpu_model": "hypervisor.qemu.cpu_features",
    "qemu": "hypervisor.qemu.path",
    "kernel": "hypervisor.qemu.kernel",
    "initrd": "hypervisor.qemu.initrd",
    "pci_bridges": "hypervisor.qemu.default_bridges",
}
"""Keys of the file by the profile's fields that they set."""


@attrs.frozen(kw_only=True)
class CacheSettings:
    """The VMCache service beside the service's own API."""

    endpoint: Path
    profile: str
    vm_config: VMConfig
    """The configuration of its VMs, valid and with Kata's defaults."""
    generation: Generation
    useless_to_kata: str = ""
    """Why no stock client can use its VMs; empty if one can."""


@attrs.frozen(kw_only=True)
class KataSettings:
    """The service's settings when Kata's file replaces its own configuration file."""

    source: Path
    settings: Settings
    factory: FactoryConfig
    """Its `vm_config` is sent to clients of the cache."""
    generation: Generation
    agent: GuestAgent
    table: FactoryTable

    def check_host(self, *, check_vsock: Callable[[], None] = check_vsock) -> None:
        """Refuses a host without vsock, as Kata does. Raises ConfigError, naming the key that requires it."""
        if self.agent.channel is AgentChannel.VSOCK:
            try:
                check_vsock()
            except MissingFileError as error:
                problem = self.spell(error)
                if self.agent.channel_key == USE_VSOCK:  # without it no client could use the VMs: see `check_clients`
                    problem = f"{USE_VSOCK}: {error.path} does not exist or cannot be read; {LOAD_MODULE}"
                raise ConfigError(source=str(self.source), problems=(problem,)) from error

    def check_clients(self) -> None:
        """Raises ConfigError for a cache whose VMs no client could use, unless a key of ours asks for it."""
        if self.factory.cache and self.agent == GuestAgent(channel_key=USE_VSOCK):
            problem = (
                f"{USE_VSOCK}: without it Kata's clients look for the agent behind a kata-proxy, which vmpool does not "
                'start; set use_vsock = true, or channel = "virtio-serial" under [vmpool] for VMs whose agent no '
                "client can reach"
            )
            raise ConfigError(source=str(self.source), problems=(problem,))

    def spell(self, error: BaseException) -> str:
        """The text of a start-up error, with a profile's field replaced by the key of the file."""
        keys = _KEYS | {"channel": self.agent.channel_key}
        match error:
            case SpecError(field=field, value=value, reason=reason) if field in keys:
                return f"{keys[field]} = {value!r}: {reason}"
            case MissingFileError(field=field, path=path, remedy=remedy) if field in keys:
                return f"{keys[field]}: {path} does not exist or cannot be read; {remedy}"
            case TemplateError():  # its remedies name keys of a profile
                said = str(error).replace("template_directory", f"{self.table.template_table}.template_path")
                return said.replace('producer = "direct"', f"{self.table.template_key} = false")
            case _:
                return str(error)

    @property
    def cache(self) -> CacheSettings | None:
        """None if `vm_cache_number` is 0."""
        if not self.factory.cache:
            return None
        return CacheSettings(
            endpoint=Path(self.factory.vm_cache_endpoint),
            profile=PROFILE,
            vm_config=self.factory.vm_config.valid(self.generation),
            generation=self.generation,
            useless_to_kata=self._useless_to_kata(),
        )

    def _useless_to_kata(self) -> str:
        if self.generation is Generation.CURRENT:
            return NO_CLIENT_OF_CURRENT_KATA
        if self.agent.kind is not AgentKind.NOOP:
            return f"vmpool.agent = \"{self.agent.kind.value}\": Kata's clients speak to Kata's agent only"
        if self.agent.channel is not AgentChannel.VSOCK:
            return (
                f'vmpool.channel = "{self.agent.channel.value}": Kata\'s agent cannot be reached; remove it, and set '
                f"{USE_VSOCK} = true"
            )
        return ""


def settings_from_kata(path: Path, *, host: HostSize | None = None, client: Client = Client.COMMAND) -> KataSettings:
    """Reads Kata's file for `vmpool serve`. Raises ConfigError, naming keys.

    The profile keeps `vm_cache_number` VMs, made by cloning if `enable_template`; 0 keeps none, and the cache is off.
    """
    config = load_runtime_config(path, host=host, client=client)
    problems = _obstacles(config)
    try:
        kind = config.factory.choose(fetch_only=False, generation=config.generation)
    except InvalidConfigError as error:
        raise ConfigError(source=str(path), problems=(f"hypervisor.qemu: {error}", *problems)) from error
    if problems:
        raise ConfigError(source=str(path), problems=tuple(problems))
    try:
        profile = profile_of(config.factory, kind)
    except (SpecError, ValueError) as error:
        raise ConfigError(source=str(path), problems=(_with_key(error, config.agent),)) from error
    return KataSettings(
        source=path,
        settings=Settings(
            limits=LIMITS,
            profiles={PROFILE: profile},
            tracing=TracingSettings(otlp_endpoint=config.otlp_endpoint),
        ),
        factory=config.factory,
        generation=config.generation,
        agent=config.agent,
        table=config.table,
    )


def _obstacles(config: RuntimeConfig) -> list[str]:
    """Values that Kata's factory refuses when it makes its first VM, and VMs that this service cannot make."""
    hypervisor = config.factory.vm_config.hypervisor_config
    old = config.generation is Generation.RUNTIME_1X
    problems = []
    machine = hypervisor.hypervisor_machine_type
    if machine != "q35":
        said = (
            "vmpool makes q35 machines only" if old or machine == "microvm" else f"unrecognised machinetype: {machine}"
        )
        problems.append(f'hypervisor.qemu.machine_type: {said}; set "q35"')
    if hypervisor.image_path:
        problems.append("hypervisor.qemu.image: vmpool boots an initrd only; set initrd instead")
    problems += [f"hypervisor.qemu.{key}: {reason}; remove it" for key, reason in _promised_in_vain(hypervisor)]
    if config.factory.template and (
        hypervisor.shared_fs == "virtio-fs" or (old and hypervisor.file_backed_mem_root_dir)
    ):
        cause = "either virtio-fs or file backed memory" if old else "virtio-fs"
        remedy = "none" if config.table.of_runtime_rs else "virtio-9p"
        problems.append(
            f"hypervisor.qemu.shared_fs: VM templating has been enabled with {cause} and this configuration will not "
            f'work; set "{remedy}"'
        )
    if config.factory.template and config.factory.agent is AgentKind.NOOP:
        problems.append(f"{config.table.template_key}: {UNLIKE_CLONES}")
    return problems


def _promised_in_vain(hypervisor: HypervisorConfig) -> Iterator[tuple[str, str]]:
    """Keys that promise features that our machines lack, each with the reason."""
    confidential = "the host can read the memory of vmpool's machines"
    firmware = "vmpool's machines have QEMU's own firmware"
    for wanted, key, reason in (
        (hypervisor.confidential_guest, "confidential_guest", confidential),
        (hypervisor.sev_snp_guest, "sev_snp_guest", confidential),
        (hypervisor.huge_pages, "enable_hugepages", "vmpool's machines have no huge pages"),
        (hypervisor.firmware_path, "firmware", firmware),
        (hypervisor.firmware_volume_path, "firmware_volume", firmware),
        (hypervisor.pflash, "pflashes", firmware),
    ):
        if wanted:
            yield key, reason


def profile_of(factory: FactoryConfig, kind: FactoryKind) -> ProfileSettings:
    """A profile that makes a factory's VMs. Raises SpecError or ValueError for unsupported values."""
    hypervisor = factory.vm_config.hypervisor_config
    template = kind is FactoryKind.TEMPLATE
    profile = ProfileSettings(
        size=factory.cache,
        vcpus=hypervisor.vcpus,
        max_vcpus=max(hypervisor.default_max_vcpus, hypervisor.vcpus),
        memory_mib=hypervisor.memory_size,
        max_memory_mib=max(min(hypervisor.default_max_memory_size, MAX_MEMORY_MIB), hypervisor.memory_size),
        qemu=hypervisor.hypervisor_path or DEFAULT_QEMU,
        kernel=Path(hypervisor.kernel_path),
        initrd=Path(hypervisor.initrd_path),
        kernel_parameters=serialize_params(hypervisor.kernel_params),
        # Kata says `host`, which is `max` under KVM, and nothing without it.
        cpu_model=",".join(part for part in ("max", hypervisor.cpu_features) if part),
        pci_bridges=min(hypervisor.default_bridges, MAX_PCI_BRIDGES),
        producer=TemplateSettings(template_directory=Path(factory.template_path) / TEMPLATE_SUBDIRECTORY)
        if template
        else DirectSettings(),
        agent=factory.agent,
        channel=factory.channel,
    )
    nowhere = Path("/")
    profile.machine(qemu=nowhere, kernel=nowhere, initrd=nowhere, accelerator=Accelerator.TCG)  # checks the limits
    return profile


def _with_key(error: Exception, agent: GuestAgent) -> str:
    """A fault in a profile's field, named by the key of Kata's file."""
    keys = _KEYS | {"channel": agent.channel_key}
    if isinstance(error, SpecError):
        return f"{keys[error.field]}: {error.reason}"
    said = str(error.args[0])  # attrs adds more; the first argument has the field's name in quotes
    named = re.search(r"'(\w+)' ", said)
    assert named is not None
    return f"{keys[named[1]]}: {said.removeprefix(named[0])}"
