"""One reading of the host's memory from the kernel: MemAvailable, and pressure stall information (PSI)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs

PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")

_AVG10: Final = re.compile(r"^(some|full) avg10=(\d+(?:\.\d+)?) ", re.MULTILINE)
_AVAILABLE: Final = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)
_CGROUP_V2: Final = re.compile(r"^0::/(.*)$", re.MULTILINE)


@attrs.frozen(kw_only=True)
class Pressure:
    """The share of the last ten seconds in which tasks waited for memory, in percent."""

    some_avg10: float
    """At least one task waited."""
    full_avg10: float
    """All tasks waited."""


@attrs.frozen(kw_only=True)
class MemoryReading:
    available_mib: int | None
    """Memory available without swapping, by the kernel's estimate. None: unknown."""
    host: Pressure | None
    """None: the kernel has no PSI (CONFIG_PSI, or psi=0)."""
    own: Pressure | None
    """The pressure in the service's control group, which may be short of memory while the host is not."""

    @property
    def some_avg10(self) -> float | None:
        """The higher of the two pressures."""
        return max((one.some_avg10 for one in (self.host, self.own) if one is not None), default=None)


def read_memory(*, cgroup: Path | None = None, proc: Path = PROC) -> MemoryReading:
    """Reads three small files of the kernel. Does not wait or raise: an unreadable value is None."""
    return MemoryReading(
        available_mib=parse_available(_text(proc / "meminfo")),
        host=parse_pressure(_text(proc / "pressure" / "memory")),
        own=None if cgroup is None else parse_pressure(_text(cgroup / "memory.pressure")),
    )


def own_cgroup(*, proc: Path = PROC, root: Path = CGROUPS) -> Path | None:
    """The directory of this process's control group, if the host has cgroup v2."""
    found = _CGROUP_V2.search(_text(proc / "self" / "cgroup"))
    if found is None or not (root / "cgroup.controllers").exists():
        return None
    return root / found[1]


def parse_pressure(text: str) -> Pressure | None:
    """/proc/pressure/memory, or a control group's memory.pressure; None if it is neither."""
    averages = {kind: float(value) for kind, value in _AVG10.findall(text)}
    if averages.keys() != {"some", "full"}:
        return None
    return Pressure(some_avg10=averages["some"], full_avg10=averages["full"])


def parse_available(text: str) -> int | None:
    """MemAvailable of /proc/meminfo, in MiB."""
    found = _AVAILABLE.search(text)
    return None if found is None else int(found[1]) // 1024


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:  # missing, not readable, or switched off (EOPNOTSUPP)
        return ""
