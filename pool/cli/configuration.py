"""The configuration that a service starts with: vmpool's own file, or Kata's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from pool.cli.words import HostPath
from pool.settings.config import Settings, load_settings

if TYPE_CHECKING:
    from pool.kata.cache.layer import VmCache


def configuration_options(command: Any) -> Any:
    """`--config` and `--kata-config`, for `load_configuration`."""
    ours = click.option(
        "--config",
        type=HostPath(dir_okay=False),
        help="Configuration in TOML; default: a built-in one with a pool of 2 VMs.",
    )
    katas = click.option(
        "--kata-config",
        type=HostPath(dir_okay=False),
        help='Kata\'s configuration.toml instead: [factory] and [hypervisor.qemu] make one profile, "default".',
    )
    return ours(katas(command))


@attrs.frozen(kw_only=True)
class Configuration:
    settings: Settings
    cache: VmCache | None = None
    """The VM cache to serve to Kata's clients; None: no cache."""
    spell: Callable[[BaseException], str] = str
    """Describes a start-up error with the keys of the file."""


def load_configuration(config: Path | None, kata_config: Path | None) -> Configuration:
    """Raises ConfigError, UsageError."""
    if kata_config is None:
        return Configuration(settings=load_settings(config))
    if config is not None:
        raise click.UsageError("--config and --kata-config exclude each other; give one")
    # Imported here: it would take a tenth of every service's start-up time.
    from pool.kata.cache.layer import VmCache  # noqa: PLC0415
    from pool.kata.config.settings import settings_from_kata  # noqa: PLC0415

    kata = settings_from_kata(kata_config)
    kata.check_host()
    kata.check_clients()
    cache = None if kata.cache is None else VmCache(settings=kata.cache)
    return Configuration(settings=kata.settings, cache=cache, spell=kata.spell)
