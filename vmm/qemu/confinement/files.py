"""How long a file may become that QEMU writes to. Its logs are on the host's tmpfs, which all VMs share."""

from __future__ import annotations

from typing import Final

MAX_FILE_BYTES: Final = 32 * 2**20
"""Logs are emptied at 1 MiB, every half minute, while the service lives and the VM is its own. A guest that writes as
fast as it can comes to some MB by then; who has taken over QEMU, to whatever the file system has. The largest file that
an honest QEMU writes is the device state of a template, with less than a MiB; guest memory is mapped."""

_BLOCK: Final = 512
"""POSIX: the unit of `ulimit -f`."""

LIMIT_FILES: Final = f'ulimit -f {MAX_FILE_BYTES // _BLOCK}; trap "" XFSZ; '
"""For the shell that QEMU is started by; it cannot be raised again. Ignored, the signal leaves an error for who writes:
QEMU then drops what the guest says, and goes on."""
