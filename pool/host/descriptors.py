"""How many files, sockets and processes the service may have open; and that it leaves no core file."""

from __future__ import annotations

import resource
from typing import Final

PER_VM: Final = 8
"""pidfd, QMP and agent connections, and their kin while a VM starts or stops."""

OF_THE_SERVICE: Final = 256
"""Files, pipes, event loops, and what runs beside the VMs."""

MIN_CONNECTIONS: Final = 64

MOST: Final = 2**20
"""What counts as no limit; the kernel's own, by default."""


def needed(*, vms: int) -> int:
    """By a service with so many VMs, without connections of its clients."""
    return OF_THE_SERVICE + vms * PER_VM


def connections_within(limit: int, *, vms: int) -> int:
    """How many a service with so many VMs can have of its clients. Half is kept for VMs, as leased ones come on top."""
    if limit == resource.RLIM_INFINITY:
        limit = MOST
    return max(MIN_CONNECTIONS, min(limit // 2, limit - needed(vms=vms)))


def raise_limit() -> int:
    """Raises the soft limit on descriptors to the hard one, which it returns. For this process and its children.

    The soft limit is 1024 nearly everywhere, for programs that use select(2): with some five descriptors for each VM,
    a pool of 200 would be the end. Neither trio nor QEMU uses it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def forbid_core_files() -> None:
    """What callers pass to their VMs is in our memory, and in that of QEMUs that guests run in. For us and children."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
