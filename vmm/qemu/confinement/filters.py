"""The system calls that a confined QEMU never makes, as a seccomp program: by libseccomp, which QEMU itself is linked
with.

QEMU's own filter (`-sandbox`, see `command_line`) is loaded by QEMU, after it has opened its devices, and allows these
calls. This one applies from its first instruction.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from collections.abc import Sequence
from typing import Final

from vmm.errors import ConfinementError
from vmm.qemu.jailer.protocol import NAMESPACES

_LIBRARY: Final = "libseccomp.so.2"

_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_FLAG_BAD_ARCHITECTURE: Final = 2
"""SCMP_FLTATR_ACT_BADARCH: the action for calls of another architecture; by default it kills the thread."""

FATAL: Final = (
    # other processes
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal", "move_pages", "migrate_pages"),
    # large parts of the kernel that QEMU does not need, with a history of vulnerabilities
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_enter", "io_uring_register"),
    *("keyctl", "add_key", "request_key"),
    # other sockets than those passed to it; see below
    *("connect", "bind"),
    # other views of the host
    *("unshare", "setns", "mount", "umount", "umount2", "pivot_root", "chroot", "mount_setattr", "move_mount"),
    *("open_tree", "fsopen", "fsconfig", "fsmount", "fspick", "open_by_handle_at", "name_to_handle_at"),
    *("quotactl", "quotactl_fd", "swapon", "swapoff", "fanotify_init"),
    # the host itself
    *("reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "acct", "syslog"),
    *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime", "sethostname", "setdomainname"),
    *("iopl", "ioperm", "modify_ldt", "vm86", "vm86old", "nfsservctl", "vhangup", "lookup_dcookie", "uselib"),
)
"""QEMU makes none of these; a process that does is killed."""

REFUSED: Final = {"io_uring_setup": errno.ENOSYS, "clone3": errno.ENOSYS, "socket": errno.EACCES}
"""QEMU tries the first and does without; the C library uses clone() in place of clone3(), whose flags lie in memory,
where no filter sees them. To look up a user's name, as bash does in a script around QEMU, the library asks a daemon
first.
"""

_CLONE_NEWCGROUP: Final = 0x02000000

_NAMESPACE_FLAGS: Final = (*NAMESPACES.values(), _CLONE_NEWCGROUP)
"""Of clone()'s first argument."""

_MASKED_EQUAL: Final = 7


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


def program() -> bytes:
    """The program in BPF, as the kernel takes it. Blocks for some ms.

    Raises ConfinementError if libseccomp is missing.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise ConfinementError(
            what="seccomp", reason=f"{_LIBRARY} cannot be loaded: {error}", remedy="install libseccomp"
        ) from error
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ALLOW)))
    try:
        _checked(library.seccomp_attr_set(context, _FLAG_BAD_ARCHITECTURE, ctypes.c_uint32(_KILL_PROCESS)))
        for name in FATAL:
            _add(library, context, name, action=_KILL_PROCESS)
        for name, error_number in REFUSED.items():
            _add(library, context, name, action=_ERRNO | error_number)
        for flag in _NAMESPACE_FLAGS:
            _add(
                library,
                context,
                "clone",
                action=_KILL_PROCESS,
                comparisons=(_Comparison(0, _MASKED_EQUAL, flag, flag),),
            )
        return _exported(library, context)
    finally:
        library.seccomp_release(context)


def _add(
    library: ctypes.CDLL,
    context: ctypes.c_void_p,
    name: str,
    *,
    action: int,
    comparisons: Sequence[_Comparison] = (),
) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == -1:  # unknown to an older library; a kernel that has it may offer a way around this filter and QEMU's
        return
    array = (_Comparison * len(comparisons))(*comparisons)
    _checked(library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(comparisons), array))


def _exported(library: ctypes.CDLL, context: ctypes.c_void_p) -> bytes:
    with tempfile.TemporaryFile() as file:
        _checked(library.seccomp_export_bpf(context, file.fileno()))
        file.seek(0)
        return file.read()


def _checked(result: int) -> None:
    if result < 0:
        raise ConfinementError(what="seccomp", reason=os.strerror(-result), remedy="report this as a bug")
