"""What this host can do: findings with a verdict, and a fix for what is wrong. Behind `vmpool doctor`."""

from __future__ import annotations

import enum
import os
import resource
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from pool.config import ProfileSettings, Settings
from pool.confinement import cgroups_for, user_for
from pool.machines import MachineResolver
from vmm.errors import VmmError
from vmm.guest.image import load_image, verify_image
from vmm.qemu.accelerator import AcceleratorSetting
from vmm.qemu.confinement import Confinement
from vmm.qemu.confinement.plan import CgroupSetting
from vmm.qemu.confinement.user import decide_user
from vmm.qemu.directory import MAX_SOCKET_PATH_BYTES
from vmm.qemu.version import detect_version
from vmm.qemu.vsock import VHOST_VSOCK, check_vsock
from vmm.spec import Accelerator, AgentChannel


class Verdict(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    """Works, but not as well as it could."""
    FAILURE = "failure"
    """The service cannot work like this."""


@attrs.frozen(kw_only=True)
class Finding:
    subject: str
    verdict: Verdict
    detail: str
    fix: str = ""


DESCRIPTORS_PER_VM: Final = 8
"""pidfd, QMP and agent connections, and their kin while a VM starts or stops."""

OVERHEAD_PER_VM_MIB: Final = 64
"""Of a QEMU process beside its guest's memory; 40 to 60 MiB were seen under TCG."""

_VM_SOCKET: Final = "vms/vm-00000000/agent.sock"
"""Longest path below the runtime directory that is bound."""


async def examine(
    settings: Settings, *, socket_path: Path, image_directory: Path, cache_directory: Path
) -> list[Finding]:
    """Examines everything in turn; under accelerator `auto` that may boot a guest. A failing check is a finding."""
    findings = [
        await _guarded("guest image", partial(_image, settings, image_directory)),
        await _guarded("QEMU's user", partial(_qemu_user, settings)),
        await _guarded("cgroups", partial(_cgroups, settings)),
    ]
    for name, profile in settings.profiles.items():
        with tempfile.TemporaryDirectory(prefix="vmpool-doctor-") as scratch:
            resolver = MachineResolver(
                profile=profile,
                image_directory=image_directory,
                trial_directory=Path(scratch),
                cache_directory=cache_directory,
                confinement=Confinement(user=decide_user(settings.service.qemu_user, euid=os.geteuid()).user),
            )
            findings.append(await _guarded(f"{name}: QEMU", partial(_qemu, resolver)))
            findings.append(await _guarded(f"{name}: accelerator", partial(_accelerator, resolver, profile)))
    findings.append(await _guarded("vsock", partial(_vsock, settings)))
    vms = sum(profile.size for profile in settings.profiles.values())
    findings.append(_memory(settings, available_mib=_available_memory_mib()))
    findings.append(_descriptors(vms, limit=resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    findings.append(_runtime_directory(settings.service.runtime_directory or socket_path.parent))
    return findings


async def _guarded(subject: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
    """An error's sentence ends in its remedy, after the last semicolon."""
    try:
        return attrs.evolve(await check(), subject=subject)
    except (VmmError, OSError) as error:
        detail, _, fix = str(error).rpartition("; ")
        return Finding(subject=subject, verdict=Verdict.FAILURE, detail=detail or fix, fix=fix if detail else "")


async def _image(settings: Settings, directory: Path) -> Finding:
    if all(profile.kernel is not None for profile in settings.profiles.values()):
        return Finding(subject="", verdict=Verdict.OK, detail="every profile has a kernel and an initrd of its own")
    image = load_image(directory)
    verify_image(image)
    return Finding(subject="", verdict=Verdict.OK, detail=f"kernel {image.kernel_release} in {directory}")


async def _qemu_user(settings: Settings) -> Finding:
    decision = user_for(settings)
    whom = f"uid {os.geteuid()}" if decision.user is None else f"{decision.user.name} (uid {decision.user.uid})"
    return Finding(
        subject="",
        verdict=Verdict.WARNING if decision.privileged else Verdict.OK,
        detail=f"{whom}: {decision.reason}",
        fix='set service.qemu_user = "auto", or to an unprivileged user' if decision.privileged else "",
    )


async def _cgroups(settings: Settings) -> Finding:
    """As seen from where this process runs; a systemd unit has cgroups of its own."""
    if settings.service.cgroups is CgroupSetting.OFF:
        return Finding(subject="", verdict=Verdict.OK, detail="none: the configuration says off")
    plan = cgroups_for(settings)
    applied = ", ".join(controller.value for controller in plan.places) or "no controller"
    lacking = "".join(f"; no {controller.value}: {obstacle}" for controller, obstacle in plan.missing.items())
    return Finding(
        subject="",
        verdict=Verdict.WARNING if plan.missing else Verdict.OK,
        detail=f"{plan.version.value if plan.version else 'none'}: {applied}{lacking}",
        fix="run the service as root, or in a systemd unit with Delegate=yes" if plan.missing else "",
    )


async def _qemu(resolver: MachineResolver) -> Finding:
    spec = resolver.check()
    return Finding(subject="", verdict=Verdict.OK, detail=f"{await detect_version(spec.qemu)}, {spec.qemu}")


async def _accelerator(resolver: MachineResolver, profile: ProfileSettings) -> Finding:
    machine = await resolver.resolve()
    slow = machine.spec.accelerator is Accelerator.TCG and profile.accelerator is AcceleratorSetting.AUTO
    return Finding(
        subject="",
        verdict=Verdict.WARNING if slow else Verdict.OK,
        detail=f"{machine.spec.accelerator.value}: {machine.reason}",
        fix='run on hardware with KVM, or enable nested virtualisation; set accelerator = "tcg" if this is wanted'
        if slow
        else "",
    )


async def _vsock(settings: Settings) -> Finding:
    users = [name for name, profile in settings.profiles.items() if profile.channel is AgentChannel.VSOCK]
    if not users:
        return Finding(subject="", verdict=Verdict.OK, detail='not needed: no profile has channel = "vsock"')
    check_vsock()
    return Finding(subject="", verdict=Verdict.OK, detail=f"{VHOST_VSOCK}, for {', '.join(users)}")


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
            verdict=Verdict.FAILURE,
            detail=detail,
            fix="lower `size` or `memory_mib` of the profiles, or add memory",
        )
    return Finding(subject="memory", verdict=Verdict.OK, detail=detail)


def _descriptors(vms: int, *, limit: int) -> Finding:
    needed = 256 + vms * DESCRIPTORS_PER_VM
    detail = f"about {needed} file descriptors are needed, the hard limit is {limit}"
    if limit != resource.RLIM_INFINITY and needed > limit:
        return Finding(
            subject="limits",
            verdict=Verdict.FAILURE,
            detail=detail,
            fix="raise it: `ulimit -n`, or LimitNOFILE= in the unit",
        )
    return Finding(subject="limits", verdict=Verdict.OK, detail=detail)


def _runtime_directory(directory: Path) -> Finding:
    longest = len(os.fsencode(directory / _VM_SOCKET))
    if longest > MAX_SOCKET_PATH_BYTES:
        return Finding(
            subject="runtime directory",
            verdict=Verdict.FAILURE,
            detail=f"{directory} is too long: socket paths in it reach {longest} of {MAX_SOCKET_PATH_BYTES} bytes",
            fix="choose a shorter one with --socket or service.runtime_directory",
        )
    place = next(parent for parent in (directory, *directory.parents) if parent.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding(
            subject="runtime directory",
            verdict=Verdict.FAILURE,
            detail=f"{place} is not writable",
            fix="choose another place with --socket or service.runtime_directory",
        )
    return Finding(subject="runtime directory", verdict=Verdict.OK, detail=str(directory))
