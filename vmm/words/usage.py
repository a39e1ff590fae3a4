"""What a VM uses, as its guest tells."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Usage:
    """The guest's own figures; CPU times are of all CPUs together, since the guest, or its template's, booted."""

    cpus_online: int
    cpu_busy_ms: int
    cpu_idle_ms: int
    memory_total_bytes: int
    memory_available_bytes: int
    processes: int
    load_1m: float
    disk_total_bytes: int
    """Of the root file system."""
    disk_available_bytes: int
    uptime_ms: int
    wall_clock_ns: int
