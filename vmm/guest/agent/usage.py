"""What the guest uses, as its kernel tells."""

from __future__ import annotations

import os
import time

from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .service import Service

_TICK_MS = 1000 // os.sysconf("SC_CLK_TCK")


def usage(service: Service, stream: int, _request: dict[str, Any]) -> None:
    """Answers at once. Raises OSError."""
    user, nice, system, idle, iowait, irq, softirq = map(int, _read("/proc/stat").split(None, 8)[1:8])
    memory = _read("/proc/meminfo")
    disk = os.statvfs("/")
    reply = {
        "cpus_online": service.system.cpus_online(),
        # What programs of a guest's own guests use is in `user` already, and what the host took is neither.
        "cpu_busy_ms": (user + nice + system + irq + softirq) * _TICK_MS,
        "cpu_idle_ms": (idle + iowait) * _TICK_MS,
        "memory_total_bytes": _kib(memory, "MemTotal:") * 1024,
        "memory_available_bytes": _kib(memory, "MemAvailable:") * 1024,
        "processes": sum(map(_is_process, os.listdir("/proc"))),
        "load_1m_hundredths": int(_read("/proc/loadavg").split()[0].replace(".", "")),
        "disk_total_bytes": disk.f_blocks * disk.f_frsize,
        "disk_available_bytes": disk.f_bavail * disk.f_frsize,
        "uptime_ms": time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000,
        "wall_clock_ns": service.system.wall_clock_ns(),
    }
    service.channel.send_value(wire.REPLY, stream, reply)


def _kib(memory: str, name: str) -> int:
    start = memory.index(name) + len(name)
    return int(memory[start : memory.index("kB", start)])


def _is_process(name: str) -> bool:
    """Not the kernel's own threads, which run no program, nor what has ended and waits for its parent."""
    if not name.isdigit():
        return False
    try:
        os.readlink(f"/proc/{name}/exe")
    except (FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64 * 1024).decode()
    finally:
        os.close(fd)
