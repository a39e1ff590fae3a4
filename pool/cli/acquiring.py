"""What the commands that take a VM ask for, and what is said about where it came from."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Final

import attrs
import click

from pool.cli.options import SECONDS
from pool.cli.output import PREFIX, say
from pool.client import AcquiredVm, OnEmpty, VmConfig, Wishes

_HOST_PATH: Final = click.Path(path_type=Path)


@attrs.frozen(kw_only=True)
class Asked:
    """The options of a command that takes a VM."""

    profile: str
    on_empty: OnEmpty | None
    wishes: Wishes
    config: VmConfig | None
    wait_s: float


_OPTIONS: Final = (
    click.option("--profile", default="", help="Which VM; default: the one named default."),
    click.option(
        "--on-empty",
        type=click.Choice([policy.value for policy in OnEmpty]),
        callback=lambda _ctx, _param, value: None if value is None else OnEmpty(value),
        help="When no VM is ready: wait for one, fail at once, or boot one more now; default: the profile's.",
    ),
    click.option("--cpus", "vcpus", type=click.IntRange(min=1), help="vCPUs; default and minimum: the profile's."),
    click.option("--memory", "memory_mib", type=click.IntRange(min=1), help="MiB; default and minimum likewise."),
    click.option("--hostname", default="", help="Of the guest; default: the VM's id."),
    click.option("--kernel", type=_HOST_PATH, help="Instead of a profile: the VM's kernel, a file of the host."),
    click.option("--initrd", type=_HOST_PATH, help="Likewise: its initrd."),
    click.option("--append", "kernel_parameters", help="Likewise: more kernel parameters."),
    click.option("--cpu-model", help="Likewise: its CPU, as QEMU names it."),
    click.option("--wait", "wait_s", type=SECONDS, default=60.0, show_default=True, help="At most."),
)


def acquire_options(command: Any) -> Any:
    """Gives a command these options, as one argument `asked`."""

    @functools.wraps(command)
    def collected(
        *,
        profile: str,
        on_empty: OnEmpty | None,
        vcpus: int | None,
        memory_mib: int | None,
        hostname: str,
        kernel: Path | None,
        initrd: Path | None,
        kernel_parameters: str | None,
        cpu_model: str | None,
        wait_s: float,
        **others: Any,
    ) -> Any:
        config = None
        if any(given is not None for given in (kernel, initrd, kernel_parameters, cpu_model)):
            if profile:
                raise click.UsageError(
                    "--profile has a machine of its own; leave out either it, or what is asked instead."
                )
            config = VmConfig(
                kernel="" if kernel is None else os.fspath(kernel.absolute()),
                initrd="" if initrd is None else os.fspath(initrd.absolute()),
                kernel_parameters=kernel_parameters or "",
                cpu_model=cpu_model or "",
            )
        asked = Asked(
            profile=profile,
            on_empty=on_empty,
            wishes=Wishes(vcpus=vcpus, memory_mib=memory_mib, hostname=hostname),
            config=config,
            wait_s=wait_s,
        )
        return command(asked=asked, **others)

    decorated: Any = collected
    for option in _OPTIONS:
        decorated = option(decorated)
    return decorated


def tell_match(vm: AcquiredVm) -> None:
    """On stderr: which pool served a configuration, or why none did."""
    if vm.match is None:
        return
    if vm.match.profile:
        say(f"{PREFIX}served from the pool of profile {vm.match.profile}", to_stderr=True)
        return
    reasons = [f"profile {other.profile} differs in {', '.join(other.fields)}" for other in vm.match.mismatches]
    say(f"{PREFIX}booted for this request: {'; '.join(reasons) or 'no pool is like it'}", to_stderr=True)
