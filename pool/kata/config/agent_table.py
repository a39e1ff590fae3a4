"""`[agent.kata]`, and the tables between client and agent of runtime 1.x: `[proxy.kata]` and `[shim.kata]`.

Neither proxy nor shim is started here. Their tables are read because Kata refuses some values, and because clients
receive the proxy's.
"""

from __future__ import annotations

import enum
import os.path
from collections.abc import Mapping
from typing import Any, Final

import attrs

from pool.kata.config.section import Section, table_of
from pool.kata.records.config import KATA_AGENT, KataAgentConfig, ProxyConfig
from pool.kata.records.gokinds import FLAG, TEXT, UINT32, Generation, ListOf

_KATA: Final = "kata"
_TRACE_MODES: Final = ("dynamic", "static")
_TRACE_TYPES: Final = ("isolated", "collated")
_PROXY: Final = "/usr/libexec/kata-containers/kata-proxy"


class Client(enum.Enum):
    """The runtime 1.x program whose loader is imitated: its two programs read one file differently."""

    COMMAND = "kata-runtime"
    SHIM = "containerd-shim-kata-v2"


def read_agent(
    tables: Mapping[str, Any], problems: list[str], *, generation: Generation, use_vsock: bool, client: Client
) -> KataAgentConfig:
    """Problems are added to `problems`. `use_vsock` is the hypervisor's."""
    agents = table_of(tables, "agent", problems)
    old = generation is Generation.RUNTIME_1X
    if old:
        problems += (f"agent.{name}: {name} agent type is not supported" for name in sorted(set(agents) - {KATA_AGENT}))
        if client is Client.SHIM:
            return KataAgentConfig(long_live_conn=True, use_vsock=use_vsock)  # it ignores the table
    config = KataAgentConfig()
    for name in agents:
        section = Section(
            path=f"agent.{name}", table=table_of(agents, name, problems, prefix="agent."), problems=problems
        )
        config = KataAgentConfig(
            kernel_modules=section.get("kernel_modules", ListOf(TEXT)),
            debug=section.get("enable_debug", FLAG),
            trace=section.get("enable_tracing", FLAG),
        )
        config = attrs.evolve(config, **(_only_1x(section, use_vsock=use_vsock) if old else _only_current(section)))
        if old and config.trace:
            _check_trace(section, config)
    return config


def _only_1x(section: Section, *, use_vsock: bool) -> dict[str, Any]:
    return {
        "use_vsock": use_vsock,
        "trace_mode": section.text("trace_mode"),
        "trace_type": section.text("trace_type"),
    }


def _only_current(section: Section) -> dict[str, Any]:
    return {
        "long_live_conn": True,
        "dial_timeout": section.get("dial_timeout", UINT32),
        "cdh_api_timeout": section.get("cdh_api_timeout", UINT32),
        "launch_process_timeout": section.get("launch_process_timeout", UINT32),
        "enable_debug_console": section.get("debug_console_enabled", FLAG),
        "visible_cdi_devices": section.get("visible_cdi_devices", FLAG),
    }


def _check_trace(section: Section, config: KataAgentConfig) -> None:
    for what, value, among in (("mode", config.trace_mode, _TRACE_MODES), ("type", config.trace_type, _TRACE_TYPES)):
        if value and value not in among:
            one, other = among
            section.fault(f"trace_{what}", f'invalid kata agent trace {what}: "{value}" (need "{one}" or "{other}")')


def read_proxy(
    tables: Mapping[str, Any], problems: list[str], *, use_vsock: bool, client: Client, debug: bool
) -> tuple[str, ProxyConfig]:
    """Type and configuration of runtime 1.x's proxy. `debug` is [runtime]'s. Adds problems, the shim's too.

    The proxy's program need not exist.
    """
    proxy = ProxyConfig()
    if client is Client.COMMAND:
        for section in _named_kata(tables, "proxy", "proxy type not supported", problems):
            path = section.path_text("path", _PROXY)
            proxy = ProxyConfig(path=os.path.normpath(path), debug=section.get("enable_debug", FLAG))
        for section in _named_kata(tables, "shim", "shim is not supported", problems):
            section.path_text("path")
            for key in ("enable_debug", "enable_tracing"):
                section.get(key, FLAG)
    if use_vsock:
        return "noProxy", ProxyConfig(debug=debug)
    return ("kataProxy", proxy) if client is Client.COMMAND else ("kataBuiltInProxy", ProxyConfig(debug=debug))


def _named_kata(tables: Mapping[str, Any], group: str, refusal: str, problems: list[str]) -> list[Section]:
    """The one table of a group that Kata knows, if present."""
    named = table_of(tables, group, problems)
    problems += (f"{group}.{name}: {name} {refusal}" for name in sorted(set(named) - {_KATA}))
    if _KATA not in named:
        return []
    table = table_of(named, _KATA, problems, prefix=f"{group}.")
    return [Section(path=f"{group}.{_KATA}", table=table, problems=problems)]
