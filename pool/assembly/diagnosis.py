"""What this host can do: findings with a verdict, and a fix for what is wrong. Behind `vmpool doctor`."""

from __future__ import annotations

import contextlib
import resource
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from pool.assembly.backends import host_checks
from pool.core.machines import MachineResolver
from pool.core.watch import MAX_WATCHERS
from pool.host.descriptors import connections_within, needed
from pool.host.endpoint import EndpointError, ServiceRunningError, check_endpoint, lock_path
from pool.host.runtime import check_vms_directory, vms_lock_path
from pool.observe.spans import NO_SPANS
from pool.observe.tracing import TracingError, open_spans
from pool.settings.config import ProfileSettings, Settings
from pool.settings.limits import UNREACHED
from vmm.backend import Backend
from vmm.devices.vsock import VHOST_VSOCK, check_vsock
from vmm.errors import VmmError
from vmm.initramfs.image import load_image, verify_image
from vmm.lock import holder
from vmm.spec import MachineSpec
from vmm.words.findings import Finding, Verdict
from vmm.words.machines import Accelerator, AcceleratorSetting, AgentChannel

OVERHEAD_PER_VM_MIB: Final = 64
"""Of a QEMU process beside its guest's memory; 40 to 60 MiB were seen under TCG."""


async def examine(
    settings: Settings,
    *,
    socket_path: Path,
    image_directory: Path,
    cache_directory: Path,
    cache_endpoint: Path | None = None,
    spell: Callable[[BaseException], str] = str,
) -> list[Finding]:
    """Examines everything in turn; under accelerator `auto` that may boot a guest. A failing check is a finding.

    What keeps the service from starting is told by the checks that it makes itself. `cache_endpoint` is VMCache's,
    `spell` says an error in the words of the file that the settings are from.
    """
    guarded = partial(_guarded, spell)
    socket_path = socket_path.absolute()  # noqa: ASYNC240 - asks for the working directory, nothing else
    runtime = (settings.service.runtime_directory or socket_path.parent).absolute()
    with contextlib.ExitStack() as opened:
        checks = host_checks(settings, opened)
        findings = [await guarded("guest image", partial(_image, settings, image_directory))]
        findings += [await guarded(subject, check) for subject, check in checks.before().items()]
        specs: dict[str, MachineSpec] = {}
        for name, profile in settings.profiles.items():
            scratch = opened.enter_context(tempfile.TemporaryDirectory(prefix="vmpool-doctor-"))
            resolver = MachineResolver(
                profile=profile,
                image_directory=image_directory,
                trial_directory=Path(scratch),
                cache_directory=cache_directory,
                backend=checks.backend,
            )
            findings.append(await guarded(f"{name}: QEMU", partial(_qemu, resolver, specs, name)))
            if checks.may_try:
                findings.append(await guarded(f"{name}: accelerator", partial(_accelerator, resolver, profile)))
            if place := profile.producer.place(name, runtime=runtime):
                subject = f"{name}: {profile.producer.kind.value}"
                findings.append(await guarded(subject, partial(_place, profile, place, checks.backend)))
    findings += [await guarded(subject, check) for subject, check in checks.after(specs).items()]
    findings += [
        await guarded("vsock", partial(_vsock, settings)),
        await guarded("tracing", partial(_tracing, settings)),
        _memory(settings, available_mib=_available_memory_mib()),
        _quotas(settings),
        _descriptors(settings, limit=resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        await guarded("socket", partial(_socket, settings, socket_path)),
        await guarded("runtime directory", partial(_runtime_directory, runtime, socket_path)),
    ]
    if cache_endpoint is not None:
        findings.append(await guarded("VMCache", partial(_vm_cache, cache_endpoint, socket_path)))
    return findings


async def _guarded(
    spell: Callable[[BaseException], str], subject: str, check: Callable[[], Awaitable[Finding]]
) -> Finding:
    """An error's sentence ends in its remedy, after the last semicolon."""
    try:
        return attrs.evolve(await check(), subject=subject)
    except (VmmError, EndpointError, TracingError, OSError) as error:
        detail, _, fix = spell(error).rpartition("; ")
        return Finding(subject=subject, verdict=Verdict.FAILURE, detail=detail or fix, fix=fix if detail else "")


async def _image(settings: Settings, directory: Path) -> Finding:
    if all(profile.kernel is not None for profile in settings.profiles.values()):
        return Finding(detail="every profile has a kernel and an initrd of its own")
    image = load_image(directory)
    verify_image(image)
    return Finding(detail=f"kernel {image.kernel_release} in {directory}")


async def _qemu(resolver: MachineResolver, specs: dict[str, MachineSpec], name: str) -> Finding:
    """What the profile's machine is made of; notes the machine among `specs`."""
    spec = specs[name] = resolver.check()
    return Finding(detail=f"{await resolver.backend.version(spec)}, {spec.qemu}")


async def _accelerator(resolver: MachineResolver, profile: ProfileSettings) -> Finding:
    machine = await resolver.resolve()
    slow = machine.spec.accelerator is Accelerator.TCG and profile.accelerator is AcceleratorSetting.AUTO
    return Finding(
        verdict=Verdict.WARNING if slow else Verdict.OK,
        detail=f"{machine.spec.accelerator.value}: {machine.reason}",
        fix='run on hardware with KVM, or enable nested virtualisation; set accelerator = "tcg" if this is wanted'
        if slow
        else "",
    )


async def _place(profile: ProfileSettings, place: Path, backend: Backend) -> Finding:
    profile.producer.check_place(place, backend=backend)
    return Finding(detail=str(place))


async def _vsock(settings: Settings) -> Finding:
    users = [name for name, profile in settings.profiles.items() if profile.channel is AgentChannel.VSOCK]
    if not users:
        return Finding(detail='not needed: no profile has channel = "vsock"')
    check_vsock()
    return Finding(detail=f"{VHOST_VSOCK}, for {', '.join(users)}")


async def _tracing(settings: Settings) -> Finding:
    async with open_spans(settings.tracing) as spans:
        detail = "off: tracing is not configured" if spans is NO_SPANS else "spans go to OpenTelemetry's collector"
    return Finding(detail=detail)


async def _socket(settings: Settings, path: Path) -> Finding:
    check_endpoint(path, group=settings.access.socket_gid)
    pid = holder(lock_path(path))
    runs = "" if pid is None else f"; a service runs there (pid {pid or 'unknown'}), and a second one would be refused"
    return Finding(detail=f"{path}{runs}")


async def _runtime_directory(runtime: Path, socket_path: Path) -> Finding:
    check_vms_directory(runtime)
    lock = vms_lock_path(runtime)
    pid = holder(lock)
    if pid is not None and holder(lock_path(socket_path)) is None:
        raise ServiceRunningError(lock=lock, pid=pid)
    return Finding(detail=str(runtime))


async def _vm_cache(endpoint: Path, socket_path: Path) -> Finding:
    # Imported here, as `vmpool serve` does: Kata compatibility is an annex.
    from pool.kata.cache.endpoint import check_cache_endpoint  # noqa: PLC0415

    if holder(lock_path(socket_path)) is None:  # else the server that is in the way is this service's own
        check_cache_endpoint(endpoint)
    return Finding(detail=str(endpoint))


def _available_memory_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def _memory(settings: Settings, *, available_mib: int) -> Finding:
    needed = sum(p.size * (p.memory_mib + OVERHEAD_PER_VM_MIB) for p in settings.profiles.values())
    detail = f"the pools' VMs need up to {needed} MiB, {available_mib} MiB are available"
    if needed > available_mib:
        return Finding(
            subject="memory",
            verdict=Verdict.WARNING,
            detail=f"{detail}; VMs that do not fit are not produced, or are evicted",
            fix="lower `size` or `memory_mib` of the profiles, or add memory",
        )
    return Finding(subject="memory", verdict=Verdict.OK, detail=detail)


def _quotas(settings: Settings) -> Finding:
    """What one user can take from the others, at most."""
    limits = settings.limits
    detail = (
        f"one user has at most {limits.leases_per_user} VMs, {limits.requests_per_user} waiting acquisitions (all "
        f"users together {limits.max_open_requests}) and {limits.watchers_per_user} watches (all users {MAX_WATCHERS})"
    )
    # Of requests nobody can have all, whatever is said.
    unreached = [key for key in ("leases_per_user", "watchers_per_user") if getattr(limits, key) >= UNREACHED]
    if not (settings.access.users or settings.access.groups):
        unreached = []  # there are no others
    return Finding(
        subject="quotas",
        verdict=Verdict.WARNING if unreached else Verdict.OK,
        detail=f"{detail}; one user can keep others out" if unreached else detail,
        fix=f"set {', '.join(f'limits.{key}' for key in unreached)}" if unreached else "",
    )


def _descriptors(settings: Settings, *, limit: int) -> Finding:
    vms = sum(profile.most_vms for profile in settings.profiles.values())
    wanted = needed(vms=vms) + settings.limits.connections_per_user
    room = connections_within(limit, vms=vms)
    limits = settings.limits
    detail = (
        f"about {wanted} file descriptors are needed, the hard limit is {limit}, which leaves room for {room} "
        f"connections; each user may have {limits.connections_per_user} of them, {limits.calls_per_user} calls and "
        f"{limits.execs_per_user} commands and streams at a time"
    )
    if limit != resource.RLIM_INFINITY and wanted > limit:
        return Finding(
            subject="limits",
            verdict=Verdict.WARNING,
            detail=f"{detail}; pools may stay below their size, or callers may be refused",
            fix="raise the limit: `ulimit -n`, or LimitNOFILE= in the unit",
        )
    return Finding(subject="limits", verdict=Verdict.OK, detail=detail)
