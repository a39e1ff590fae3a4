"""The kinds of backends and of producers, and what production costs the host."""

from __future__ import annotations

import enum


class BackendKind(enum.Enum):
    """The backend that makes a VM."""

    QEMU = "qemu"
    SIMULATED = "simulated"


class ProducerKind(enum.Enum):
    DIRECT = "direct"
    """Boots each VM."""
    TEMPLATE = "template"
    """Clones VMs from a template that it keeps."""


class ProductionCost(enum.Enum):
    """The cost of a production to the host: productions of one class are counted and limited together."""

    BOOT = "boot"
    """Seconds of a CPU, and a guest's whole memory."""
    CLONE = "clone"
    """A fraction of both."""
