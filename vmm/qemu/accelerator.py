"""The choice of KVM or TCG, by a trial boot: `/dev/kvm` may open, and even create a VM, and still hang every guest."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs

from vmm.errors import AcceleratorError
from vmm.files import content_hash
from vmm.qemu.version import QemuVersion
from vmm.words.machines import Accelerator, AcceleratorSetting

KVM_DEVICE = Path("/dev/kvm")
HARDWARE_FLAGS = frozenset({"vmx", "svm"})
"""Intel VT-x and AMD-V in /proc/cpuinfo."""

TIMEOUT_REMEMBERED_S = 3600.0
"""A trial may time out only because the host is busy at the time."""

_KVM_REMEDY = "set the accelerator to `auto` or `tcg`, or give the service's user access to working KVM"


@attrs.frozen(kw_only=True)
class AcceleratorDecision:
    """The accelerator, and the reason in a sentence for logs and `vmpool` diagnostics."""

    accelerator: Accelerator
    reason: str


@attrs.frozen(kw_only=True)
class HostFacts:
    """Reads facts of the host; replaceable in tests."""

    open_kvm: Callable[[], None]
    """Opens and closes /dev/kvm. Raises OSError."""
    cpu_flags: Callable[[], frozenset[str]]
    boot_id: Callable[[], str]
    """Changes with each boot of the host."""
    uptime_s: Callable[[], float]
    """Since the host's boot, its sleep included."""


@attrs.frozen(kw_only=True)
class TrialIdentity:
    """The inputs of a trial boot's result, besides the host's boot id."""

    qemu: Path
    qemu_version: QemuVersion
    kernel: Path
    uid: int
    """The user that QEMU runs as."""


@attrs.frozen(kw_only=True)
class TrialFailure:
    """The reason why no agent answered."""

    reason: str
    """In words."""
    timed_out: bool
    """No fault was found; the boot took too long."""


TrialBoot = Callable[[], Awaitable[TrialFailure | None]]
"""Boots the real guest under KVM. Returns None if its agent answered, otherwise the failure. Sets its own deadline."""


async def decide(
    setting: AcceleratorSetting,
    *,
    identity: TrialIdentity,
    trial_boot: TrialBoot,
    cache_directory: Path,
    host: HostFacts | None = None,
) -> AcceleratorDecision:
    """Chooses the accelerator. `auto` boots a guest under KVM once per host boot, QEMU, user and kernel; again
    after TIMEOUT_REMEMBERED_S if the trial timed out.

    Raises AcceleratorError if KVM is requested and not usable; OSError if QEMU or the kernel cannot be read or the
    cache directory cannot be written. If cancelled during the trial boot, nothing is cached.
    """
    host = host or linux_host()
    if setting is AcceleratorSetting.TCG:
        return AcceleratorDecision(accelerator=Accelerator.TCG, reason="the configuration says tcg.")
    obstacle = _kvm_obstacle(host)
    if setting is AcceleratorSetting.KVM:
        if obstacle is not None:
            raise AcceleratorError(accelerator="kvm", reason=obstacle, remedy=_KVM_REMEDY)
        return AcceleratorDecision(accelerator=Accelerator.KVM, reason="the configuration says kvm.")
    if obstacle is not None:
        return AcceleratorDecision(accelerator=Accelerator.TCG, reason=f"{obstacle}.")
    return await _decide_by_trial(identity, trial_boot=trial_boot, cache_directory=cache_directory, host=host)


def linux_host() -> HostFacts:
    """The facts of this host."""
    return HostFacts(open_kvm=_open_kvm, cpu_flags=_cpu_flags, boot_id=_boot_id, uptime_s=_uptime_s)


def _kvm_obstacle(host: HostFacts) -> str | None:
    try:
        host.open_kvm()
    except FileNotFoundError:
        return f"{KVM_DEVICE} does not exist"
    except OSError as error:
        return f"{KVM_DEVICE} cannot be opened ({error.strerror or error})"
    if not HARDWARE_FLAGS & host.cpu_flags():
        return (
            f"{KVM_DEVICE} exists, but the CPU has neither vmx nor svm: "
            "this is software KVM, in which stock guests hang or crawl"
        )
    return None


async def _decide_by_trial(
    identity: TrialIdentity, *, trial_boot: TrialBoot, cache_directory: Path, host: HostFacts
) -> AcceleratorDecision:
    identifier = _identifier(identity)
    cache = cache_directory / "accelerator.json"
    remembered = _verdict(_read_cache(cache, boot_id=host.boot_id()).get(identifier), uptime_s=host.uptime_s())
    if remembered is not None:
        return _again(remembered)
    failure = await trial_boot()
    # Read again: other profiles may have written theirs during the trial.
    verdicts = _read_cache(cache, boot_id=host.boot_id())
    meanwhile = _verdict(verdicts.get(identifier), uptime_s=host.uptime_s())
    if failure is not None and failure.timed_out and meanwhile is not None:
        return _again(meanwhile)
    if failure is None:
        decision = AcceleratorDecision(accelerator=Accelerator.KVM, reason="a guest booted under KVM.")
    else:
        decision = AcceleratorDecision(
            accelerator=Accelerator.TCG, reason=f"a guest does not boot under KVM here: {failure.reason}."
        )
    verdict: dict[str, Any] = {"accelerator": decision.accelerator.value, "reason": decision.reason}
    if failure is not None and failure.timed_out:
        verdict["until_uptime_s"] = host.uptime_s() + TIMEOUT_REMEMBERED_S
    _write_cache(cache, {"boot_id": host.boot_id(), "verdicts": verdicts | {identifier: verdict}})
    return decision


def _again(remembered: AcceleratorDecision) -> AcceleratorDecision:
    return attrs.evolve(remembered, reason=f"{remembered.reason} (remembered from an earlier trial)")


def _identifier(identity: TrialIdentity) -> str:
    qemu, kernel = content_hash(identity.qemu), content_hash(identity.kernel)
    program = f"{identity.qemu} {identity.qemu_version} {qemu}"
    return f"qemu {program}, uid {identity.uid}, kernel {kernel}"


def _read_cache(cache: Path, *, boot_id: str) -> dict[str, Any]:
    """The results since the host's boot, by identity; a damaged cache counts as empty."""
    try:
        found = json.loads(cache.read_bytes())
        if found["boot_id"] == boot_id and isinstance(found["verdicts"], dict):
            return found["verdicts"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return {}


def _verdict(entry: Any, *, uptime_s: float) -> AcceleratorDecision | None:
    """None if the entry is missing, expired or damaged."""
    try:
        if uptime_s >= entry.get("until_uptime_s", math.inf):
            return None
        return AcceleratorDecision(accelerator=Accelerator(entry["accelerator"]), reason=str(entry["reason"]))
    except (AttributeError, ValueError, KeyError, TypeError):
        return None


def _write_cache(cache: Path, content: dict[str, Any]) -> None:
    cache.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = cache.with_suffix(".new")
    new.write_text(json.dumps(content, indent=2) + "\n")
    new.replace(cache)


def _open_kvm() -> None:
    os.close(os.open(KVM_DEVICE, os.O_RDWR | os.O_CLOEXEC))


def _cpu_flags() -> frozenset[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _uptime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
