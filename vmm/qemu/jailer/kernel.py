"""System calls without a function in the standard library. Numbers and structures as in the kernel's headers."""

from __future__ import annotations

import ctypes
import itertools
import os
import platform
import struct

_NUMBERS = {
    "x86_64": {"clone": 56, "capset": 126, "pivot_root": 155, "keyctl": 250, "seccomp": 317},
    "aarch64": {"clone": 220, "capset": 91, "pivot_root": 41, "keyctl": 219, "seccomp": 277},
}
"""The newer ones, below, are the same on every architecture."""

_MOUNT_SETATTR = 442
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446

CLONE_PARENT = 0x00008000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID = 1, 2

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_SET_MODE_FILTER = 1
_KEYCTL_JOIN_SESSION_KEYRING, _KEYCTL_SETPERM = 1, 5
_SESSION_KEYRING = -3

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def clone(flags: int) -> int:
    """fork(2) with flags; returns 0 in the child. For a single-threaded process that soon executes a program."""
    return _call(_number("clone"), flags, 0, 0, 0, 0)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """See mount(2)."""
    _check(
        _libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()),
        target,
    )


def make_read_only(target: str) -> None:
    """Makes a mount and everything below it read-only and nosuid (kernel 5.12)."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)
    _call(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, attributes, len(attributes))


def move_root(root: str) -> None:
    """Makes the mount `root` the root directory, and detaches the old one.

    A process whose root is not a mount cannot change it for its namespace (pivot_root(2)); it changes its own.
    """
    os.chdir(root)
    try:
        _call(_number("pivot_root"), b".", b".")
    except OSError:
        os.chroot(".")
    else:
        _check(_libc.umount2(b".", MNT_DETACH), "the old root")
    os.chdir("/")


def bound_privileges() -> None:
    """Executing a program grants no capabilities any more. Needs capabilities; without any the kernel refuses it."""
    for capability in itertools.takewhile(_is_capability, itertools.count()):
        _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)


def give_up_privileges() -> None:
    """Gives up all capabilities for good."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _call(_number("capset"), header, bytes(24))


def leave_keyring() -> None:
    """Replaces the session keyring inherited from our parent by an empty one that is writable by no process."""
    keyctl = _number("keyctl")
    _call(keyctl, _KEYCTL_JOIN_SESSION_KEYRING, None)
    _call(keyctl, _KEYCTL_SETPERM, _SESSION_KEYRING, 0)


def _is_capability(number: int) -> bool:
    return bool(_libc.prctl(_PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0) >= 0)


def load_filter(program: bytes) -> None:
    """Loads a seccomp program in BPF, for good."""
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    _call(_number("seccomp"), _SECCOMP_SET_MODE_FILTER, 0, head)


def landlock_version() -> int:
    """The version of the kernel's interface. Raises OSError if Landlock is missing or switched off."""
    return _call(_LANDLOCK_CREATE_RULESET, None, 0, 1)


def landlock_ruleset(*, filesystem: int, network: int, scoped: int, version: int) -> int:
    """Returns the descriptor of a ruleset that handles these rights; the caller closes it."""
    attributes = struct.pack("=QQQ", filesystem, network, scoped)[: 8 if version < 4 else 16 if version < 6 else 24]
    return _call(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)


def landlock_allow(ruleset: int, path: int, rights: int) -> None:
    """Allows these rights on the file, or below the directory, that the descriptor `path` refers to."""
    _call(_LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, path), 0)


def landlock_restrict(ruleset: int) -> None:
    """Restricts this process and its descendants to the ruleset's rights."""
    _call(_LANDLOCK_RESTRICT_SELF, ruleset, 0)


def _number(name: str) -> int:
    return _NUMBERS[platform.machine()][name]


def _call(number: int, *arguments: bytes | int | None) -> int:
    """Raises OSError. Integers are passed at full width: ctypes would cut them to 32 bits."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *wide))


def _check(result: int, name: str | None = None) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
    return int(result)
