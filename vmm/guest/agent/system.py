"""The parts of the guest's system that the agent reads and changes. Tests pass a substitute."""

from __future__ import annotations

# The C module behind `socket`; `socket` itself would import `selectors` and `enum`.
import _socket
import fcntl
import os
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
_POOL_INFO = struct.Struct("<ii")
_CHUNK = 512
"""fcntl.ioctl accepts at most 1024 bytes."""

_PHYS_PAGES = os.sysconf_names["SC_PHYS_PAGES"]
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

_MOUNT = "/bin/busybox"
_MOUNTS = "/proc/mounts"
"""Its first line is the root file system."""

_CPUS = "/sys/devices/system/cpu"
_MEMORY = "/sys/devices/system/memory"
_MACHINE_ID = "/etc/machine-id"
_VM_UUID = "/sys/class/dmi/id/product_uuid"
"""`init` has mounted a writable file over the firmware's value."""


class System:
    """The real system; needs root. Every method raises OSError.

    Files that a hand-out writes to stay open after their first use: they are opened in the template, so its clones do
    not have to. Walking paths, and closing files, which costs an RCU grace period, made up a fifth of the code that a
    clone under TCG translates. This suits only a guest that no user has touched yet: a file that later replaces one of
    these is neither written nor reported, and their file systems cannot be unmounted.
    """

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._memory_kib = _memory_kib()
        self._clock_lead_ns = self._lead_ns()
        """Of the clock before the monotonic one, when it was last set from here."""

    def close(self) -> None:
        """Closes the open files. Idempotent."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _opened(self, path: str, flags: int) -> int:
        fd = self._open.get(path)
        if fd is None:
            fd = self._open[path] = os.open(path, flags | os.O_CLOEXEC, 0o444)
        return fd

    def reseed(self, entropy: bytes) -> None:
        """Credits the bytes to the kernel's entropy pool, and reseeds the generator from it at once.

        Without the second step a clone's generator continues with the key that it shares with its siblings.
        """
        fd = self._opened("/dev/random", os.O_WRONLY)
        for start in range(0, len(entropy), _CHUNK):
            chunk = entropy[start : start + _CHUNK]
            fcntl.ioctl(fd, _RNDADDENTROPY, _POOL_INFO.pack(8 * len(chunk), len(chunk)) + chunk)
        fcntl.ioctl(fd, _RNDRESEEDCRNG)

    def set_clock(self, wall_clock_ns: int) -> None:
        time.clock_settime_ns(time.CLOCK_REALTIME, wall_clock_ns)
        self._clock_lead_ns = self._lead_ns()

    def wall_clock_ns(self) -> int:
        return time.time_ns()

    def clock_moved_ns(self) -> int:
        """By how much the clock was moved by others since it was set from here. A machine that stood still moves none:
        both clocks stood."""
        return self._lead_ns() - self._clock_lead_ns

    def _lead_ns(self) -> int:
        return time.time_ns() - time.monotonic_ns()

    def random(self, count: int) -> bytes:
        """Random bytes as a program in the guest gets them. Raises BlockingIOError if the kernel has none yet."""
        return os.getrandom(count, os.GRND_NONBLOCK)

    def set_hostname(self, hostname: str) -> None:
        _socket.sethostname(hostname)

    def set_machine_id(self, machine_id: str) -> str:
        """Returns the machine ID that is then in effect."""
        return _overwrite(self._opened(_MACHINE_ID, os.O_RDWR | os.O_CREAT), machine_id)

    def set_vm_uuid(self, vm_uuid: str) -> str:
        """Returns the UUID that is then in effect: empty, with nothing done, if the kernel exposes none."""
        try:
            fd = self._opened(_VM_UUID, os.O_RDWR)
        except FileNotFoundError:
            return ""
        return _overwrite(fd, vm_uuid)

    def cpus_online(self) -> int:
        """The size of the agent's CPU affinity, which is every CPU: nothing in this guest is pinned. That is one system
        call; opening the file in /sys costs a clone milliseconds under TCG."""
        return len(os.sched_getaffinity(0))

    def memory_online_mib(self) -> int:
        """Online memory, in whole blocks. MemTotal is less by the kernel's own reserve."""
        online = sum(_is_online(block) for block in _numbered(_MEMORY, "memory"))
        return online * int(_read(f"{_MEMORY}/block_size_bytes"), 16) // 2**20

    def bring_online(self, *, cpus: bool, memory: bool) -> Iterator[str]:
        """Brings up plugged-in devices that are offline, one CPU or memory block per step; each may take 0.1 s.

        Yields an empty string for each that came up, and a message for each that did not. Skips devices that the kernel
        has not noticed yet.
        """
        switches = [(f"{path}/online", "1") for path in (_plugged_cpus() if cpus else ())]
        switches += [(f"{path}/state", "online") for path in (_numbered(_MEMORY, "memory") if memory else ())]
        for path, on in switches:
            try:
                if _read(path).strip() != on:
                    _write(path, on)
                    yield ""
            except FileNotFoundError:
                continue  # cpu0 cannot be switched, and a device that is being plugged in has no file yet.
            except OSError as error:
                yield f"{path}: {error.strerror}"

    def make_room_for_files(self) -> None:
        """Resizes the initramfs root, which holds files in memory, by the rule of `init`, for the memory there is now.

        Does nothing if the memory has not changed. If the remount fails the old size stays.
        """
        total = _memory_kib()
        if total == self._memory_kib or not _read(_MOUNTS).startswith("rootfs "):
            return
        self._memory_kib = total
        size = min(total * 6 // 10, total - 49152)
        argv = [_MOUNT, "mount", "-o", f"remount,size={size}k,nr_inodes={total // 10}", "rootfs", "/"]
        pid = os.posix_spawn(_MOUNT, argv, {})
        if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            sys.stderr.write(f"vmpool agent: {' '.join(argv)}: exit status {status}\n")

    def report(self) -> dict[str, Any]:
        """Fields that are in every report."""
        return {
            "hostname": _socket.gethostname(),
            # One system call; the same number from /proc/meminfo costs a clone milliseconds under TCG.
            "memory_mib": _memory_kib() // 1024,
            "wall_clock_ns": self.wall_clock_ns(),
        }


def _memory_kib() -> int:
    return os.sysconf(_PHYS_PAGES) * _PAGE_SIZE // 1024


def _plugged_cpus() -> list[str]:
    """CPUs found by ACPI, which gives them a node. On an emulated machine the kernel lists every CPU slot, including
    empty ones; starting an empty one fails after ten seconds.
    """
    paths = _numbered(_CPUS, "cpu")
    found = [path for path in paths if os.access(f"{path}/firmware_node", os.F_OK)]
    # Without ACPI no CPU has a node.
    return found or paths


def _numbered(directory: str, prefix: str) -> list[str]:
    """Paths of the entries named by the prefix and a number, in numeric order."""
    names = os.listdir(directory)
    numbers = [int(name[len(prefix) :]) for name in names if name.startswith(prefix) and name[len(prefix) :].isdigit()]
    return [f"{directory}/{prefix}{number}" for number in sorted(numbers)]


def _is_online(block: str) -> bool:
    try:
        return _read(f"{block}/state").startswith("online")
    except FileNotFoundError:
        return False  # It is being plugged in: its directory appears before its files.


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).decode()
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _overwrite(fd: int, text: str) -> str:
    """Makes this line the content of a file, in place: the file may be a mount point. It is never empty meanwhile.

    Returns the content read back.
    """
    line = f"{text}\n".encode()
    os.pwrite(fd, line, 0)
    found = os.pread(fd, 256, 0)
    if len(found) != len(line):
        os.ftruncate(fd, len(line))
        found = os.pread(fd, 256, 0)
    return found.decode().rstrip("\n")
