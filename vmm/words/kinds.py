"""The kinds of backends and of producers."""

from __future__ import annotations

import enum


class BackendKind(enum.Enum):
    """What a VM is made with."""

    QEMU = "qemu"
    SIMULATED = "simulated"


class ProducerKind(enum.Enum):
    DIRECT = "direct"
    """Boots each VM."""
    TEMPLATE = "template"
    """Clones VMs from a template that it keeps."""
