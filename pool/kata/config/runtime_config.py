"""Kata's configuration file, `configuration.toml`, and the drop-ins beside it.

As in Kata, unknown keys are ignored, `config.d/*` next to the file is merged in the order of names, and paths are
resolved. Unlike in Kata, every problem is reported, with its key. One table is ours, and unknown to Kata: [vmpool].
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from pool.kata.config.agent_table import Client, read_agent, read_proxy
from pool.kata.config.factory_table import FactoryTable, read_factory
from pool.kata.config.kernel_params import all_params, parse_params
from pool.kata.config.own_table import GuestAgent, agent_of, generation_of, read_own
from pool.kata.config.qemu_section import HostSize, read_hypervisor
from pool.kata.config.section import Section, table_of
from pool.kata.records.config import KATA_AGENT, QEMU, FactoryConfig, VMConfig
from pool.kata.records.gokinds import FLAG, Generation
from pool.settings.config import ConfigError

_HYPERVISORS: Final = frozenset({"acrn", "clh", "dragonball", "firecracker", "qemu", "remote", "stratovirt"})
_MIB: Final = 2**20
_JAEGER: Final = "http://localhost:14268/api/traces"
"""Kata's default."""
_OTLP_PORT: Final = 4318


@attrs.frozen(kw_only=True)
class RuntimeConfig:
    """The contents of a file. `factory.cache` is its vm_cache_number."""

    source: Path
    generation: Generation
    agent: GuestAgent
    table: FactoryTable
    """The factory's settings, with the table that they are from."""
    factory: FactoryConfig
    otlp_endpoint: str | None = None
    """Where spans are sent, if `enable_tracing` is set."""


def load_runtime_config(path: Path, *, host: HostSize | None = None, client: Client = Client.COMMAND) -> RuntimeConfig:
    """Reads a file of either generation; without `host`, limits are those of this host. Raises ConfigError.

    Blocks only for file operations.
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
    own = read_own(tables, problems)
    generation = generation_of(own, tables)
    factory = read_factory(tables, problems)
    runtime = Section(path="runtime", table=table_of(tables, "runtime", problems), problems=problems)
    vm_config = _vm_config(
        tables,
        problems,
        generation=generation,
        host=host,
        client=client,
        caches=factory.cache > 0,
        debug=runtime.get("enable_debug", FLAG),
    )
    hypervisor = vm_config.hypervisor_config
    if factory.template and generation is Generation.RUNTIME_1X and not hypervisor.initrd_path:
        problems.append(f"{factory.template_key}: Factory option enable_template requires an initrd image")
    agent = agent_of(own, generation=generation, use_vsock=hypervisor.use_vsock)
    return RuntimeConfig(
        source=source,
        otlp_endpoint=_otlp_endpoint(runtime),
        generation=generation,
        agent=agent,
        table=factory,
        factory=FactoryConfig(
            template=factory.template,
            vm_cache=factory.cache > 0,
            cache=factory.cache,
            template_path=factory.template_path,
            vm_cache_endpoint=factory.cache_endpoint,
            vm_config=vm_config,
            agent=agent.kind,
            channel=agent.channel,
        ),
    )


def _otlp_endpoint(runtime: Section) -> str | None:
    """Kata sends spans to Jaeger's own port. Jaeger accepts OTLP on another port of the same host."""
    tracing = runtime.get("enable_tracing", FLAG)
    jaeger = runtime.text("jaeger_endpoint", _JAEGER)
    if not tracing:
        return None
    for key in ("jaeger_user", "jaeger_password"):
        if runtime.text(key):
            runtime.fault(key, "set credentials in the environment variable OTEL_EXPORTER_OTLP_HEADERS instead")
    url = re.fullmatch(r"(https?://(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+))(?::\d+)?(?:/[!-~]*)?", jaeger, re.ASCII)
    if url is None:
        runtime.fault("jaeger_endpoint", f"{jaeger!r} is not a URL; give one like {_JAEGER}")
        return None
    return f"{url[1]}:{_OTLP_PORT}"


def _vm_config(
    tables: Mapping[str, Any],
    problems: list[str],
    *,
    generation: Generation,
    host: HostSize,
    client: Client,
    caches: bool,
    debug: bool,
) -> VMConfig:
    hypervisors = table_of(tables, "hypervisor", problems)
    problems += (
        f'hypervisor.{name}: configuration file contains invalid hypervisor section: "{name}"'
        for name in sorted(set(hypervisors) - _HYPERVISORS)
    )
    if QEMU not in hypervisors:
        problems.append(
            "hypervisor: VM cache just support qemu"
            if caches and hypervisors
            else "hypervisor.qemu: vmpool runs QEMU only; add this table to the file"
        )
        return VMConfig()
    section = Section(
        path="hypervisor.qemu", table=table_of(hypervisors, QEMU, problems, prefix="hypervisor."), problems=problems
    )
    hypervisor = read_hypervisor(section, generation=generation, host=host)
    _check_rootfs(section, hypervisor.image_path, hypervisor.initrd_path, hypervisor.memory_size, generation)
    use_vsock = hypervisor.use_vsock
    agent = read_agent(tables, problems, generation=generation, use_vsock=use_vsock, client=client)
    user = parse_params(section.text("kernel_params"), generation)
    for param in user:
        if not param.key:
            section.fault("kernel_params", f"Empty kernel parameter: {'=' + param.value!r} has no name")
    params = all_params(hypervisor, agent, user=user, generation=generation)
    config = VMConfig(
        hypervisor_type=QEMU, agent_config=agent, hypervisor_config=attrs.evolve(hypervisor, kernel_params=params)
    )
    if generation is Generation.CURRENT:
        return config
    proxy_type, proxy = read_proxy(tables, problems, use_vsock=use_vsock, client=client, debug=debug)
    return attrs.evolve(config, agent_type=KATA_AGENT, proxy_type=proxy_type, proxy_config=proxy)


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
            continue  # already reported
        if not size:
            section.fault(key, f'image "{file}" is empty')
        if key == "initrd" and size // _MIB >= memory_mib:  # it is unpacked into memory
            section.fault(key, f'VM memory ({memory_mib}MB) smaller than image "{file}" size ({size // _MIB}MB)')
