"""A machine's limits, accelerators, agents and their channels."""

from __future__ import annotations

import enum

MEMORY_BLOCK_MIB = 128
"""Linux on x86-64 onlines hot-added memory in blocks of 128 MiB."""

MIN_MEMORY_MIB = 64
"""Below this the default guest cannot unpack its initramfs."""

MAX_MEMORY_MIB = 1024 * 1024
"""1 TiB: more is a typing error on the hosts this runs on."""

MAX_PCI_BRIDGES = 5
"""Kata's limit."""

MAX_VCPUS = 240
"""Kata's limit for amd64 (govmm `MaxVCPUs`), below q35's 288."""


def grown_memory_mib(memory_mib: int, *, wished_mib: int) -> int:
    """The memory of a machine after as many blocks are added as the wish takes."""
    blocks = -(-max(0, wished_mib - memory_mib) // MEMORY_BLOCK_MIB)
    return memory_mib + blocks * MEMORY_BLOCK_MIB


class Accelerator(enum.Enum):
    """Executes guest code. `auto` is a setting, not an accelerator: see `vmm.qemu.accelerator`."""

    KVM = "kvm"
    TCG = "tcg"


class AcceleratorSetting(enum.Enum):
    """The accelerator that the user asks for."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class AgentKind(enum.Enum):
    """The agent that answers the host from inside the guest."""

    BUILTIN = "builtin"
    """vmpool's own agent, which the built guest image runs."""
    QGA = "qga"
    """QEMU's guest agent, as distributions package it."""
    NOOP = "noop"
    """No agent: the guest gets no requests. Kata's noop agent."""


class AgentChannel(enum.Enum):
    """The device through which the guest's agent is reached: the built-in one, or one of the VM's taker."""

    VIRTIO_SERIAL = "virtio-serial"
    VSOCK = "vsock"
    """Needs /dev/vhost-vsock on the host."""
