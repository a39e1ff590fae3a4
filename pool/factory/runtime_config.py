"""Kata's configuration file, `configuration.toml`, and the drop-ins beside it.

As in Kata unknown keys are passed over, `config.d/*` next to the file is laid on top in order of names, and paths are
resolved. Unlike Kata every fault is told, with its key. One table is ours, and unknown to Kata: [vmpool].
"""

from __future__ import annotations

import enum
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from pool.config import ConfigError
from pool.factory.config import (
    DEFAULT_CACHE_ENDPOINT,
    DEFAULT_TEMPLATE_PATH,
    KATA_AGENT,
    QEMU,
    FactoryConfig,
    KataAgentConfig,
    VMConfig,
)
from pool.factory.generation import Generation
from pool.factory.gokinds import FLAG, TEXT, UINT32, ListOf
from pool.factory.kernel_params import all_params, parse_params
from pool.factory.qemu_section import HostSize, read_hypervisor
from pool.factory.section import Section
from vmm.spec import AgentChannel, AgentKind

_HYPERVISORS: Final = frozenset({"acrn", "clh", "dragonball", "firecracker", "qemu", "remote", "stratovirt"})
_TRACE_MODES: Final = ("dynamic", "static")
_TRACE_TYPES: Final = ("isolated", "collated")
_MIB: Final = 2**20
_JAEGER: Final = "http://localhost:14268/api/traces"
"""Kata's default."""
_OTLP_PORT: Final = 4318


class Client(enum.Enum):
    """Whose loader is imitated, for runtime 1.x: its two programs make different configurations of one file."""

    COMMAND = "kata-runtime"
    SHIM = "containerd-shim-kata-v2"


@attrs.frozen(kw_only=True)
class RuntimeConfig:
    """What a file says. `factory.cache` is its vm_cache_number."""

    source: Path
    generation: Generation
    """1.x if the file has a [proxy] or [shim] table, which ended with it."""
    factory: FactoryConfig
    otlp_endpoint: str | None = None
    """Where spans go, if `enable_tracing` says so."""


def load_runtime_config(path: Path, *, host: HostSize | None = None, client: Client = Client.COMMAND) -> RuntimeConfig:
    """Reads a file of either generation; without `host`, limits are this host's. Raises ConfigError.

    Blocks only as long as file operations do.
    """
    tables = _read(path)
    for drop_in in _drop_ins(path):
        tables = _merge(tables, _read(drop_in))
    problems: list[str] = []
    config = _interpret(tables, problems, source=path, host=host or HostSize.here(), client=client)
    if problems:
        raise ConfigError(source=str(path), problems=tuple(problems))
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(source=str(path), problems=(f"cannot be read: {error}",)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(source=str(path), problems=(f"not TOML: {error}",)) from error


def _drop_ins(path: Path) -> list[Path]:
    directory = path.resolve().parent / "config.d"
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(source=str(path), problems=(f"{directory} cannot be read: {error.strerror}",)) from error


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _interpret(
    tables: Mapping[str, Any], problems: list[str], *, source: Path, host: HostSize, client: Client
) -> RuntimeConfig:
    old = "proxy" in tables or "shim" in tables
    generation = Generation.RUNTIME_1X if old else Generation.CURRENT
    factory = Section(path="factory", table=_table(tables, "factory", problems), problems=problems)
    cache = factory.get("vm_cache_number", UINT32)
    vm_config = _vm_config(tables, problems, generation=generation, host=host, client=client, caches=cache > 0)
    template = factory.get("enable_template", FLAG)
    if template and old and not vm_config.hypervisor_config.initrd_path:
        factory.fault("enable_template", "Factory option enable_template requires an initrd image")
    runtime = Section(path="runtime", table=_table(tables, "runtime", problems), problems=problems)
    ours = Section(path="vmpool", table=_table(tables, "vmpool", problems), problems=problems)
    agent = ours.member("agent", AgentKind, AgentKind.NOOP)
    return RuntimeConfig(
        source=source,
        otlp_endpoint=_otlp_endpoint(runtime),
        generation=generation,
        factory=FactoryConfig(
            template=template,
            vm_cache=cache > 0,
            cache=cache,
            template_path=factory.text("template_path", DEFAULT_TEMPLATE_PATH),
            vm_cache_endpoint=factory.text("vm_cache_endpoint", DEFAULT_CACHE_ENDPOINT),
            vm_config=vm_config,
            agent=agent,
            channel=_channel(ours, agent, generation=generation, vm_config=vm_config),
        ),
    )


def _otlp_endpoint(runtime: Section) -> str | None:
    """Kata sends its spans to Jaeger's own port. Jaeger takes OTLP at another, on the same host."""
    tracing = runtime.get("enable_tracing", FLAG)
    jaeger = runtime.text("jaeger_endpoint", _JAEGER)
    if not tracing:
        return None
    for key in ("jaeger_user", "jaeger_password"):
        if runtime.text(key):
            runtime.fault(key, "set the variable OTEL_EXPORTER_OTLP_HEADERS instead, which says how to log in")
    url = re.fullmatch(r"(https?://(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+))(?::\d+)?(?:/[!-~]*)?", jaeger, re.ASCII)
    if url is None:
        runtime.fault("jaeger_endpoint", f"{jaeger!r} is no URL; it looks like {_JAEGER}")
        return None
    return f"{url[1]}:{_OTLP_PORT}"


def _channel(ours: Section, agent: AgentKind, *, generation: Generation, vm_config: VMConfig) -> AgentChannel:
    """Kata's own agent is behind vsock, but with runtime 1.x, where that is a choice."""
    vsock = generation is Generation.CURRENT or vm_config.hypervisor_config.use_vsock
    katas = AgentChannel.VSOCK if vsock else AgentChannel.VIRTIO_SERIAL
    return ours.member("channel", AgentChannel, katas if agent is AgentKind.NOOP else AgentChannel.VIRTIO_SERIAL)


def _vm_config(
    tables: Mapping[str, Any],
    problems: list[str],
    *,
    generation: Generation,
    host: HostSize,
    client: Client,
    caches: bool,
) -> VMConfig:
    hypervisors = _table(tables, "hypervisor", problems)
    problems += (
        f'hypervisor.{name}: configuration file contains invalid hypervisor section: "{name}"'
        for name in sorted(set(hypervisors) - _HYPERVISORS)
    )
    if QEMU not in hypervisors:
        problems.append(
            "hypervisor: VM cache just support qemu"
            if caches and hypervisors
            else "hypervisor.qemu: vmpool runs QEMU only; the file needs this table"
        )
        return VMConfig()
    section = Section(
        path="hypervisor.qemu", table=_table(hypervisors, QEMU, problems, "hypervisor."), problems=problems
    )
    hypervisor = read_hypervisor(section, generation=generation, host=host)
    _check_rootfs(section, hypervisor.image_path, hypervisor.initrd_path, hypervisor.memory_size, generation)
    agent = _agent(tables, problems, generation=generation, use_vsock=hypervisor.use_vsock, client=client)
    params = all_params(
        hypervisor, agent, user=parse_params(section.text("kernel_params"), generation), generation=generation
    )
    config = VMConfig(
        hypervisor_type=QEMU, agent_config=agent, hypervisor_config=attrs.evolve(hypervisor, kernel_params=params)
    )
    if generation is Generation.CURRENT:
        return config
    return attrs.evolve(config, agent_type=KATA_AGENT, proxy_type=_proxy_type(client, use_vsock=hypervisor.use_vsock))


def _check_rootfs(section: Section, image: str, initrd: str, memory_mib: int, generation: Generation) -> None:
    if generation is Generation.RUNTIME_1X:
        if image and initrd:
            section.fault(
                "image", "having both an image and an initrd defined in the configuration file is not supported"
            )
        if not (image or initrd):
            section.fault("image", "either image or initrd must be defined in the configuration file")
    for key, file in (("image", image), ("initrd", initrd)):
        try:
            size = Path(file).stat().st_size if file else 1
        except OSError:
            continue  # told of already
        if not size:
            section.fault(key, f'image "{file}" is empty')
        if key == "initrd" and size // _MIB >= memory_mib:  # it is unpacked into memory
            section.fault(key, f'VM memory ({memory_mib}MB) smaller than image "{file}" size ({size // _MIB}MB)')


def _agent(
    tables: Mapping[str, Any], problems: list[str], *, generation: Generation, use_vsock: bool, client: Client
) -> KataAgentConfig:
    agents = _table(tables, "agent", problems)
    old = generation is Generation.RUNTIME_1X
    if old:
        problems += (f"agent.{name}: {name} agent type is not supported" for name in sorted(set(agents) - {KATA_AGENT}))
        if client is Client.SHIM:
            return KataAgentConfig(long_live_conn=True, use_vsock=use_vsock)  # it does not look at the table
    config = KataAgentConfig(use_vsock=use_vsock)
    for name in agents:
        section = Section(path=f"agent.{name}", table=_table(agents, name, problems, "agent."), problems=problems)
        config = KataAgentConfig(
            kernel_modules=section.get("kernel_modules", ListOf(TEXT)),
            dial_timeout=section.get("dial_timeout", UINT32),
            cdh_api_timeout=section.get("cdh_api_timeout", UINT32),
            launch_process_timeout=section.get("launch_process_timeout", UINT32),
            long_live_conn=not old,
            debug=section.get("enable_debug", FLAG),
            trace=section.get("enable_tracing", FLAG),
            enable_debug_console=section.get("debug_console_enabled", FLAG),
            visible_cdi_devices=section.get("visible_cdi_devices", FLAG),
            use_vsock=use_vsock,
            trace_mode=section.text("trace_mode"),
            trace_type=section.text("trace_type"),
        )
        if old and config.trace:
            _check_trace(section, config)
    return config


def _check_trace(section: Section, config: KataAgentConfig) -> None:
    for what, value, among in (("mode", config.trace_mode, _TRACE_MODES), ("type", config.trace_type, _TRACE_TYPES)):
        if value and value not in among:
            one, other = among
            section.fault(f"trace_{what}", f'invalid kata agent trace {what}: "{value}" (need "{one}" or "{other}")')


def _proxy_type(client: Client, *, use_vsock: bool) -> str:
    if use_vsock:
        return "noProxy"
    return "kataProxy" if client is Client.COMMAND else "kataBuiltInProxy"


def _table(tables: Mapping[str, Any], name: str, problems: list[str], prefix: str = "") -> Mapping[str, Any]:
    table = tables.get(name, {})
    if isinstance(table, dict):
        return table
    problems.append(f"{prefix}{name}: must be a table")
    return {}
