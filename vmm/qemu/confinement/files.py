"""How long a file may become that QEMU writes to. Its logs are on the host's tmpfs, which all VMs share."""

from __future__ import annotations

from typing import Final

MAX_FILE_BYTES: Final = 32 * 2**20
"""Logs are emptied at 1 MiB, every half minute, while the service lives and the VM is its own. A guest that writes as
fast as it can comes to some MB by then; who has taken over QEMU, to whatever the file system has. The largest file that
an honest QEMU writes is the device state of a template, with less than a MiB; guest memory is mapped."""
