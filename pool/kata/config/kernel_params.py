"""The guest's kernel parameters, in the order of Kata's loader. A server's must equal its client's."""

from __future__ import annotations

import re
from typing import Final

from pool.kata.records.config import KataAgentConfig
from pool.kata.records.gokinds import Generation
from pool.kata.records.hypervisor_config import HypervisorConfig, Param

_SYSTEMD: Final = (
    Param(key="systemd.unit", value="kata-containers.target"),
    Param(key="systemd.mask", value="systemd-networkd.service"),
    Param(key="systemd.mask", value="systemd-networkd.socket"),
)
"""For a rootfs image, whose init is systemd; in an initrd the agent is init."""

_DEBUG_CONSOLE_PORT: Final = "1026"


def parse_params(line: str, generation: Generation) -> tuple[Param, ...]:
    """Parses a command line. Current Kata allows blanks in a double-quoted value."""
    if generation is Generation.CURRENT:
        # Go trims all white space off each word, but only blanks separate words.
        words = [word.strip() for word in re.findall(r'(?:[^ "]|"[^"]*(?:"|$))+', line)]
    else:
        words = line.split()
    return tuple(_param(word) for word in words if word)


def _param(word: str) -> Param:
    key, _, value = word.partition("=")
    return Param(key=key, value=value)


def serialize_params(params: tuple[Param, ...]) -> str:
    """The parameters as a command line."""
    words = ("=".join(part for part in (param.key, param.value) if part) for param in params)
    return " ".join(word for word in words if word)


def all_params(
    config: HypervisorConfig, agent: KataAgentConfig, *, user: tuple[Param, ...], generation: Generation
) -> tuple[Param, ...]:
    """Kata's own, then the agent's, then the user's, which come last and so take effect."""
    params = list(_SYSTEMD) if config.image_path else []
    if config.block_device_driver == "virtio-scsi":
        params.append(Param(key="scsi_mod.scan", value="none"))
    return (*params, *_agent_params(agent, generation), *user)


def _agent_params(agent: KataAgentConfig, generation: Generation) -> list[Param]:
    params = []
    if agent.debug:
        params.append(Param(key="agent.log", value="debug"))
    if generation is Generation.RUNTIME_1X:
        if agent.trace and agent.trace_mode == "static":
            params.append(Param(key="agent.trace", value=agent.trace_type or "isolated"))
        return params
    if agent.trace:
        params.append(Param(key="agent.trace", value="true"))
    if agent.enable_debug_console:
        params.append(Param(key="agent.debug_console"))
        params.append(Param(key="agent.debug_console_vport", value=_DEBUG_CONSOLE_PORT))
    if agent.cdh_api_timeout:
        params.append(Param(key="agent.cdh_api_timeout", value=str(agent.cdh_api_timeout)))
    if agent.launch_process_timeout:
        params.append(Param(key="agent.launch_process_timeout", value=str(agent.launch_process_timeout)))
    if agent.visible_cdi_devices:
        params.append(Param(key="agent.visible_cdi_devices", value="true"))
    return params
