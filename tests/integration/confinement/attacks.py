"""What a QEMU that its guest has taken over may try, as system calls of x86-64.

The standard library only: it is executed in the place of QEMU, too.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NUMBERS = {
    "read": 0,
    "ioctl": 16,
    "socket": 41,
    "connect": 42,
    "kill": 62,
    "ptrace": 101,
    "mount": 165,
    "add_key": 248,
    "keyctl": 250,
    "openat": 257,
    "unshare": 272,
    "perf_event_open": 298,
    "process_vm_readv": 310,
    "bpf": 321,
    "userfaultfd": 323,
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
}

AT_FDCWD = -100
AF_UNIX, AF_INET, AF_NETLINK, AF_VSOCK = 1, 2, 16, 40
SIOCGIFADDR = 0x8915
PTRACE_SEIZE = 0x4206


@dataclass(frozen=True)
class Targets:
    """Of an attack: another VM, and the service."""

    victim: int
    victim_address: int
    """Of memory that it may read itself."""
    directory: str
    service: int
    service_socket: str
    port: int
    """Of 127.0.0.1, where somebody listens."""


@dataclass(frozen=True)
class Result:
    """Of the call before, in place of an argument."""


@dataclass(frozen=True)
class Vector:
    """An iovec of eight bytes; without an address there are some of our own."""

    address: int | None = None


OWN_AFFAIR = {
    *("a netlink socket", "a vsock socket", "io_uring", "a session keyring", "a key", "perf", "userfaultfd", "unshare"),
}
"""Attacks that reach nobody by themselves: each opens a part of the kernel, and the filter alone keeps that shut."""

Argument = int | str | bytes | Result | Vector
Call = tuple[str, tuple[Argument, ...]]
Perform = Callable[..., int]
"""A system call: its number and up to six arguments. Returns what the kernel does, an error as a negative number."""


def attacks(at: Targets) -> dict[str, tuple[Call, ...]]:
    """By name. One has succeeded if all of its calls have."""
    of_victim, of_service = f"/proc/{at.victim}", f"/proc/{at.service}"
    return {
        "another VM's memory": (_open(f"{of_victim}/mem", os.O_RDWR),),
        "another VM's environment": (_open(f"{of_victim}/environ"), ("read", (Result(), bytes(64), 64))),
        "another VM's directory": (_open(at.directory, os.O_DIRECTORY),),
        "another VM's socket": (
            ("socket", (AF_UNIX, 1, 0)),
            ("connect", (Result(), *_unix(f"{at.directory}/qmp.sock"))),
        ),
        "a template's memory file": (_open(f"{at.directory}/memory", os.O_RDWR),),
        "the service's memory": (_open(f"{of_service}/mem", os.O_RDWR),),
        "the service's socket": (("socket", (AF_UNIX, 1, 0)), ("connect", (Result(), *_unix(at.service_socket)))),
        "a file in /tmp": (_open("/tmp/attack", os.O_CREAT | os.O_WRONLY),),
        "a file in /dev/shm": (_open("/dev/shm/attack", os.O_CREAT | os.O_WRONLY),),
        "/etc/passwd": (_open("/etc/passwd"),),
        "ptrace another VM": (("ptrace", (PTRACE_SEIZE, at.victim, 0, 0)),),
        "ptrace the service": (("ptrace", (PTRACE_SEIZE, at.service, 0, 0)),),
        "another VM's descriptor": (("pidfd_open", (at.victim, 0)), ("pidfd_getfd", (Result(), 0, 0))),
        "the service's descriptor": (("pidfd_open", (at.service, 0)), ("pidfd_getfd", (Result(), 0, 0))),
        "signal another VM": (("kill", (at.victim, signal.SIGCONT)),),
        "signal the service": (("kill", (at.service, signal.SIGCONT)),),
        "signal another VM by pidfd": (
            ("pidfd_open", (at.victim, 0)),
            ("pidfd_send_signal", (Result(), signal.SIGCONT, 0, 0)),
        ),
        "read another VM": (("process_vm_readv", (at.victim, Vector(), 1, Vector(at.victim_address), 1, 0)),),
        "the host's loopback": (("socket", (AF_INET, 1, 0)), ("connect", (Result(), *_internet(at.port)))),
        "the host's interfaces": (
            ("socket", (AF_INET, 2, 0)),
            ("ioctl", (Result(), SIOCGIFADDR, b"lo".ljust(40, b"\0"))),
        ),
        "a netlink socket": (("socket", (AF_NETLINK, 3, 0)),),
        "a vsock socket": (("socket", (AF_VSOCK, 1, 0)),),
        "io_uring": (("io_uring_setup", (8, bytes(120))),),
        "bpf": (("bpf", (0, struct.pack("=IIII", 2, 4, 8, 1).ljust(128, b"\0"), 128)),),
        "a session keyring": (("keyctl", (1, 0)),),
        "a key": (
            ("keyctl", (1, 0)),
            ("add_key", ("user", "attack", b"x", 1, -3)),
        ),
        "perf": (("perf_event_open", (struct.pack("=IIQ", 1, 128, 0).ljust(128, b"\0"), 0, -1, -1, 0)),),
        "userfaultfd": (("userfaultfd", (1,)),),
        "unshare": (("unshare", (0x10000000 | 0x00020000,)),),
        "mount": (("mount", ("none", "/tmp", "tmpfs", 0, 0)),),
    }


def _open(path: str, flags: int = os.O_RDONLY) -> Call:
    return ("openat", (AT_FDCWD, path, flags, 0o600))


def _unix(path: str) -> tuple[bytes, int]:
    address = struct.pack("=H", AF_UNIX) + path.encode() + b"\0"
    return address, len(address)


def _internet(port: int) -> tuple[bytes, int]:
    return struct.pack("=H", AF_INET) + struct.pack("!H4B8x", port, 127, 0, 0, 1), 16


def attempt(calls: tuple[Call, ...], perform: Perform, memory: Callable[[bytes], int]) -> int:
    """What the last call returned, or the first that failed. `memory` puts bytes where `perform` can point at them."""
    result = 0
    for name, arguments in calls:
        words = []
        for argument in arguments:
            match argument:
                case int():
                    words.append(argument)
                case str():
                    words.append(memory(argument.encode() + b"\0"))
                case bytes():
                    words.append(memory(argument))
                case Result():
                    words.append(result)
                case Vector(address=address):
                    words.append(memory(struct.pack("=QQ", memory(bytes(8)) if address is None else address, 8)))
        result = perform(NUMBERS[name], *words)
        if result < 0:
            break
    return result


def from_within(targets: dict[str, Any]) -> dict[str, str]:
    """Tries all of them, each in a process of its own. What is caught by a filter ends that."""
    return {name: _in_a_fork(calls) for name, calls in attacks(Targets(**targets)).items()}


def _in_a_fork(calls: tuple[Call, ...]) -> str:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        result = attempt(calls, _perform, _memory)
        os.write(theirs, b"succeeded" if result >= 0 else os.strerror(-result).encode())
        os._exit(0)
    os.close(theirs)
    said = os.read(ours, 100).decode()
    os.close(ours)
    _, status = os.waitpid(child, 0)
    return said or f"ended by {signal.Signals(os.WTERMSIG(status)).name}"


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_kept: list[Any] = []


def _perform(number: int, *words: int) -> int:
    result = _libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, words))
    return -ctypes.get_errno() if result == -1 else int(result)


def _memory(data: bytes) -> int:
    _kept.append(ctypes.create_string_buffer(data, len(data)))
    return ctypes.addressof(_kept[-1])


if __name__ == "__main__":
    print(json.dumps(from_within(json.loads(sys.argv[1]))))
