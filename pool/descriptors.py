"""How many files, sockets and processes the service may have open; and that it leaves no core file."""

from __future__ import annotations

import resource


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
