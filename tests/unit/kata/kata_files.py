"""Kata configuration files for tests, on a host of a known size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pool.kata.config.agent_table import Client
from pool.kata.config.qemu_section import HostSize
from pool.kata.config.runtime_config import RuntimeConfig, load_runtime_config
from pool.kata.records.hypervisor_config import HypervisorConfig
from pool.settings.config import ConfigError

HOST = HostSize(cpus=4, memory_mib=16000)

OLD = "[proxy.kata]\n"
"""Makes it a file of runtime 1.x."""


def write(
    home: Path, qemu: str = "", *, rest: str = "", rootfs: str = "initrd", shared_fs: str = 'shared_fs = "virtio-9p"'
) -> Path:
    """A file with what every configuration needs, `qemu` more keys of [hypervisor.qemu], and other tables."""
    path = home / "configuration.toml"
    path.write_text(
        f'[hypervisor.qemu]\npath = "{home}/qemu"\nkernel = "{home}/vmlinuz"\n{rootfs} = "{home}/{rootfs}"\n'
        f"{shared_fs}\n{qemu}\n{rest}\n"
    )
    return path


def load(home: Path, qemu: str = "", *, client: Client = Client.COMMAND, **parts: str) -> RuntimeConfig:
    return load_runtime_config(write(home, qemu, **parts), host=HOST, client=client)


def hypervisor(home: Path, qemu: str = "", **parts: Any) -> HypervisorConfig:
    return load(home, qemu, **parts).factory.vm_config.hypervisor_config


def problems(call: Callable[..., object], *args: object, **parts: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as error:
        call(*args, **parts)
    return error.value.problems
