"""A hash that is equal for interchangeable base VMs."""

from __future__ import annotations

import hashlib
import json
from typing import Final

import trio

from vmm.devices.device import Attachment
from vmm.devices.options import inherited
from vmm.files import content_hash
from vmm.qemu.command_line import BootFiles, Passed, build_argv
from vmm.qemu.processors import needs_table
from vmm.qemu.version import QemuVersion
from vmm.spec import MachineSpec

FORMAT: Final = 3
"""Raised when the same inputs give another template, as after a change of the build."""

_NUMBER: Final = 0
"""The number of every descriptor; real ones differ between VMs."""


async def fingerprint(spec: MachineSpec, *, qemu_version: QemuVersion) -> str:
    """Hash over kernel, initrd, QEMU's program and version, accelerator, machine, CPU model, memory and command line.

    Reads the files in a thread, some 60 MB, and once: see `content_hash`. Raises OSError.
    """
    return await trio.to_thread.run_sync(_hash_of, spec, qemu_version)


def _hash_of(spec: MachineSpec, qemu_version: QemuVersion) -> str:
    # The command line has everything that is not in these files; a path in it says nothing about the content.
    argv = build_argv(spec, vm_id="vm", passed=_nothing(spec), boot=BootFiles(kernel_fd=_NUMBER, initrd_fd=_NUMBER))
    places = {str(spec.qemu), str(inherited(_NUMBER))}
    parts = {
        "format": FORMAT,
        "kernel": content_hash(spec.kernel),
        "initrd": content_hash(spec.initrd),
        # Its version names the sources, not the build; and QEMU finds firmware and modules beside itself.
        "qemu": [str(qemu_version), str(spec.qemu), content_hash(spec.qemu)],
        "argv": [argument for argument in argv if argument not in places],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _nothing(spec: MachineSpec) -> Passed:
    """Placeholders for QEMU's descriptors; each device adds its content by its own fingerprint."""
    return Passed(
        qmp_fd=_NUMBER,
        processors_fd=_NUMBER if needs_table(spec) else None,
        devices=tuple(Attachment(options=device.fingerprint()) for device in spec.devices),
    )
