"""The kinds of producers."""

from __future__ import annotations

import enum


class ProducerKind(enum.Enum):
    DIRECT = "direct"
    """Boots each VM."""
    TEMPLATE = "template"
    """Clones VMs from a template that it keeps."""
