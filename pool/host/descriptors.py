"""The service's limits on open descriptors and on core files."""

from __future__ import annotations

import resource
from typing import Final

PER_VM: Final = 8
"""pidfd, QMP and agent connections, and further descriptors while a VM starts or stops."""

OF_THE_SERVICE: Final = 256
"""Files, pipes, event loops, and processes other than VMs."""

MIN_CONNECTIONS: Final = 64

MOST: Final = 2**20
"""Stands for no limit: the kernel's own default maximum."""


def needed(*, vms: int) -> int:
    """Descriptors for a service with so many VMs, without client connections."""
    return OF_THE_SERVICE + vms * PER_VM


def connections_within(limit: int, *, vms: int) -> int:
    """How many client connections fit into `limit`. Half of it is kept for VMs, as leased ones come on top of `vms`."""
    if limit == resource.RLIM_INFINITY:
        limit = MOST
    return max(MIN_CONNECTIONS, min(limit // 2, limit - needed(vms=vms)))


def raise_limit() -> int:
    """Raises the soft limit on descriptors to the hard one, and returns it. Holds for this process and its children.

    The soft limit is 1024 nearly everywhere, for programs that use select(2), which neither trio nor QEMU does. With
    about five descriptors per VM, it would allow a pool of 200.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def forbid_core_files() -> None:
    """Sets the limit to 0 for this process and its children: a core file would contain callers' and guests' data."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
