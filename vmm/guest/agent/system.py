"""What the agent changes and reads in the guest's system. Tests give the agent another one."""

from __future__ import annotations

import fcntl
import os
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
_POOL_INFO = struct.Struct("<ii")
_CHUNK = 512
"""fcntl.ioctl takes at most 1024 bytes."""

_CPUS = "/sys/devices/system/cpu"
_MEMORY = "/sys/devices/system/memory"


class System:
    """The real one; needs root. Every method raises OSError."""

    def reseed(self, entropy: bytes) -> None:
        """Credits the bytes to the kernel's pool, and has the generator take a new key from it at once.

        Without the second step the generator of a clone goes on with the key it shares with its siblings.
        """
        fd = os.open("/dev/random", os.O_WRONLY | os.O_CLOEXEC)
        try:
            for start in range(0, len(entropy), _CHUNK):
                chunk = entropy[start : start + _CHUNK]
                fcntl.ioctl(fd, _RNDADDENTROPY, _POOL_INFO.pack(8 * len(chunk), len(chunk)) + chunk)
            fcntl.ioctl(fd, _RNDRESEEDCRNG)
        finally:
            os.close(fd)

    def set_clock(self, wall_clock_ns: int) -> None:
        time.clock_settime_ns(time.CLOCK_REALTIME, wall_clock_ns)

    def set_hostname(self, hostname: str) -> None:
        _write("/proc/sys/kernel/hostname", hostname)

    def online_cpus_and_memory(self) -> None:
        """Brings up what is plugged in and offline. What the kernel has not noticed yet is not waited for."""
        for directory, prefix, switch, on in ((_CPUS, "cpu", "online", "1"), (_MEMORY, "memory", "state", "online")):
            if not os.path.isdir(directory):  # noqa: PTH112
                continue
            for name in sorted(os.listdir(directory)):  # noqa: PTH208
                path = f"{directory}/{name}/{switch}"
                # cpu0 has no switch.
                if name[len(prefix) :].isdigit() and name.startswith(prefix) and os.path.exists(path):  # noqa: PTH110
                    _switch_on(path, on)

    def report(self) -> dict[str, Any]:
        """What PreparationReport says, apart from `reseeded`."""
        return {
            "hostname": os.uname().nodename,
            "cpus_online": _count(_read(f"{_CPUS}/online")),
            "memory_mib": _memory_kib() // 1024,
            "wall_clock_ns": time.time_ns(),
        }


def _switch_on(path: str, on: str) -> None:
    if _read(path).strip() not in (on, "1", "online"):
        _write(path, on)


def _memory_kib() -> int:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1])
    return 0


def _count(ranges: str) -> int:
    """How many numbers "0-2,5" names."""
    count = 0
    for part in ranges.strip().split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536).decode()
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
