"""What the agent changes and reads in the guest's system. Tests give the agent another one."""

from __future__ import annotations

# The C module behind `socket`, which itself would import `selectors` and `enum` with it.
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
"""fcntl.ioctl takes at most 1024 bytes."""

_PHYS_PAGES = os.sysconf_names["SC_PHYS_PAGES"]
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

_MOUNT = "/bin/busybox"
_MOUNTS = "/proc/mounts"
"""The first is that of the root."""

_CPUS = "/sys/devices/system/cpu"
_MEMORY = "/sys/devices/system/memory"
_MACHINE_ID = "/etc/machine-id"
_VM_UUID = "/sys/class/dmi/id/product_uuid"
"""`init` has put a file that can be written over what the firmware says."""


class System:
    """The real one; needs root. Every method raises OSError.

    What a hand-out writes to stays open from the first time on: it is opened in the template, and its clones are spared
    the way to it. Walking a path, and closing, which costs the kernel an RCU grace period, were a fifth of the code
    that a clone under TCG translates. So all this is for a guest in which nobody else has been yet: a file that was put
    in the place of one of these later is neither written nor reported, and their file systems cannot be unmounted.
    """

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._memory_kib = _memory_kib()

    def close(self) -> None:
        """Gives back what is open. Idempotent."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _opened(self, path: str, flags: int) -> int:
        fd = self._open.get(path)
        if fd is None:
            fd = self._open[path] = os.open(path, flags | os.O_CLOEXEC, 0o444)
        return fd

    def reseed(self, entropy: bytes) -> None:
        """Credits the bytes to the kernel's pool, and has the generator take a new key from it at once.

        Without the second step the generator of a clone goes on with the key it shares with its siblings.
        """
        fd = self._opened("/dev/random", os.O_WRONLY)
        for start in range(0, len(entropy), _CHUNK):
            chunk = entropy[start : start + _CHUNK]
            fcntl.ioctl(fd, _RNDADDENTROPY, _POOL_INFO.pack(8 * len(chunk), len(chunk)) + chunk)
        fcntl.ioctl(fd, _RNDRESEEDCRNG)

    def set_clock(self, wall_clock_ns: int) -> None:
        time.clock_settime_ns(time.CLOCK_REALTIME, wall_clock_ns)

    def random(self, count: int) -> bytes:
        """What a program gets that asks the kernel for random bytes. BlockingIOError if it has none to give yet."""
        return os.getrandom(count, os.GRND_NONBLOCK)

    def set_hostname(self, hostname: str) -> None:
        _socket.sethostname(hostname)

    def set_machine_id(self, machine_id: str) -> str:
        """Returns what is there now."""
        return _overwrite(self._opened(_MACHINE_ID, os.O_RDWR | os.O_CREAT), machine_id)

    def set_vm_uuid(self, vm_uuid: str) -> str:
        """Returns what is there now. In a guest whose kernel shows no UUID that is nothing, and nothing is done."""
        try:
            fd = self._opened(_VM_UUID, os.O_RDWR)
        except FileNotFoundError:
            return ""
        return _overwrite(fd, vm_uuid)

    def cpus_online(self) -> int:
        """Those that may run us, which is all of them: nothing in this guest is bound to some. Asking for that is one
        system call; opening the file in /sys that says it costs a clone milliseconds under TCG."""
        return len(os.sched_getaffinity(0))

    def memory_online_mib(self) -> int:
        """What the machine has, in the kernel's blocks; MemTotal is less by what the kernel keeps for itself."""
        online = sum(_is_online(block) for block in _numbered(_MEMORY, "memory"))
        return online * int(_read(f"{_MEMORY}/block_size_bytes"), 16) // 2**20

    def bring_online(self, *, cpus: bool, memory: bool) -> Iterator[str]:
        """Brings up what is plugged in and offline, a CPU or block between two steps; each may take 0.1 s.

        Yields the empty string for each that came up, and a sentence for each that did not. What the kernel has not
        noticed yet is not there.
        """
        switches = [(f"{path}/online", "1") for path in (_plugged_cpus() if cpus else ())]
        switches += [(f"{path}/state", "online") for path in (_numbered(_MEMORY, "memory") if memory else ())]
        for path, on in switches:
            try:
                if _read(path).strip() != on:
                    _write(path, on)
                    yield ""
            except FileNotFoundError:
                continue  # cpu0 has no switch, and what is just being plugged in has none yet.
            except OSError as error:
                yield f"{path}: {error.strerror}"

    def make_room_for_files(self) -> None:
        """In an initramfs they lie in memory, up to a part of it: the one that `init` chose, of what there is now.

        Nothing is done where there is as much as before. A guest that cannot do it keeps the room that it had.
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
        """What is always told."""
        return {
            "hostname": _socket.gethostname(),
            # One system call; the same number from /proc/meminfo costs a clone milliseconds under TCG.
            "memory_mib": _memory_kib() // 1024,
            "wall_clock_ns": time.time_ns(),
        }


def _memory_kib() -> int:
    return os.sysconf(_PHYS_PAGES) * _PAGE_SIZE // 1024


def _plugged_cpus() -> list[str]:
    """Those that ACPI has found, which gives them a node. The kernel of an emulated machine is told that each place for
    a CPU has one, and shows them all; to start one that is not plugged in fails after ten seconds.
    """
    paths = _numbered(_CPUS, "cpu")
    found = [path for path in paths if os.access(f"{path}/firmware_node", os.F_OK)]
    # Without ACPI none has a node.
    return found or paths


def _numbered(directory: str, prefix: str) -> list[str]:
    """Paths of the entries whose name is the prefix and a number, in the order of the numbers."""
    names = os.listdir(directory)
    numbers = [int(name[len(prefix) :]) for name in names if name.startswith(prefix) and name[len(prefix) :].isdigit()]
    return [f"{directory}/{prefix}{number}" for number in sorted(numbers)]


def _is_online(block: str) -> bool:
    try:
        return _read(f"{block}/state").startswith("online")
    except FileNotFoundError:
        return False  # It is just being plugged in: its directory comes before its files.


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
    """Makes this line the content of a file, in place: it may be a mount point. Whoever reads it never sees it empty.

    Returns what can be read from it then.
    """
    line = f"{text}\n".encode()
    os.pwrite(fd, line, 0)
    found = os.pread(fd, 256, 0)
    if len(found) != len(line):
        os.ftruncate(fd, len(line))
        found = os.pread(fd, 256, 0)
    return found.decode().rstrip("\n")
