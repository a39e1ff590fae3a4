"""What the commands that take a VM ask for, and what is said about where it came from."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, Final

import attrs
import click

from pool.cli.output import PREFIX, remark
from pool.cli.words import MAX_UINT32, SECONDS, SERVICE_PATH, TEXT, TEXT_OR_NOTHING
from vmpool.client import AcquiredVm, OnEmpty, VmConfig, Wishes


@attrs.frozen(kw_only=True)
class Asked:
    """The options of a command that takes a VM."""

    profile: str
    on_empty: OnEmpty | None
    wishes: Wishes
    config: VmConfig | None
    wait_s: float


_COUNT: Final = click.IntRange(min=1, max=MAX_UINT32)

_OPTIONS: Final = (
    click.option("--profile", type=TEXT, help="Which VM; default: the one named default."),
    click.option(
        "--on-empty",
        type=click.Choice([policy.value for policy in OnEmpty]),
        callback=lambda _ctx, _param, value: None if value is None else OnEmpty(value),
        help="When no VM is ready: wait for one, fail at once, or boot one more now; default: the profile's.",
    ),
    click.option("--cpus", "vcpus", type=_COUNT, help="vCPUs; default and minimum: the profile's."),
    click.option("--memory", "memory_mib", type=_COUNT, help="MiB; default and minimum likewise."),
    click.option("--hostname", type=TEXT, help="Of the guest; default: the VM's id."),
    click.option("--kernel", type=SERVICE_PATH, help="Instead of a profile: the VM's kernel, a file of the host."),
    click.option("--initrd", type=SERVICE_PATH, help="Likewise: its initrd."),
    click.option("--append", "kernel_parameters", type=TEXT_OR_NOTHING, help="Likewise: more kernel parameters."),
    click.option("--cpu-model", type=TEXT, help="Likewise: its CPU, as QEMU names it."),
    click.option("--wait", "wait_s", type=SECONDS, default=60.0, show_default=True, help="At most."),
)


def acquire_options(command: Any) -> Any:
    """Gives a command these options, as one argument `asked`."""

    @functools.wraps(command)
    def collected(
        *,
        profile: str | None,
        on_empty: OnEmpty | None,
        vcpus: int | None,
        memory_mib: int | None,
        hostname: str | None,
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
                kernel="" if kernel is None else os.fspath(kernel),
                initrd="" if initrd is None else os.fspath(initrd),
                kernel_parameters=kernel_parameters or "",
                cpu_model=cpu_model or "",
            )
        asked = Asked(
            profile=profile or "",
            on_empty=on_empty,
            wishes=Wishes(vcpus=vcpus, memory_mib=memory_mib, hostname=hostname or ""),
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
        remark(f"{PREFIX}served from the pool of profile {vm.match.profile}")
        return
    reasons = [f"profile {other.profile} differs in {', '.join(other.fields)}" for other in vm.match.mismatches]
    remark(f"{PREFIX}booted for this request: {'; '.join(reasons) or 'no pool is like it'}")
