"""QEMU's command line, as a pure function of the spec."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterator
from typing import Final

import attrs

from vmm.devices.device import Attachment, Bus
from vmm.devices.options import inherited, options
from vmm.qemu import processors
from vmm.spec import MachineSpec
from vmm.words.machines import Accelerator

MEMORY_SLOTS = 10
"""How often memory can be hot-added, as in Kata."""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

KERNEL_PARAMETERS = (
    # Only warnings go to the console: each line costs time on an emulated UART.
    "console=ttyS0 quiet "
    # A guest that panics ends QEMU (-no-reboot) at once, in the way that always works: by a triple fault.
    "panic=1 reboot=t "
    # Kata's list, without probes and waits that a virtual machine does not need.
    "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 noreplace-smp cryptomgr.notests pci=lastbus=0 selinux=0 "
    "i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1 net.ifnames=0 "
    # If memory may lie beyond 4 GiB, the kernel reserves 64 MiB for devices that cannot address it; virtio devices can.
    "swiotlb=noforce"
)

_UUID_NAMESPACE = uuid.UUID("7b1ec2a5-5f0b-4d55-9a3c-0f6c9ed5a1b6")


@attrs.frozen
class AnonymousMemory:
    """Guest memory that belongs to the process alone."""


@attrs.frozen(kw_only=True)
class FileMemory:
    """Guest memory mapped from a file: `shared` writes to it (a template), private copies on write (a clone)."""

    fd: int
    """The caller's; QEMU inherits it."""
    shared: bool


MemoryBacking = AnonymousMemory | FileMemory


@attrs.frozen(kw_only=True)
class BootFiles:
    """The files that a guest boots from, open for reading: the caller's descriptors, which QEMU inherits."""

    kernel_fd: int
    initrd_fd: int

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors to pass to QEMU."""
        return self.kernel_fd, self.initrd_fd


class Start(enum.Enum):
    """QEMU's first action."""

    BOOT = "boot"
    INCOMING = "incoming"
    """Waits, without a guest, for `migrate-incoming`; vCPUs stay stopped after it."""


_KVM_TIMERS = {Accelerator.KVM: ("-global", "kvm-pit.lost_tick_policy=discard")}
_INCOMING: Final = ("-S", "-incoming", "defer")


@attrs.frozen(kw_only=True)
class Passed:
    """The descriptors passed to QEMU beside its boot files and memory; it needs no path to them."""

    qmp_fd: int
    """The listening socket of its monitor."""
    processors_fd: int | None = None
    """A file with `vmm.qemu.processors.table`, for machines that need it."""
    devices: tuple[Attachment, ...]
    """In the order of the spec's devices."""

    @property
    def inherited(self) -> tuple[int, ...]:
        """The descriptors that QEMU uses as they are."""
        return (self.qmp_fd, *(fd for device in self.devices for fd in device.inherited))

    @property
    def readable(self) -> tuple[int, ...]:
        """The descriptors that QEMU reopens for reading."""
        table = () if self.processors_fd is None else (self.processors_fd,)
        return (*table, *(fd for device in self.devices for fd in device.readable))

    @property
    def writable(self) -> tuple[int, ...]:
        """The descriptors that QEMU reopens for writing."""
        return tuple(fd for device in self.devices for fd in device.writable)


@attrs.frozen(kw_only=True)
class PciBridge:
    """A bridge with the id and the slot of Kata's."""

    id: str
    slot: int
    """The slot on the root bus."""
    option: str
    """QEMU's."""


BRIDGE_SLOTS = 30
"""Devices that a bridge takes, by Kata's count."""

_FIRST_BRIDGE_SLOT = 2


def pci_bridge(number: int) -> PciBridge:
    """The n-th bridge, counted from 0."""
    bridge, slot = f"pci-bridge-{number}", _FIRST_BRIDGE_SLOT + number
    option = (
        f"pci-bridge,bus=pcie.0,id={bridge},chassis_nr={number + 1},shpc=off,addr={slot:x},"
        "io-reserve=4k,mem-reserve=1m,pref64-reserve=1m"
    )
    return PciBridge(id=bridge, slot=slot, option=option)


def machine_uuid(vm_id: str) -> str:
    """The UUID that the firmware of the machine with that id shows; a clone's firmware shows its template's."""
    return str(uuid.uuid5(_UUID_NAMESPACE, vm_id))


def build_argv(
    spec: MachineSpec,
    *,
    vm_id: str,
    passed: Passed,
    memory: MemoryBacking | None = None,
    boot: BootFiles | None,
) -> list[str]:
    """The argv that starts `spec` under the name `vm_id`; memory is anonymous unless told otherwise.

    Without `boot` QEMU waits for `migrate-incoming`; see `Start`.
    """
    return [
        str(spec.qemu),
        *("-name", options(guest=vm_id, debug_threads="on")),
        *("-uuid", machine_uuid(vm_id)),
        *("-machine", options(type=spec.machine_type, memory_backend="memory")),
        *("-accel", spec.accelerator.value),
        *("-cpu", _cpu(spec)),
        *("-smp", options(cpus=spec.vcpus, maxcpus=spec.max_vcpus, sockets=spec.max_vcpus, cores=1, threads=1)),
        *("-m", _memory_size(spec)),
        *("-object", _memory_object(spec, memory or AnonymousMemory())),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", SANDBOX),
        *("-rtc", "base=utc"),
        *_KVM_TIMERS.get(spec.accelerator, ()),
        *(() if passed.processors_fd is None else processors.options(inherited(passed.processors_fd))),
        *("-chardev", options("socket", id="qmp", fd=passed.qmp_fd, server="on", wait="off")),
        # Not -mon, for which QEMU 11 prints a deprecation warning at each start.
        *("-qmp", "chardev:qmp"),
        *_device_options(spec, passed, Bus.BOARD),
        # First: these have fixed slots on the root bus, and the others take free ones.
        *(word for number in range(spec.pci_bridges) for word in ("-device", pci_bridge(number).option)),
        *_device_options(spec, passed, Bus.PCI),
        *("-object", options("rng-random", id="rng", filename="/dev/urandom")),
        *("-device", options("virtio-rng-pci", rng="rng")),
        *(_INCOMING if boot is None else _guest_options(spec, boot)),
    ]


def _device_options(spec: MachineSpec, passed: Passed, bus: Bus) -> Iterator[str]:
    for device, attachment in zip(spec.devices, passed.devices, strict=True):
        if device.bus is bus:
            yield from attachment.options


def _guest_options(spec: MachineSpec, boot: BootFiles) -> tuple[str, ...]:
    """The boot files. A clone has them in its memory already: QEMU would only read them for 10 ms and keep a copy, of
    35 MB for the default guest.
    """
    told = (processors.kernel_parameters(spec), *(device.kernel_parameters for device in spec.devices))
    parameters = " ".join(filter(None, (KERNEL_PARAMETERS, *told, spec.kernel_parameters))).strip()
    kernel, initrd = inherited(boot.kernel_fd), inherited(boot.initrd_fd)
    return ("-kernel", str(kernel), "-initrd", str(initrd), "-append", parameters)


def _cpu(spec: MachineSpec) -> str:
    """TCG executes string instructions byte by byte, even if the CPU model claims that they are fast. Without the claim
    a guest copies words and vectors, and boots in 8 % less of QEMU's CPU time. The caller's features come last.
    """
    model, comma, features = spec.cpu_model.partition(",")
    if spec.accelerator is Accelerator.TCG and model == "max":
        return f"max,erms=off,fsrm=off{comma}{features}"
    return spec.cpu_model


def _memory_size(spec: MachineSpec) -> str:
    if spec.max_memory_mib == spec.memory_mib:
        return options(size=f"{spec.memory_mib}M")
    return options(size=f"{spec.memory_mib}M", slots=MEMORY_SLOTS, maxmem=f"{spec.max_memory_mib}M")


def _memory_object(spec: MachineSpec, memory: MemoryBacking) -> str:
    size = f"{spec.memory_mib}M"
    match memory:
        case AnonymousMemory():
            return options("memory-backend-ram", id="memory", size=size)
        case FileMemory(fd=fd, shared=shared):
            share = "on" if shared else "off"
            return options("memory-backend-file", id="memory", size=size, mem_path=inherited(fd), share=share)
