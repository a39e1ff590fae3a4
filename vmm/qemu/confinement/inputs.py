"""The files that QEMU reads, in any directory: it inherits them open.

QEMU takes no descriptor for boot files, but it can reopen one, as /proc/self/fd/N. That needs the right to the file,
and none to its directories. A file that QEMU's user may not read, like distributions' kernels or any file under a
strict umask, is copied once, and QEMU gets the copy.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vmm.devices.options import inherited
from vmm.qemu.confinement.user import QemuUser, user_may
from vmm.sealed import SealedMemory

REMEMBERED: Final = 16
"""Files, enough for eight machines. A copy has the size of its file, and is in memory."""

_Version = tuple[int, ...]
"""A file's version: it changes when the file is replaced, written to, or gets another owner, mode or access list."""


class InputFiles:
    """The files that one user's QEMUs read, and the copies of them. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: dict[_Version, SealedMemory | None] = {}
        """None: QEMU reads the file itself. The most recently used is at the end."""

    @contextlib.contextmanager
    def open(self, path: Path, *, user: QemuUser | None) -> Iterator[int]:
        """A descriptor for QEMU to inherit, which `user` may reopen. None: QEMU runs as the service. Raises OSError.

        Blocks for three system calls; for a new file, for some 3 ms and the time of a copy.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            copy = None if user is None else self._copy_for(user, descriptor)
            yield descriptor if copy is None else copy.fileno()
        finally:
            os.close(descriptor)

    def _copy_for(self, user: QemuUser, descriptor: int) -> SealedMemory | None:
        version = _version_of(descriptor)
        with self._lock:
            if version in self._copies:
                copy = self._copies[version] = self._copies.pop(version)
                return copy
        # Not under the lock: a thread that copies a large file must not keep the event loop from starting a VM.
        readable = user_may("-r", inherited(descriptor), user=user, pass_fds=(descriptor,))
        copy = None if readable else SealedMemory.copy_of_open(descriptor)
        with self._lock:
            self._copies[version] = copy
            for oldest in list(self._copies)[:-REMEMBERED]:
                del self._copies[oldest]
        return copy


def _version_of(descriptor: int) -> _Version:
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
