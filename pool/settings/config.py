"""The settings of the service and its profiles, and their checks."""

from __future__ import annotations

import importlib.resources
import math
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import attrs
import cattrs
from attrs.validators import and_, ge, gt, le, matches_re, max_len, optional

from actors.handout import HAND_OUT_TIMEOUT_S, HandOutProcedure
from actors.memory import MemoryPolicy
from actors.uniqueness import Witness
from actors.vigil import Vigil
from pool.ledger.demand import AdaptiveSize
from pool.ledger.policy import OnEmpty, PoolPolicy
from pool.observe.tracing import TracingSettings
from pool.producers.direct import DirectSettings
from pool.producers.kind import ProducerSettings
from pool.settings.access import AccessSettings
from pool.settings.limits import LimitSettings
from pool.settings.metrics import MetricsSettings
from pool.settings.toml import make_converter, problems_of
from vmm.accounts import Account, check_account
from vmm.devices.usual import usual_devices
from vmm.errors import ConfinementError, SpecError
from vmm.spec import MachineSpec
from vmm.words.backoff import Backoff
from vmm.words.confinement import AUTO_USER, ConfinementWish, Layer, Requirement, UidRange
from vmm.words.cpu_model import fault_in
from vmm.words.machines import (
    MAX_MEMORY_MIB,
    MAX_PCI_BRIDGES,
    MAX_VCPUS,
    MEMORY_BLOCK_MIB,
    MIN_MEMORY_MIB,
    Accelerator,
    AcceleratorSetting,
    AgentChannel,
    AgentKind,
    grown_memory_mib,
)

MAX_POOL_SIZE: Final = 10_000
"""A larger number is probably a typing error."""

MAX_KERNEL_PARAMETERS: Final = 1024
"""In characters. With the driver's own parameters, less than x86's limit of 2048."""

PRINTABLE: Final = r"[ -~]*"

PROGRAM: Final = r"[^\0]{1,4096}"

DEFAULT_QEMU: Final = "qemu-system-x86_64"

_PROFILE_NAME: Final = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"


class ConfigError(Exception):
    """The configuration is invalid. `problems` has one sentence per fault, each with the key's path."""

    def __init__(self, *, source: str, problems: tuple[str, ...]) -> None:
        super().__init__(f"{source}: " + "; ".join(problems))
        self.source = source
        self.problems = problems


def _between(low: int, high: int) -> Any:
    return and_(ge(low), le(high))


def _is_cpu_model(_profile: object, _field: object, value: str) -> None:
    if fault := fault_in(value):
        raise ValueError(f"'cpu_model' {fault}: {value!r}")


@attrs.frozen(kw_only=True)
class ServiceSettings:
    runtime_directory: Path | None = None
    """For the sockets and logs of the VMs, one directory for each. None: the directory of the service's socket."""
    image_directory: Path | None = None
    """None: see `pool.host.paths`."""
    qemu_user: Account = AUTO_USER
    """The user that QEMU runs as."""
    qemu_uids: UidRange | None = None
    """If the service is root and `qemu_user` is "auto", each VM's QEMU has a uid of its own from this range. None: a
    default range, if it is available."""
    confinement: Requirement = Requirement.AUTO
    confinement_except: tuple[Layer, ...] = ()
    """Layers that are left out."""
    cgroups: Requirement = Requirement.AUTO
    memory: MemoryPolicy = attrs.field(factory=MemoryPolicy)
    """The table `[service.memory]`: when the host's memory is low, so that idle VMs are evicted."""

    @property
    def confinement_wish(self) -> ConfinementWish:
        """How VMs are to be confined."""
        return ConfinementWish(
            user=self.qemu_user,
            uids=self.qemu_uids,
            layers=self.confinement,
            without=self.confinement_except,
            cgroups=self.cgroups,
        )


@attrs.frozen(kw_only=True)
class ProfileSettings:
    """One `[profiles.NAME]` table."""

    size: int = attrs.field(default=2, validator=_between(0, MAX_POOL_SIZE))
    vcpus: int = attrs.field(default=1, validator=_between(1, MAX_VCPUS))
    memory_mib: int = attrs.field(default=256, validator=_between(MIN_MEMORY_MIB, MAX_MEMORY_MIB))
    max_vcpus: int | None = attrs.field(default=None)
    max_memory_mib: int | None = attrs.field(default=None)
    accelerator: AcceleratorSetting = AcceleratorSetting.AUTO
    qemu: str = attrs.field(default=DEFAULT_QEMU, validator=matches_re(PROGRAM))
    """A name in PATH, or a path."""
    kernel: Path | None = None
    initrd: Path | None = None
    kernel_parameters: str = attrs.field(default="", validator=[max_len(MAX_KERNEL_PARAMETERS), matches_re(PRINTABLE)])
    cpu_model: str = attrs.field(default="max", validator=_is_cpu_model)
    pci_bridges: int = attrs.field(default=0, validator=_between(0, MAX_PCI_BRIDGES))
    """For devices that the new owner hot-plugs into a VM that was given away."""
    agent: AgentKind = AgentKind.BUILTIN
    """The agent in the guest. The built image has the built-in one."""
    channel: AgentChannel = AgentChannel.VIRTIO_SERIAL
    """The device that connects the built-in agent."""
    producer: ProducerSettings = attrs.field(factory=DirectSettings)
    """The key `producer` names the kind; its settings are keys of the same table, see `pool.producers`."""
    min_ready: int = attrs.field(default=1, validator=_between(0, MAX_POOL_SIZE))
    """At least this many VMs stay ready while stale ones are replaced."""
    max_vms: int | None = attrs.field(default=None, validator=optional(_between(1, MAX_POOL_SIZE)))
    """Maximum of the profile's VMs, including leased ones. None: no limit."""
    on_empty: OnEmpty = OnEmpty.WAIT
    """For callers who do not choose what happens when no VM is ready."""
    max_age_s: float | None = attrs.field(default=None, validator=optional(gt(0)))
    """A VM that has been idle for this long is replaced. None: never."""
    check_interval_s: float = attrs.field(default=60.0, validator=and_(ge(0), le(24 * 3600)))
    """Time between two checks of a VM's agent, idle or leased; 0 for no checks."""
    silence_limit_s: float = attrs.field(default=300.0, validator=and_(ge(0), le(24 * 3600)))
    """A leased VM is given up when neither QEMU nor the agent has answered a check for this long; 0 for never."""
    adaptive: AdaptiveSize | None = None
    """The table `[profiles.NAME.adaptive]`: the size follows the demand. None: the size is `size`."""
    shells: int = attrs.field(default=0, validator=_between(0, 1000))
    """QEMU processes that are started in advance, to save their start after a miss; for producers that support it."""
    lease_ttl_s: float = attrs.field(default=3600.0, validator=and_(gt(0), le(30 * 24 * 3600)))
    """Time to live of a lease that is neither renewed nor held open by a call."""
    strict_uniqueness: bool = False
    """Read 32 random bytes and the identity from each guest at hand-out; refuse a VM that repeats any of them."""
    hand_out_timeout_s: float = attrs.field(default=HAND_OUT_TIMEOUT_S, validator=and_(gt(0), le(600)))
    """Time to resume and prepare a guest at hand-out, and again for each file; hot-adding gets 30 s more."""
    boot_timeout_s: float = attrs.field(default=60.0, validator=and_(gt(0), le(3600)))
    production_limit: int = attrs.field(default=2, validator=_between(1, 1000))
    backoff_initial_s: float = attrs.field(default=0.25, validator=and_(gt(0), le(3600)))
    backoff_maximum_s: float = attrs.field(default=30.0, validator=and_(gt(0), le(3600)))
    breaker_threshold: int = attrs.field(default=5, validator=_between(1, 1000))
    """Failed productions in a row that open the circuit: BOOT requests are then refused until a trial succeeds."""

    def procedure(self, *, witness: Witness | None = None) -> HandOutProcedure:
        """How the profile's VMs are handed out; `witness` is used with `strict_uniqueness`."""
        return HandOutProcedure(witness=witness if self.strict_uniqueness else None, timeout_s=self.hand_out_timeout_s)

    def vigil(self) -> Vigil:
        """How the profile's leased VMs are checked."""
        return Vigil(interval_s=self.check_interval_s or math.inf, silence_limit_s=self.silence_limit_s or math.inf)

    @property
    def most_vms(self) -> int:
        """The maximum of the profile's VMs by its settings; leased ones come on top unless `max_vms` is set."""
        return max(self.size, self.max_vms or 0, 0 if self.adaptive is None else self.adaptive.maximum)

    def policy(self, machine: MachineSpec) -> PoolPolicy:
        return PoolPolicy(
            max_vcpus=machine.max_vcpus,
            max_memory_mib=machine.max_memory_mib,
            size=self.size,
            adaptive=self.adaptive,
            max_vms=self.max_vms,
            on_empty=self.on_empty,
            memory_mib=machine.memory_mib,
            cost=self.producer.cost,
            production_limit=self.production_limit,
            shells=self.shells,
            min_ready=self.min_ready,
            max_age_s=math.inf if self.max_age_s is None else self.max_age_s,
            check_interval_s=self.check_interval_s or math.inf,
            breaker_threshold=self.breaker_threshold,
            backoff=Backoff(initial_s=self.backoff_initial_s, maximum_s=self.backoff_maximum_s),
        )

    def machine(self, *, qemu: Path, kernel: Path, initrd: Path, accelerator: Accelerator) -> MachineSpec:
        """The machine this profile describes. Raises SpecError naming the field."""
        return MachineSpec(
            qemu=qemu,
            kernel=kernel,
            initrd=initrd,
            accelerator=accelerator,
            vcpus=self.vcpus,
            memory_mib=self.memory_mib,
            max_vcpus=self.vcpus if self.max_vcpus is None else self.max_vcpus,
            max_memory_mib=self.memory_mib if self.max_memory_mib is None else self.max_memory_mib,
            kernel_parameters=self.kernel_parameters,
            cpu_model=self.cpu_model,
            devices=usual_devices(agent=self.agent, channel=self.channel),
            pci_bridges=self.pci_bridges,
        )


@attrs.frozen(kw_only=True)
class Settings:
    service: ServiceSettings = attrs.field(factory=ServiceSettings)
    access: AccessSettings = attrs.field(factory=AccessSettings)
    limits: LimitSettings = attrs.field(factory=LimitSettings)
    metrics: MetricsSettings = attrs.field(factory=MetricsSettings)
    tracing: TracingSettings = attrs.field(factory=TracingSettings)
    profiles: dict[str, ProfileSettings]


def load_settings(path: Path | None) -> Settings:
    """Reads a configuration file, or the embedded default for None. Raises ConfigError."""
    if path is None:
        return parse_settings(
            importlib.resources.files("pool").joinpath("default.toml").read_text(encoding="utf-8"),
            source="embedded default configuration",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(source=str(path), problems=(f"cannot be read: {error}",)) from error
    return parse_settings(text, source=str(path))


def parse_settings(text: str, *, source: str) -> Settings:
    """TOML text to settings. Raises ConfigError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(source=source, problems=(f"not TOML: {error}",)) from error
    try:
        settings = _converter.structure(table, Settings)
    except cattrs.BaseValidationError as error:
        raise ConfigError(source=source, problems=problems_of(error)) from error
    if not settings.profiles:
        raise ConfigError(source=source, problems=("profiles: at least one [profiles.NAME] table is needed",))
    problems = [problem for name, profile in settings.profiles.items() for problem in _cross_checks(name, profile)]
    problems += _shared_places(settings) + _unknown_qemu_user(settings)
    problems += settings.access.problems() + settings.limits.problems()
    if problems:
        raise ConfigError(source=source, problems=tuple(problems))
    return settings


def _cross_checks(name: str, profile: ProfileSettings) -> list[str]:
    """The problems that concern more than one field."""
    problems = []
    if not re.fullmatch(_PROFILE_NAME, name):
        problems.append(f"profiles.{name}: not a profile name; use 1 to 32 characters of a-z, 0-9 and -")
    if (profile.kernel is None) != (profile.initrd is None):
        problems.append(f"profiles.{name}: kernel and initrd go together; set both, or neither for the built image")
    if profile.shells and not profile.producer.has_shells:
        problems.append(f'profiles.{name}.shells: only the template producer has shells; set producer = "template"')
    if profile.backoff_initial_s > profile.backoff_maximum_s:
        problems.append(
            f"profiles.{name}.backoff_initial_s: {profile.backoff_initial_s:g} is more than "
            f"backoff_maximum_s ({profile.backoff_maximum_s:g}); lower it, or raise backoff_maximum_s"
        )
    if profile.max_vms is not None and profile.size > profile.max_vms:
        problems.append(
            f"profiles.{name}.size: {profile.size} is more than max_vms ({profile.max_vms}); "
            "lower size, or raise max_vms"
        )
    problems += _memory_steps(name, profile) + _agent_checks(name, profile)
    nowhere = Path("/")
    try:
        profile.machine(qemu=nowhere, kernel=nowhere, initrd=nowhere, accelerator=Accelerator.TCG)
    except SpecError as error:
        problems.append(f"profiles.{name}.{error}")
    return problems


def _memory_steps(name: str, profile: ProfileSettings) -> list[str]:
    """The problem of a maximum that no VM can reach in whole blocks."""
    base, most = profile.memory_mib, profile.max_memory_mib
    if most is None or most <= base or (most - base) % MEMORY_BLOCK_MIB == 0:
        return []
    above = grown_memory_mib(base, wished_mib=most)
    problem = (
        f"profiles.{name}.max_memory_mib: {most} cannot be reached from memory_mib ({base}) in blocks of "
        f"{MEMORY_BLOCK_MIB} MiB; set {above - MEMORY_BLOCK_MIB} or {above}"
    )
    return [problem]


def _agent_checks(name: str, profile: ProfileSettings) -> list[str]:
    """The problems of settings that the agent needs or does not support."""
    where = f"profiles.{name}.agent"
    problems = []
    if profile.agent is not AgentKind.BUILTIN and profile.kernel is None and profile.initrd is None:
        problems.append(
            f'{where}: the built guest image is for the built-in agent; with "{profile.agent.value}" set the kernel '
            "and initrd of your guest"
        )
    if profile.agent is AgentKind.NOOP and profile.producer.clones:
        problems.append(f'{where}: clones must be reseeded, which "noop" does not support; set producer = "direct"')
    growth = ((profile.vcpus, profile.max_vcpus), (profile.memory_mib, profile.max_memory_mib))
    grows = any(maximum is not None and maximum > least for least, maximum in growth)
    if profile.agent is AgentKind.NOOP and grows:
        problems.append(
            f'{where}: "noop" does not bring added CPUs and memory online; remove max_vcpus and max_memory_mib'
        )
    if profile.agent is AgentKind.NOOP and profile.strict_uniqueness:
        problems.append(f'{where}: "noop" cannot read random bytes from guests; set strict_uniqueness = false')
    return problems


def _shared_places(settings: Settings) -> list[str]:
    """The problems of places that two profiles share."""
    problems = []
    taken: dict[Path, str] = {}
    for name, profile in settings.profiles.items():
        for key, place in profile.producer.own_places().items():
            other = taken.setdefault(place.absolute(), name)
            if other != name:
                problems.append(
                    f"profiles.{name}.{key}: profile {other} already uses {place}; choose another directory"
                )
    return problems


def _unknown_qemu_user(settings: Settings) -> list[str]:
    try:
        check_account(settings.service.qemu_user, euid=os.geteuid())
    except ConfinementError as error:
        return [f"{error.what}: {error.reason}; {error.remedy}"]
    return []


_converter: Final = make_converter(profile=ProfileSettings)
