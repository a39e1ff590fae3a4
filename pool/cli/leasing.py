"""Leases at the command line: the options of an acquisition, and the lines that show a lease."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import click

from pool.cli.names import PROFILE
from pool.cli.output import PREFIX, remark
from pool.cli.words import LABEL, MAX_UINT32, SECONDS, SERVICE_PATH, TEXT, TEXT_OR_NOTHING
from pool.observe.terminal import visible
from vmpool import LeaseChange, LeaseStatus, Match, OnEmpty, VmConfig


@attrs.frozen(kw_only=True)
class Asked:
    """The options of a command that acquires a VM, named as the arguments of `Pool.acquire` and `Pool.vm`."""

    profile: str = ""
    name: str = ""
    on_empty: OnEmpty | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    hostname: str = ""
    config: VmConfig | None = None
    labels: Mapping[str, str] = attrs.field(factory=dict)
    timeout: float

    @property
    def nothing(self) -> bool:
        """Everything is left to the defaults; but for the wait, which says nothing of the VM."""
        return self == Asked(timeout=self.timeout)

    def arguments(self) -> dict[str, Any]:
        return attrs.asdict(self, recurse=False)


_COUNT: Final = click.IntRange(min=1, max=MAX_UINT32)

_OPTIONS: Final = (
    click.option("--profile", type=PROFILE, help="Profile of the VM; default: the profile named default."),
    click.option(
        "--on-empty",
        type=click.Choice([policy.value for policy in OnEmpty]),
        callback=lambda _ctx, _param, value: None if value is None else OnEmpty(value),
        help="If no VM is ready: wait for one, fail at once, or boot an extra one; default: the profile's setting.",
    ),
    click.option("--cpus", "vcpus", type=_COUNT, help="Number of vCPUs; default and minimum: the profile's."),
    click.option("--memory", "memory_mib", type=_COUNT, help="Memory in MiB; default and minimum: the profile's."),
    click.option("--hostname", type=TEXT, help="Hostname of the guest; default: the VM's id."),
    click.option("--kernel", type=SERVICE_PATH, help="Kernel of the VM, a file on the host; excludes --profile."),
    click.option("--initrd", type=SERVICE_PATH, help="Initrd of the VM; excludes --profile."),
    click.option(
        "--append", "kernel_parameters", type=TEXT_OR_NOTHING, help="More kernel parameters; excludes --profile."
    ),
    click.option("--cpu-model", type=TEXT, help="CPU model, as QEMU names it; excludes --profile."),
    click.option("--name", type=TEXT, help="Name of the lease, which other commands take in place of its id."),
    click.option(
        "--label",
        "labels",
        multiple=True,
        type=LABEL,
        metavar="KEY=VALUE",
        help="Label of the lease, shown by status and watch; can be repeated.",
    ),
    click.option(
        "--wait", "wait_s", type=SECONDS, default=60.0, show_default=True, help="Longest wait for a VM, in seconds."
    ),
)


def acquire_options(command: Any) -> Any:
    """Adds these options to a command, which gets them as one argument `asked`."""

    @functools.wraps(command)
    def collected(
        *,
        profile: str | None,
        name: str | None,
        on_empty: OnEmpty | None,
        vcpus: int | None,
        memory_mib: int | None,
        hostname: str | None,
        kernel: Path | None,
        initrd: Path | None,
        kernel_parameters: str | None,
        cpu_model: str | None,
        labels: tuple[tuple[str, str], ...],
        wait_s: float,
        **others: Any,
    ) -> Any:
        config = None
        if any(given is not None for given in (kernel, initrd, kernel_parameters, cpu_model)):
            if profile:
                raise click.UsageError(
                    "--profile excludes --kernel, --initrd, --append and --cpu-model; leave out one or the other."
                )
            config = VmConfig(
                kernel="" if kernel is None else os.fspath(kernel),
                initrd="" if initrd is None else os.fspath(initrd),
                kernel_parameters=kernel_parameters or "",
                cpu_model=cpu_model or "",
            )
        asked = Asked(
            profile=profile or "",
            name=name or "",
            on_empty=on_empty,
            vcpus=vcpus,
            memory_mib=memory_mib,
            hostname=hostname or "",
            config=config,
            labels=dict(labels),
            timeout=wait_s,
        )
        return command(asked=asked, **others)

    decorated: Any = collected
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def tell_match(match: Match | None) -> None:
    """Prints on stderr which pool served a configuration, or why none did."""
    if match is None:
        return
    if match.profile:
        remark(f"{PREFIX}served from the pool of profile {match.profile}")
        return
    reasons = [f"profile {other.profile} differs in {', '.join(other.fields)}" for other in match.mismatches]
    remark(f"{PREFIX}booted for this request: {'; '.join(reasons) or 'no pool matches'}")


def render_lease(lease: LeaseStatus) -> str:
    rest = "held open" if lease.expires_in_s is None else f"{lease.expires_in_s:.0f} s left"
    named = (lease.name,) if lease.name else ()
    words = (
        f"lease {lease.lease_id}",
        *named,
        lease.vm_id,
        f"uid {lease.owner_uid}",
        f"{lease.age_s:.0f} s old, {rest}",
    )
    return "  ".join((*words, *(visible(mark, kept="") for mark in _marks(lease.labels))))


def words_of_change(change: LeaseChange) -> tuple[str, ...]:
    """For a line of a watch."""
    lease_id = change.lease_id or "(another user's)"
    what = (change.change, change.reason or "", change.detail)
    return "lease", lease_id, change.vm_id, change.profile, *what, *_marks(change.labels)


def _marks(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in labels.items())
