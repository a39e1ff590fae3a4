"""What makes two base VMs interchangeable, as one hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

import trio

from vmm.qemu.command_line import Channels, build_argv
from vmm.qemu.version import QemuVersion
from vmm.spec import MachineSpec

FORMAT: Final = 1
"""Goes up when a template of the same inputs would be another one, as with a change of what is done to it."""

_NO_CHANNELS: Final = Channels(qmp_fd=0, agent_fd=0, console_fd=0, console_log=Path("console"))


async def fingerprint(spec: MachineSpec, *, qemu_version: QemuVersion) -> str:
    """Hash over kernel, initrd, QEMU's version, accelerator, machine, CPU model, memory and command line.

    Reads kernel and initrd in a thread, some 40 MB. Raises OSError.
    """
    kernel, initrd = await trio.to_thread.run_sync(lambda: (_hash_file(spec.kernel), _hash_file(spec.initrd)))
    # The command line holds all the rest; paths in it are places, not contents.
    argv = build_argv(spec, vm_id="vm", channels=_NO_CHANNELS)
    places = {str(spec.qemu), str(spec.kernel), str(spec.initrd)}
    parts = {
        "format": FORMAT,
        "kernel": kernel,
        "initrd": initrd,
        "qemu": str(qemu_version),
        "argv": [argument for argument in argv if argument not in places],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
