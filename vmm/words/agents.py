"""What answers in a guest, and over which device."""

from __future__ import annotations

import enum


class AgentKind(enum.Enum):
    """What answers the host from inside the guest."""

    BUILTIN = "builtin"
    """vmpool's own agent, which the built guest image runs."""
    QGA = "qga"
    """QEMU's guest agent, as distributions package it."""
    NOOP = "noop"
    """Nothing: the guest is never asked. Kata's noop agent."""


class AgentChannel(enum.Enum):
    """The device through which the guest's agent is reached: by us the built-in one, by others one of their own."""

    VIRTIO_SERIAL = "virtio-serial"
    VSOCK = "vsock"
    """Needs /dev/vhost-vsock on the host."""
