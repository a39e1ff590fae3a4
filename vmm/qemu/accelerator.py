"""KVM or TCG? `/dev/kvm` may exist, open, even create a VM, and still hang every guest: boot before you believe."""

from __future__ import annotations

import enum
import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs

from vmm.errors import AcceleratorError
from vmm.qemu.version import QemuVersion
from vmm.spec import Accelerator

KVM_DEVICE = Path("/dev/kvm")
HARDWARE_FLAGS = frozenset({"vmx", "svm"})
"""Intel VT-x and AMD-V, as /proc/cpuinfo calls them."""

_KVM_REMEDY = "set the accelerator to `auto` or `tcg`, or give the service's user access to working KVM"


class AcceleratorSetting(enum.Enum):
    """What the user asks for."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@attrs.frozen(kw_only=True)
class AcceleratorDecision:
    """What is used, and why, in a sentence for logs and `vmpool` diagnostics."""

    accelerator: Accelerator
    reason: str


@attrs.frozen(kw_only=True)
class HostFacts:
    """What is asked of the host, replaceable in tests."""

    open_kvm: Callable[[], None]
    """Opens and closes /dev/kvm. Raises OSError."""
    cpu_flags: Callable[[], frozenset[str]]
    boot_id: Callable[[], str]
    """Changes with each boot of the host."""


@attrs.frozen(kw_only=True)
class TrialIdentity:
    """What the result of a trial boot depends on, besides the host's boot id."""

    qemu_version: QemuVersion
    kernel: Path
    uid: int
    """Whom QEMU runs as."""


TrialBoot = Callable[[], Awaitable[str | None]]
"""Boots the real guest under KVM. Returns None if its agent answered, else why not, in words. Sets its own deadline."""


async def decide(
    setting: AcceleratorSetting,
    *,
    identity: TrialIdentity,
    trial_boot: TrialBoot,
    cache_directory: Path,
    host: HostFacts | None = None,
) -> AcceleratorDecision:
    """Chooses the accelerator. `auto` boots a guest under KVM once per host boot, QEMU version and kernel.

    Raises AcceleratorError if KVM was asked for and is not usable; OSError if the kernel cannot be read or the cache
    directory cannot be written. If cancelled during the trial boot, nothing is cached.
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
    """The facts of the host we run on."""
    return HostFacts(open_kvm=_open_kvm, cpu_flags=_cpu_flags, boot_id=_boot_id)


def _kvm_obstacle(host: HostFacts) -> str | None:
    try:
        host.open_kvm()
    except FileNotFoundError:
        return f"{KVM_DEVICE} is not there"
    except OSError as error:
        return f"{KVM_DEVICE} cannot be opened ({error.strerror or error})"
    if not HARDWARE_FLAGS & host.cpu_flags():
        return (
            f"{KVM_DEVICE} is there but the CPU shows neither vmx nor svm: "
            "software KVM, which hangs or crawls with stock guests"
        )
    return None


async def _decide_by_trial(
    identity: TrialIdentity, *, trial_boot: TrialBoot, cache_directory: Path, host: HostFacts
) -> AcceleratorDecision:
    key = {
        "boot_id": host.boot_id(),
        "qemu": str(identity.qemu_version),
        "uid": str(identity.uid),
        "kernel_sha256": hashlib.sha256(identity.kernel.read_bytes()).hexdigest(),
    }
    cache = cache_directory / "accelerator.json"
    remembered = _read_cache(cache, key)
    if remembered is not None:
        return attrs.evolve(remembered, reason=f"{remembered.reason} (remembered from an earlier start)")
    failure = await trial_boot()
    if failure is None:
        decision = AcceleratorDecision(accelerator=Accelerator.KVM, reason="a guest booted under KVM.")
    else:
        decision = AcceleratorDecision(
            accelerator=Accelerator.TCG, reason=f"a guest does not boot under KVM here: {failure}."
        )
    _write_cache(cache, key, decision)
    return decision


def _read_cache(cache: Path, key: dict[str, str]) -> AcceleratorDecision | None:
    """None if there is nothing for this key; a damaged cache is as good as none."""
    try:
        entry = json.loads(cache.read_bytes())
        if entry["key"] == key:
            return AcceleratorDecision(accelerator=Accelerator(entry["accelerator"]), reason=str(entry["reason"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return None


def _write_cache(cache: Path, key: dict[str, str], decision: AcceleratorDecision) -> None:
    cache.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    entry = {"key": key, "accelerator": decision.accelerator.value, "reason": decision.reason}
    new = cache.with_suffix(".new")
    new.write_text(json.dumps(entry, indent=2) + "\n")
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
